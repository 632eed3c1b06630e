"""A model of an example pipeline, trained on SageMaker: judged by every gate, and scoring there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from trainers import PACE, Account, Aws

from ml_control.aws.transform import SageMakerTransform
from ml_control.core.artifact import pack
from ml_control.errors import Conflict, NotProven, PlatformFailed, Retryable
from ml_control.ports import ScoringJob
from ml_control.services.models.scoring import score
from ml_control.services.models.training import train

P = "tumours"


@pytest.fixture(scope="module")
def world():
    """An account that the tests of this module share."""
    world = Account()
    yield world
    world.close()


@pytest.fixture
def scoring(trained, world):
    """A home with a proven model that scores in the account."""
    world.fake.director.reset()
    scorer = SageMakerTransform(world.clients(), world.lake, PACE)
    return replace(trained.platform, scorer=scorer)


def transforms(world):
    """Every transform job so far, oldest first."""
    found = world.api.list_transform_jobs(SortBy="CreationTime", SortOrder="Ascending")
    return [one["TransformJobName"] for one in found["TransformJobSummaries"]]


def test_a_model_trained_on_sagemaker_passes_the_gates(audited, trained_template, world):
    """Golden records, the printed metric as witness and the test metrics hold, and equal those
    of the same data trained here.
    """
    platform = replace(audited.platform, trainer=Aws(audited.root, world).client())

    trained = train(platform, audited.pipeline(), "run", lambda _: None)

    gates = {gate.name: gate for gate in trained.verdict.gates}
    assert trained.verdict.passed, trained.verdict.failed
    assert {"golden", "witness"} <= set(gates)
    local = trained_template.platform.registry.models.candidate(P)
    assert local.training_job == trained.model.training_job == world.jobs()[0]
    assert pytest.approx(local.metrics, abs=1e-6) == trained.verdict.metrics
    assert local.best_iteration == trained.model.best_iteration


def test_a_partition_is_scored_by_a_transform_job(trained, scoring, world, tmp_path):
    """Every row in order with the answers that this machine gives; asked again, nothing runs."""
    pipeline, day = trained.pipeline(), trained.days[0]
    version = scoring.registry.models.candidate(P).version
    copy = trained.copy_to(tmp_path / "here")
    here = score(copy.platform, copy.pipeline(), day, lambda _: None, version)
    want = pl.read_parquet([copy.platform.lake.local_path(file.path) for file in here.files])

    done = score(scoring, pipeline, day, lambda _: None, version)

    got = pl.read_parquet([scoring.lake.local_path(file.path) for file in done.files])
    assert want.schema == got.schema
    assert want.drop("score").equals(got.drop("score"))
    assert np.allclose(want["score"], got["score"], rtol=1e-6)
    jobs = transforms(world)
    assert len(done.files) == len(jobs)
    assert [] == list(world.lake.list("artifacts/_training/scoring"))
    assert score(scoring, pipeline, day, print, version).adopted
    assert jobs == transforms(world)


def test_scores_that_were_not_kept_come_from_the_finished_job(trained, scoring, world, monkeypatch):
    """A run that died after the job has finished starts no other."""
    pipeline, day = trained.pipeline(), trained.days[1]
    version = scoring.registry.models.candidate(P).version
    put = scoring.lake.put

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring.lake, "put", dies)
    with pytest.raises(KeyboardInterrupt):
        score(scoring, pipeline, day, print, version)
    jobs = transforms(world)
    monkeypatch.setattr(scoring.lake, "put", put)

    done = score(scoring, pipeline, day, print, version)

    assert jobs == transforms(world)
    assert done.rows == scoring.registry.partitions.get(P, day).processed.rows


@pytest.fixture
def job(trained, tmp_path):
    """Make a scoring job of the proven model over its golden rows."""
    from ml_control.services.models.gatekeeper import require_once_proven

    platform = trained.platform
    version = platform.registry.models.candidate(P).version
    proven = require_once_proven(platform, trained.pipeline(), version)

    def make(name, rows=None, **changes):
        golden = proven.golden["rows"]
        path = tmp_path / f"{name}.csv"
        lines = golden[:5] if rows is None else rows
        path.write_text("".join(f"{line}\n" for line in lines))
        usual = {
            "archive": proven.archive,
            "golden": golden,
            "expected": proven.golden["predictions"],
        }
        return ScoringJob(name, "3.2-0", rows=path, count=len(lines), **{**usual, **changes})

    return make


def test_a_job_that_answers_otherwise_than_training_counts_for_nothing(scoring, job, world):
    """Whatever the bucket's archive became: the golden rows are answered in the same job."""
    wanted = job("replaced")
    other = [[0.5] for _ in wanted.expected]
    with pytest.raises(NotProven, match="golden records otherwise"):
        scoring.scorer.predict(replace(wanted, name="otherwise", expected=other))
    with pytest.raises(Conflict):
        scoring.scorer.predict(job("otherwise", rows=wanted.golden[3:4]))
    answers = scoring.scorer.predict(wanted)
    assert np.allclose(answers, np.asarray(wanted.expected[:5], np.float32).reshape(-1), rtol=1e-6)


def leftovers(world):
    """What scoring jobs need while they run: models, and objects."""
    models = world.api.list_models(NameContains="scoring")["Models"]
    return [*models, *world.lake.list("artifacts/_training/scoring")]


def test_a_scoring_job_leaves_only_its_answers(scoring, job, world):
    """Whether it succeeds, fails or is refused at once: no model, rows or archive stay behind."""
    scoring.scorer.predict(job("whole"))
    assert [] == leftovers(world)
    world.fake.director.transform("CapacityError")
    with pytest.raises(Retryable):
        scoring.scorer.predict(job("failing"))
    assert [] == leftovers(world)
    wrong = job("wrong")
    machines = wrong.machines.model_copy(update={"instance_type": "none"})
    with pytest.raises(PlatformFailed, match="instanceType"):
        scoring.scorer.predict(replace(wrong, machines=machines))
    assert [] == leftovers(world)


def test_transform_jobs_fail_in_words_with_a_next_step(scoring, job, world):
    """Capacity may be tried again under the next name; a refusal of the container is told."""
    director = world.fake.director
    director.transform("CapacityError")
    with pytest.raises(Retryable, match="capacity"):
        scoring.scorer.predict(job("scarce"))
    assert 5 == len(scoring.scorer.predict(job("scarce")))
    assert ["scarce", "scarce-2"] == transforms(world)[-2:]
    director.transform("ClientError", reason="See job logs for more information")
    with pytest.raises(PlatformFailed, match="ClientError"):
        scoring.scorer.predict(job("refused"))
    with pytest.raises((PlatformFailed, NotProven)):
        scoring.scorer.predict(job("broken", archive=pack(b"{}")))
