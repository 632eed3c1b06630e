"""The deploy-plan compiler: what a pipeline file becomes on a platform, and what is wrong there.

Works offline. An *error* is what AWS refuses, or takes and silently does not do; a *warning* is
what works and is probably not meant. Each names the field, the reason and what to write instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from ml_control.core.containers import CONTAINERS
from ml_control.core.hosting import (
    CONCURRENCY,
    LONGEST_BAKE,
    MEMORY_MB,
    Hosting,
    has_gpu,
    hosting_of,
    start_seconds,
)
from ml_control.errors import InvalidSpec
from ml_control.spec import AutoRollback, Endpoint, Instances, PipelineSpec, Serverless

PlatformName = Literal["local", "aws"]
ALARMS_AT_MOST = 10
TRIALS_AT_MOST = 750  # trainings of one tuning job
LONGEST_JOB = 28 * 86400.0
LONGEST_SEARCH = 15_768_000.0
SHARD_BYTES = 256 << 20  # a training channel goes on in another file after so much
USUAL_ROWS = 500  # callers send so many at once and expect an answer
_SHARE = 100  # capture and canary are whole percentages


@dataclass(frozen=True)
class Finding:
    """One thing about a field. ``instead`` is what to write."""

    level: Literal["error", "warning"]
    field: str
    reason: str
    instead: str

    def to_json(self) -> dict[str, str]:
        """Plain data."""
        return {
            "level": self.level,
            "field": self.field,
            "reason": self.reason,
            "instead": self.instead,
        }


@dataclass(frozen=True)
class DeployPlan:
    """What a pipeline becomes on a platform."""

    pipeline: str
    platform: PlatformName
    serves: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Why it cannot be deployed as it is written."""
        return tuple(one for one in self.findings if one.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is probably not meant."""
        return tuple(one for one in self.findings if one.level == "warning")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "platform": self.platform,
            "serves": self.serves,
            "findings": [one.to_json() for one in self.findings],
        }


def compile_plan(spec: PipelineSpec, platform: PlatformName, today: date) -> DeployPlan:
    """The plan of a pipeline file, with everything that is wrong about it, errors first."""
    if platform == "local":
        told = {
            "endpoint": "a process on this machine",
            "start_seconds": start_seconds("local", None),
        }
        return DeployPlan(spec.name, platform, told, tuple(_on_one_machine(spec, today)))
    findings = [
        *endpoint_findings(spec.endpoint),
        *_payload(spec, hosting_of(spec.endpoint)),
        *_container(spec, today),
        *_machines(spec),
        *_times(spec),
        *_alarms(spec),
    ]
    findings.sort(key=lambda one: one.level != "error")
    return DeployPlan(spec.name, platform, _told(spec.endpoint), tuple(findings))


def require_deployable(name: str, shape: Endpoint | None) -> Hosting:
    """The terms of an ``endpoint`` section. Raises ``InvalidSpec`` for what SageMaker refuses."""
    for one in endpoint_findings(shape or Endpoint()):
        if one.level == "error":
            raise InvalidSpec(f"endpoint {name} {one.field}", one.reason, one.instead)
    return hosting_of(shape)


def refusal_of(plan: DeployPlan, where: str) -> InvalidSpec | None:
    """The plan's errors as one refusal, the first in full; None without any."""
    if not plan.errors:
        return None
    first, *more = plan.errors
    also = f"; {len(more)} more in this file" if more else ""
    return InvalidSpec(
        f"{where} {first.field}",
        f"{first.reason}{also}",
        first.instead,
        findings=[one.to_json() for one in plan.errors],
    )


def endpoint_findings(endpoint: Endpoint) -> Iterator[Finding]:
    """What SageMaker refuses or does not do of an ``endpoint`` section."""
    hosting = endpoint.hosting
    if isinstance(hosting, Serverless):
        yield from _serverless(hosting)
    else:
        yield from _instances(hosting)


def _serverless(hosting: Serverless) -> Iterator[Finding]:
    at = "endpoint.serverless"
    if hosting.memory_mb not in MEMORY_MB:
        above = [size for size in MEMORY_MB if size >= hosting.memory_mb]
        instead = (
            f"write {above[0]}"
            if above
            else f"write {MEMORY_MB[-1]}, or name endpoint.instances of that memory"
        )
        yield _error(
            f"{at}.memory_mb",
            f"{hosting.memory_mb} is not 1024 to 6144 in steps of 1024",
            instead,
        )
    if hosting.max_concurrency not in CONCURRENCY:
        yield _error(
            f"{at}.max_concurrency",
            f"{hosting.max_concurrency} is not 1 to 200",
            "write 1 to 200; for more requests at once name endpoint.instances",
        )


def _instances(hosting: Instances) -> Iterator[Finding]:
    at = "endpoint.instances"
    if not _whole(hosting.capture):
        yield _error(
            f"{at}.capture",
            f"SageMaker captures whole percentages: {hosting.capture:g} would become "
            f"{round(_SHARE * hosting.capture) / _SHARE:g}",
            "write a multiple of 0.01; log.capture of the prediction log takes any share",
        )
    if has_gpu(hosting.type):
        yield _warning(
            f"{at}.type",
            f"the container predicts on the CPU: the GPUs of {hosting.type} stay idle",
            "name a CPU type, such as ml.m5.large",
        )
    if hosting.rollback is not None:
        yield from _rollback(hosting, hosting.rollback, f"{at}.rollback")


def _rollback(hosting: Instances, rollback: AutoRollback, at: str) -> Iterator[Finding]:
    alarms = rollback.alarms
    if not alarms:
        yield _error(
            f"{at}.alarms",
            "without an alarm SageMaker takes nothing back, and does not say so",
            "name 1 to 10 CloudWatch alarms, or leave rollback out",
        )
    elif len(alarms) > ALARMS_AT_MOST:
        yield _error(
            f"{at}.alarms",
            f"{len(alarms)} alarms: SageMaker takes at most {ALARMS_AT_MOST}",
            "combine them into composite alarms",
        )
    if len(set(alarms)) < len(alarms) or any(not name.strip() for name in alarms):
        yield _error(f"{at}.alarms", "an alarm is named twice or is empty", "name each once")
    if rollback.bake > LONGEST_BAKE:
        yield _error(
            f"{at}.bake",
            f"{rollback.bake:g} s: SageMaker watches at most an hour",
            "write '1 h'; rollout.canary.bake, which ml-control watches itself, may be longer",
        )
    if not rollback.canary:
        return
    if hosting.count == 1:
        yield _error(
            f"{at}.canary",
            "one instance cannot be divided: SageMaker would move all traffic at once",
            "write count: 2 or more, or use rollout.strategy canary, which divides requests",
        )
    elif rollback.canary > 0.5:
        yield _error(
            f"{at}.canary",
            f"{rollback.canary:g}: SageMaker takes at most half of the instances as a canary",
            "write 0.5 or less",
        )
    elif not _whole(rollback.canary):
        yield _error(
            f"{at}.canary",
            f"SageMaker takes whole percentages: {rollback.canary:g} is none",
            "write a multiple of 0.01",
        )


def _payload(spec: PipelineSpec, hosting: Hosting) -> Iterator[Finding]:
    limit, megabytes = hosting.request_bytes, hosting.request_bytes >> 20
    width = _width(spec)
    at = "source.image" if spec.source.format == "images" else "columns.features"
    if 2 * width > limit:  # a digit and a comma
        yield _error(
            at,
            f"one row has {width:,} numbers: even as single digits they are more than the "
            f"{megabytes} MB that the endpoint takes in a request",
            "make the images smaller" if at == "source.image" else "use fewer features",
        )
    elif 4 * width * USUAL_ROWS > limit:
        fit = max(1, limit // (4 * width))
        yield _warning(
            at,
            f"a row has {width:,} numbers: a request holds about {fit} rows, and larger ones are "
            f"refused ({megabytes} MB, 60 s)",
            "ask for fewer records at once"
            + ("; endpoint.instances takes 6 MB" if megabytes == 4 else ""),
        )


def _width(spec: PipelineSpec) -> int:
    """At least so many numbers make a row."""
    if spec.source.format != "images":
        return len(spec.columns.features)
    image = spec.source.image
    return image.width * image.height * (3 if image.mode == "colour" else 1)


def _container(spec: PipelineSpec, today: date) -> Iterator[Finding]:
    tag = spec.training.container
    known = CONTAINERS.get(tag)
    at = "training.container"
    if known is None:
        yield _error(
            at, f"SageMaker has no XGBoost container {tag!r}", f"use one of {', '.join(CONTAINERS)}"
        )
    elif known.end_of_patch is not None and known.end_of_patch < today:
        patched = [
            one.tag for one in CONTAINERS.values() if (one.end_of_patch or date.min) >= today
        ]
        newer = f"use {patched[-1]}" if patched else "see AWS for a newer container"
        yield _warning(
            at,
            f"AWS patches container {tag} no more since {known.end_of_patch}",
            f"{newer}; the model is trained anew for it",
        )


def _machines(spec: PipelineSpec) -> Iterator[Finding]:
    machines, at = spec.training.sagemaker, "training.sagemaker"
    gpus = has_gpu(machines.instance_type)
    if machines.gpu and not gpus:
        yield _error(
            f"{at}.gpu",
            f"{machines.instance_type} has no GPU: the training job would fail",
            "name a GPU type, such as ml.g4dn.xlarge, or write gpu: false",
        )
    elif gpus and not machines.gpu:
        yield _warning(
            f"{at}.instance_type",
            f"the GPUs of {machines.instance_type} would be paid for and stay idle",
            "write gpu: true, or name a CPU type, such as ml.m5.xlarge",
        )
    if machines.instance_count > 1:
        yield _warning(
            f"{at}.instance_count",
            f"each of the {machines.instance_count} instances trains on files of its own (a file "
            f"has {SHARD_BYTES >> 20} MB), and one without leaves the training and is paid for",
            "write 1 unless the training rows are more than "
            f"{machines.instance_count * SHARD_BYTES >> 20} MB as CSV",
        )


def _times(spec: PipelineSpec) -> Iterator[Finding]:
    training, machines = spec.training, spec.training.sagemaker
    if training.max_runtime > LONGEST_JOB:
        yield _error(
            "training.max_runtime",
            "SageMaker ends a job after 28 days at the latest",
            "write '28 d' or less",
        )
    if machines.spot and machines.max_wait < training.max_runtime:
        yield _error(
            "training.sagemaker.max_wait",
            f"{machines.max_wait:g} s is less than training.max_runtime "
            f"({training.max_runtime:g} s), which it includes: SageMaker refuses the job",
            f"write {training.max_runtime:g} s or more",
        )
    elif not machines.spot and "max_wait" in machines.model_fields_set:
        yield _warning(
            "training.sagemaker.max_wait", "it is for spot capacity only", "write spot: true"
        )
    tuning = training.tuning
    if tuning is not None and tuning.trials > TRIALS_AT_MOST:
        yield _error(
            "training.tuning.trials",
            f"{tuning.trials}: a tuning job trains at most {TRIALS_AT_MOST} times",
            f"write {TRIALS_AT_MOST} or less",
        )
    if tuning is not None and not 120 <= tuning.max_runtime <= LONGEST_SEARCH:
        yield _error(
            "training.tuning.max_runtime",
            f"{tuning.max_runtime:g} s: SageMaker takes 2 minutes to 182 days",
            "write a duration in that range",
        )


def _alarms(spec: PipelineSpec) -> Iterator[Finding]:
    guardrails = spec.rollout.guardrails
    if any(not name.strip() for name in guardrails.alarms):
        yield _error("rollout.guardrails.alarms", "an alarm's name is empty", "leave it out")


def _on_one_machine(spec: PipelineSpec, today: date) -> Iterator[Finding]:
    """What a file says in vain here, and what it would run into on AWS where it speaks of AWS."""
    if spec.rollout.guardrails.alarms:
        yield _warning(
            "rollout.guardrails.alarms",
            "CloudWatch alarms are not read on platform local",
            "use rollout.guardrails.error_rate and latency_p99 here",
        )
    if not speaks_of_aws(spec):
        return
    for one in compile_plan(spec, "aws", today).errors:
        yield _warning(one.field, f"on AWS: {one.reason}", one.instead)


def speaks_of_aws(spec: PipelineSpec) -> bool:
    """Whether the file sets what only AWS heeds."""
    return "endpoint" in spec.model_fields_set or "sagemaker" in spec.training.model_fields_set


def _told(endpoint: Endpoint) -> dict[str, Any]:
    hosting = hosting_of(endpoint)
    told: dict[str, Any] = {
        "endpoint": "serverless" if "ServerlessConfig" in hosting.variant else "instances",
        "variant": hosting.variant,
        "request_bytes": hosting.request_bytes,
        "start_seconds": hosting.start_seconds,
    }
    if hosting.capture:
        told["capture_percent"] = hosting.capture
    if hosting.deployment:
        told["deployment"] = hosting.deployment
    return told


def _whole(share: float) -> bool:
    return abs(_SHARE * share - round(_SHARE * share)) < 1e-9


def _error(field: str, reason: str, instead: str) -> Finding:
    return Finding("error", field, reason, instead)


def _warning(field: str, reason: str, instead: str) -> Finding:
    return Finding("warning", field, reason, instead)
