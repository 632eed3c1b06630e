"""model: train on published data, package, prove against the container and the champion, judge."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ml_control.core.artifact import pack, version_of
from ml_control.core.digests import canonical, digest_of, sha256
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Dataset, Lease, ModelVersion, Verdict
from ml_control.core.retraining import begun, ended
from ml_control.core.tuning import class_weights
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.ports import TrainingJob, TrainingResult
from ml_control.services.data.audit import quality_digest
from ml_control.services.data.seals import require_sealed
from ml_control.services.models.channels import (
    Channels,
    profiles,
    tidy,
    write_channels,
)
from ml_control.services.models.evidence import ARCHIVE, FEATURES, GOLDEN, gather
from ml_control.services.models.golden import golden_document
from ml_control.services.models.progress import Say, teller
from ml_control.services.models.selection import Selection, published_digest, select
from ml_control.services.models.tuning import tune
from ml_control.services.traffic.live import keep_predictions
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    from ml_control.core.features import FeatureSpec
    from ml_control.core.gates import Evidence

STAGE = "model"
_LONGEST_PREFIX = 63 - 17
KEPT_JOBS = 5  # ended training jobs of a pipeline that stay, beside those in use


@dataclass(frozen=True)
class Trained:
    """A model version with its verdict and what led to both."""

    model: ModelVersion
    verdict: Verdict
    result: TrainingResult
    left_out: dict[str, str]
    plots: dict[str, bytes]
    is_new: bool = True  # False: the version that the training before it made


def train(platform: Platform, pipeline: Pipeline, run: str, say: Say) -> Trained:
    """Train on the present dataset and judge the outcome.

    The job is named by everything that decides its result, so doing this again adopts the
    finished job and only asks the gates anew. Raises ``NotProven`` when the data is not proven,
    ``Conflict`` while another run trains this pipeline, and the trainer's errors.
    """
    registry = platform.registry
    with registry.leases.hold(pipeline.name, STAGE, run) as lease:
        fence = registry.leases.fence(lease)
        digest = published_digest(platform, pipeline)
        known = registry.models.candidate(pipeline.name)
        # On record before anything is done: triggers seen from here on are not answered by it.
        registry.models.change_training(
            pipeline.name, lambda state: begun(state, digest, run, registry.clock()), fence
        )
        try:
            selection = select(platform, pipeline)
            digest = selection.dataset.digest
            trained = _train(platform, pipeline, selection, lease, run, say)
        except BaseException as error:
            why = str(error)[:1000]
            with suppress(MlControlError):  # lost to a successor: its state is the true one
                registry.models.change_training(
                    pipeline.name,
                    lambda state: ended(state, "failed", why, registry.clock(), dataset=digest),
                    fence,
                )
            raise
        verdict = trained.verdict
        outcome: Literal["passed", "refused"] = "passed" if verdict.passed else "refused"
        because = "every gate passed" if verdict.passed else f"failed {', '.join(verdict.failed)}"
        if known is not None and known.version == trained.model.version:
            trained = replace(trained, is_new=False)
            because = f"nothing new: the same model as before; {because}"
            say(because)
        registry.history.append(
            pipeline.name,
            f"gated: {outcome}",
            trained.model.version,
            because,
            actor=run,
            details={"verdict": verdict.key, "dataset": digest, "metrics": verdict.metrics},
        )
        registry.models.change_training(
            pipeline.name,
            lambda state: ended(state, outcome, because, registry.clock(), dataset=digest),
            fence,
        )
        return trained


def _train(
    platform: Platform,
    pipeline: Pipeline,
    selection: Selection,
    lease: Lease,
    run: str,
    say: Say,
) -> Trained:
    from ml_control.core.features import fit
    from ml_control.core.gates import gate_config, judge
    from ml_control.core.profile import merge

    spec, dataset = pipeline.spec, selection.dataset
    merged = merge(profiles(platform, dataset))
    features = fit(spec, merged)
    say(f"{dataset.rows} rows in {len(dataset.parts)} partitions, {features.width} features")
    channels = write_channels(
        platform, pipeline, dataset, features, _weights(spec, merged, features)
    )
    here = platform.settings.platform == "local"  # elsewhere the machine's memory is chosen
    name = partial(_job, pipeline, dataset, features, channels, here)
    job = name(hyperparameters(pipeline, features))
    if job.external_memory:
        say(f"more than {spec.training.memory_mb} MB of numbers: trained from external memory")
    if spec.training.tuning is not None:
        job, result = tune(platform, pipeline.name, spec.training, job, name, say)
    else:
        rounds = int(job.hyperparameters["num_round"])
        result = platform.trainer.train(job, teller(say, pipeline.name, rounds))
    taken = "taken from an earlier identical job" if result.adopted else "trained"
    say(f"{taken} in {result.seconds:.1f} s: {result.watched}={result.watched_value:.5f}")
    registry = platform.registry
    registry.models.record_trial(pipeline.name, job.name, _trial(job, dataset, result))

    require_sealed(channels.folder)  # what is judged must be what was trained on
    model = _package(platform, pipeline, dataset, features, channels, job, result, run)
    champion = registry.rollouts.get(pipeline.name).champion
    evidence = gather(platform, pipeline, selection, model, champion, channels, result)
    keep_predictions(platform, model, evidence)
    verdict = judge(
        evidence,
        spec,
        gate_config=gate_config(spec, quality_digest(spec, pipeline.suite)),
        at=registry.clock(),
        run=run,
    )
    verdict = registry.models.record_verdict(verdict)
    model = model.model_copy(update={"metrics": verdict.metrics})
    registry.models.register(model, registry.leases.fence(lease))
    _tidy(platform, pipeline, channels)
    plots = _report(platform, model, verdict, result, evidence, merged)
    return Trained(model, verdict, result, selection.left_out, plots)


def hyperparameters(pipeline: Pipeline, features: FeatureSpec) -> dict[str, str]:
    """The container's hyperparameters, as the strings it reads."""
    task = pipeline.spec.columns.task
    by_task: dict[str, dict[str, Any]] = {
        "binary": {"objective": "binary:logistic", "eval_metric": "logloss"},
        "multiclass": {
            "objective": "multi:softprob",
            "num_class": len(features.labels),
            "eval_metric": "mlogloss",
        },
        "regression": {"objective": "reg:squarederror", "eval_metric": "rmse"},
    }
    values: dict[str, Any] = {**pipeline.spec.training.hyperparameters, **by_task[task]}
    if pipeline.spec.training.class_weights == "balanced":
        values["csv_weights"] = 1
    if pipeline.spec.training.early_stopping_rounds is not None:
        values["early_stopping_rounds"] = pipeline.spec.training.early_stopping_rounds
    return {name: str(value) for name, value in sorted(values.items())}


