"""simulate on real records: it repeats what was done, tries other settings, writes nothing."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest

from ml_control.core.digests import sha256
from ml_control.core.records import ModelVersion, Variant
from ml_control.core.retraining import begun, ended
from ml_control.errors import InvalidSpec
from ml_control.ports import Outcome, Prediction
from ml_control.services.models.retraining import keep, observe_and_decide
from ml_control.services.models.selection import select
from ml_control.services.reading.simulation import changed, simulate
from ml_control.services.reading.timeline import note_asked
from ml_control.services.releases.rollout.evidence import gather, judgement, read_evidence

P = "tumours"
BATCH = 40


def tick(home):
    """What the retraining sensor does at a tick, and the training that it asks for."""
    platform, pipeline = home.platform, home.pipeline()
    before = platform.registry.models.training(P)
    seen, decision = observe_and_decide(platform, pipeline, ingesting=0, training=False)
    if keep(platform, before, seen, decision) is None:
        return False
    note_asked(platform, pipeline, seen.published, decision)
    trained(platform, pipeline)
    return True


def trained(platform, pipeline):
    """What a training that passed leaves in the registry."""
    registry, dataset = platform.registry, select(platform, pipeline).dataset
    with registry.leases.hold(P, "model", "run") as lease:
        fence, now = registry.leases.fence(lease), registry.clock()
        registry.models.change_training(P, lambda s: begun(s, dataset.digest, "run", now), fence)
        version = sha256(dataset.digest.encode())
        model = ModelVersion(
            pipeline=P, version=version, files={}, prefix="", container="3.2-0", dataset=dataset,
            features_digest="", test_set="", training_job="", hyperparameters={},
            best_iteration=0, rounds=1, metrics={}, created_at=now, run="run",
        )  # fmt: skip
        registry.models.register(model, fence)
        details = {"dataset": dataset.digest}
        registry.history.append(P, "gated: passed", version, "x", actor="run", details=details)
        registry.models.change_training(
            P, lambda s: ended(s, "passed", "", now, dataset=dataset.digest), fence
        )


def told(home, *settings, **options):
    pipeline, made = changed(home.pipeline(), settings)
    return simulate(home.platform, pipeline, made, **options)


def content(home):
    """A digest of everything in the registry."""
    with closing(sqlite3.connect(home.path / "registry.db")) as connection:
        return sha256("\n".join(connection.iterdump()).encode())


@pytest.fixture
def trained_twice(audited):
    """Two trainings that the policy asked for: on two days, and on a third one with more rows."""
    assert tick(audited)
    audited.land(audited.days[2])
    audited.publish(audited.days[2])
    assert tick(audited)
    assert not tick(audited)
    return audited


def test_trainings_are_repeated_and_tried_otherwise(trained_twice):
    """The same settings ask for the same trainings at the same times; a bound for fewer."""
    home = trained_twice
    before = content(home)

    found = told(home)["trainings"]
    real, simulated = found["real"], found["simulated"]
    assert [one["dataset"] for one in real] == [one["dataset"] for one in simulated]
    assert [one["because"] for one in real] == [one["because"] for one in simulated]
    assert 2 == len(real)
    # At the publication itself; the tick came within the time that the test takes.
    assert all(0 <= r["at"] - s["at"] < 120 for r, s in zip(real[1:], simulated[1:], strict=True))
    assert found == told(home)["trainings"]

    rows = simulated[0]["rows"] + 1
    assert 1 == len(told(home, f"retrain.min_new_rows={rows}")["trainings"]["simulated"])
    assert [] == told(home, "retrain.automatic=false")["trainings"]["simulated"]
    late = told(home, since=real[1]["at"])["trainings"]
    assert (1, 0) == (len(late["real"]), len(late["simulated"]))
    assert before == content(home)


def begin(platform, share=0.5):
    """An experiment in progress, as the record of routing says it."""
    registry = platform.registry
    variants = {
        name: Variant(endpoint=name, model_version=f"v-{name}", verdict="k", proven_live_at=0.0)
        for name in "ab"
    }
    return write(
        platform, "started", champion="v-a", variants=variants,
        weights={"a": 1 - share, "b": share},
        state="in_progress", strategy="ab_test", phase="experiment", challenger="b",
        id="tumours-7", started_at=registry.clock(),
    )  # fmt: skip


def write(platform, action, **change):
    registry = platform.registry
    with registry.leases.hold(P, "deploy", "test") as lease:
        before = registry.rollouts.get(P)
        return registry.rollouts.write(
            before, before.model_copy(update=change), registry.leases.fence(lease),
            action=action, because=f"{action} by test", actor="test",
        )  # fmt: skip


def serve(platform, rollout, first, count, better, chance):
    """Requests of distinct entities with their outcomes, told in order."""
    for number in range(first, first + count):
        challenger = chance.random() < rollout.share
        right = chance.random() < 0.6 + (better if challenger else 0.0)
        name = f"r{number}"
        asked = Prediction(
            pipeline=P, request_id=name, entity_id=f"e{number}", rollout_id=rollout.id,
            assigned="b" if challenger else "a", challenger=challenger, share=rollout.share,
            served="b" if challenger else "a", model_version="v", at=platform.registry.clock(),
            latency=0.001, rows=1, answers=b'[{"label": "benign", "score": 0.9}]',
        )  # fmt: skip
        assert [True] == platform.log.append([asked], durable=False)
        value = "benign" if right else "malignant"
        platform.log.tell(P, name, [Outcome(0, value, platform.registry.clock())])


@pytest.fixture
def experiment(audited):
    """An experiment that was judged at ticks, every 40 outcomes, until it was decided."""
    audited.edit("source:", "rollout: {strategy: ab_test, min_samples: 60}\nsource:".replace(
        "\n", "\n  "))  # fmt: skip
    platform, pipeline = audited.platform, audited.pipeline()
    rollout, chance = begin(platform), random.Random(5)
    for first in range(0, 3000, BATCH):
        serve(platform, rollout, first, BATCH, 0.3, chance)
        gather(platform, pipeline)
        found = judgement(platform, pipeline, rollout, read_evidence(platform, pipeline, rollout))
        if found.decision != "continue":
            break
    assert "promote" == found.decision
    write(platform, "promoted", champion="v-b", weights={"a": 0.0, "b": 1.0}, state="idle",
          phase="", challenger=None, ended="promoted")  # fmt: skip
    audited.samples = sum(found.samples.values())
    return audited


def test_an_experiment_is_repeated_and_tried_otherwise(experiment):
    """The same decision, at the outcome after which the next tick took it; later if surer."""
    before = content(experiment)

    (found,) = told(experiment)["experiments"]
    assert ("promote", "promote") == (found["real"]["decision"], found["simulated"]["decision"])
    assert experiment.samples - BATCH < found["simulated"]["outcomes"] <= experiment.samples
    assert found == told(experiment)["experiments"][0]
    (surer,) = told(experiment, "rollout.alpha=0.000001")["experiments"]
    assert ("continue", None) == (surer["simulated"]["decision"], surer["simulated"]["at"])
    (worse,) = told(experiment, "rollout.metric.higher_is_better=false")["experiments"]
    assert "roll_back" == worse["simulated"]["decision"]
    assert before == content(experiment)


@pytest.mark.parametrize(
    "setting",
    [
        "retrain",
        "retrain.nothing=1",
        "retrain.cooldown=10",
        "retrain.min_new_rows=none",
        "rollout.strategy=canary",
        "columns.target=x",
        "retrain.quiet=[",
        "rollout.metric.name.x=1",
    ],
)
def test_a_setting_that_cannot_be_tried_is_refused(audited, setting):
    """Unknown, without a value, of a wrong type, or of no effect on the replay."""
    with pytest.raises(InvalidSpec, match="--set"):
        changed(audited.pipeline(), [setting])
