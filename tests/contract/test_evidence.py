"""What the gates are given: times that the machine may spoil, and groups in the rows' order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ml_control.core.features import fit
from ml_control.core.profile import merge
from ml_control.errors import Retryable
from ml_control.services.models import evidence, proving
from ml_control.services.models.channels import profiles, write_channels
from ml_control.services.models.selection import select


def slowed(monkeypatch, found, work):
    """Every replay took so many milliseconds a row, of which so many were work."""
    real = proving.replay

    def replay(*arguments, **options):
        answer = real(*arguments, **options)
        return replace(answer, latency_p99_ms=found, latency_cpu_p99_ms=work)

    monkeypatch.setattr(proving, "replay", replay)


def test_a_busy_machine_makes_no_verdict(trained, monkeypatch):
    """Above the limit for waiting alone, training is Retryable: a verdict would be kept for ever.
    When the machine is less busy, the finished job is judged.
    """
    trained.edit("champion: {margin: 0.03}", "champion: {margin: 0.03}\n    latency_p99: 5 s")
    registry = trained.platform.registry
    verdicts, decisions = registry.models.verdicts("tumours"), registry.history.decisions("tumours")
    before = verdicts, list(decisions), registry.models.candidate("tumours")

    with monkeypatch.context() as patched:
        slowed(patched, 9_000.0, 0.1)
        with pytest.raises(Retryable, match="because the machine was busy") as refused:
            trained.train()

    after = registry.models.verdicts("tumours"), list(registry.history.decisions("tumours"))
    assert before == (*after, registry.models.candidate("tumours"))
    assert refused.value.next
    again = trained.train()
    assert (True, True) == (again.result.adopted, again.verdict.passed)


def test_a_slow_model_is_refused_by_its_gate(trained, monkeypatch):
    """Where the work itself takes too long, the verdict is no, with the time that it took."""
    trained.edit("champion: {margin: 0.03}", "champion: {margin: 0.03}\n    latency_p99: 5 s")
    slowed(monkeypatch, 9_000.0, 8_000.0)

    verdict = trained.train().verdict

    assert ["latency_p99"] == verdict.failed
    (gate,) = [gate for gate in verdict.gates if gate.name == "latency_p99"]
    assert 9_000.0 == gate.observed


def test_groups_are_in_the_order_of_the_test_features(audited):
    """Of two published partitions, each test row's group is that of its own encoded target."""
    platform, pipeline = audited.platform, audited.pipeline()
    dataset = select(platform, pipeline).dataset
    features = fit(pipeline.spec, merge(profiles(platform, dataset)))
    channels = write_channels(platform, pipeline, dataset, features)
    target = pipeline.spec.columns.target

    found = evidence.groups_of(platform, dataset, [target, target])[target]

    assert len(dataset.parts) == 2
    wanted = [features.labels[int(code)] for code in channels.target("test")]
    assert wanted == [found.levels[code] for code in found.codes]


def test_a_missing_value_is_a_group_in_every_file(audited, monkeypatch):
    """Files of one partition and of others give one list of levels, the missing one last."""
    blocks = [["b", None], ["a"], [], [None, "b"]]
    frames = [
        pl.DataFrame({"c": block, "split": ["test"] * len(block)}, {"c": pl.String, "split": str})
        for block in blocks
    ]
    train = pl.DataFrame({"c": ["z"], "split": ["train"]})
    monkeypatch.setattr(evidence, "frames", lambda *_: iter([*frames, train]))

    found = evidence.groups_of(audited.platform, None, ["c"])["c"]

    assert ("a", "b", None) == found.levels
    assert np.array_equal([1, 2, 0, 2, 1], found.codes)