def job_name(
    pipeline: Pipeline,
    dataset: Dataset,
    features: FeatureSpec,
    parameters: Mapping[str, str],
    *,
    external: bool = False,
) -> str:
    """Names a training job by everything that decides its result."""
    decides = [
        dataset.digest,
        features.digest,
        pipeline.transform_digest,
        dict(parameters),
        pipeline.spec.training.container,
        *(["external memory"] if external else []),
    ]
    return f"{_job_prefix(pipeline)}{digest_of(decides)[:16]}"


def _job_prefix(pipeline: Pipeline) -> str:
    """What the names of its jobs begin with; a job's name may have 63 characters."""
    name = pipeline.name.replace("_", "-")
    if len(name) > _LONGEST_PREFIX:
        name = f"{name[: _LONGEST_PREFIX - 9].rstrip('-')}-{digest_of(name)[:8]}"
    return f"{name}-"


def _job(
    pipeline: Pipeline,
    dataset: Dataset,
    features: FeatureSpec,
    channels: Channels,
    here: bool,  # noqa: FBT001 - bound by partial
    parameters: Mapping[str, str],
) -> TrainingJob:
    """The training job of these hyperparameters."""
    training = pipeline.spec.training
    external = here and 4 * dataset.rows * features.width > training.memory_mb * 1_000_000
    return TrainingJob(
        name=job_name(pipeline, dataset, features, parameters, external=external),
        container=training.container,
        hyperparameters=parameters,
        channels=channels.training,
        golden=channels.features("golden"),
        max_runtime=training.max_runtime,
        external_memory=external,
        machines=training.sagemaker,
    )


def _weights(
    spec: PipelineSpec, profile: Mapping[str, Any], features: FeatureSpec
) -> list[float] | None:
    """The weight of each class, or None where rows weigh the same."""
    if spec.training.class_weights == "none":
        return None
    levels = profile["target"]["levels"]
    return class_weights([int(levels[label]) for label in features.labels])


def _tidy(platform: Platform, pipeline: Pipeline, channels: Channels) -> None:
    """Forget training jobs and channel files that nothing needs any more."""
    registry = platform.registry
    rollout = registry.rollouts.get(pipeline.name)
    kept = {entry.model_version for entry in rollout.variants.values()}
    candidate = registry.models.candidate(pipeline.name)
    jobs = {
        model.training_job
        for model in registry.models.all(pipeline.name)
        if model.version in kept or (candidate and model.version == candidate.version)
    }
    tuning = pipeline.spec.training.tuning
    newest = KEPT_JOBS + (tuning.trials if tuning else 0)
    platform.trainer.tidy(f"{_job_prefix(pipeline)}[0-9a-f]{{16}}", jobs, newest)
    tidy(channels)


def _trial(job: TrainingJob, dataset: Dataset, result: TrainingResult) -> dict[str, Any]:
    return {
        "job": job.name,
        "dataset": dataset.digest,
        "container": job.container,
        "hyperparameters": dict(job.hyperparameters),
        "watched": result.watched,
        "watched_value": result.watched_value,
        "best_iteration": result.best_iteration,
        "rounds": [[step.index, dict(step.metrics)] for step in result.rounds],
        "seconds": result.seconds,
    }


def _package(
    platform: Platform,
    pipeline: Pipeline,
    dataset: Dataset,
    features: FeatureSpec,
    channels: Channels,
    job: TrainingJob,
    result: TrainingResult,
    run: str,
) -> ModelVersion:
    """Write the three files that a model version is, named by their digest."""
    predictions = [list(row) for row in result.golden_predictions]
    files = {
        ARCHIVE: pack(result.model.read_bytes()),
        FEATURES: canonical(features.to_json()),
        GOLDEN: canonical(golden_document(channels.golden_records, features, predictions)),
    }
    digests = {name: sha256(data) for name, data in files.items()}
    version = version_of(digests)
    prefix = f"artifacts/{pipeline.name}/{version}"
    for name, data in files.items():
        platform.lake.put(f"{prefix}/{name}", data)
    return ModelVersion(
        pipeline=pipeline.name,
        version=version,
        files=digests,
        prefix=prefix,
        container=job.container,
        dataset=dataset,
        features_digest=features.digest,
        test_set=digest_of([dataset.digest, pipeline.transform_digest]),
        training_job=job.name,
        hyperparameters=dict(job.hyperparameters),
        best_iteration=result.best_iteration,
        rounds=len(result.rounds),
        metrics={},
        created_at=platform.registry.clock(),
        run=run,
    )


def _report(
    platform: Platform,
    model: ModelVersion,
    verdict: Verdict,
    result: TrainingResult,
    evidence: Evidence,
    profile: dict[str, Any],
) -> dict[str, bytes]:
    from ml_control.services.models.report import compose

    report = compose(
        verdict=verdict,
        model=model,
        rounds=result.rounds,
        y_test=evidence.y_test,
        predictions_test=evidence.predictions_test,
        champion_predictions=evidence.champion_predictions_test,
        labels=evidence.labels,
        profile=profile,
        contributions=evidence.contributions,
    )
    platform.lake.put(f"{model.prefix}/report.html", report.html)
    return report.plots
