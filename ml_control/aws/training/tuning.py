"""A search as one tuning job of SageMaker: its trials, in order, as they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_control.aws.client import Clients, translated
from ml_control.aws.training import claims, requests
from ml_control.aws.training.logs import JobLog
from ml_control.aws.training.reasons import why
from ml_control.aws.training.waiting import Pace, wait
from ml_control.errors import MlControlError, PlatformFailed, Retryable
from ml_control.ports import Search, Tried

_ENDED = {"Completed": "complete", "Stopped": "pruned", "Failed": "failed"}
_LATE_LOOKS = 12
_LONGEST_REASON = 500


def run_search(
    clients: Clients,
    search: Search,
    definition: Callable[[], dict[str, Any]],
    on_trial: Callable[[Tried], None],
    pace: Pace,
) -> None:
    """Start the tuning job, or adopt it; tell every trial that ended, once.

    ``definition`` makes what the trials have in common, when a job is to be created. A tuning job
    that failed or was stopped still has told its trials; ``PlatformFailed``, or what its first
    failed trial says, when none of them was completed.
    """
    what = f"search {search.name}"
    kind = _Tuning(clients, search, definition)
    found = claims.claim(kind, search.name, kind.mark, what)
    trials = _Trials(clients, found.name, search, on_trial, pace)

    def look() -> dict[str, Any] | None:
        told = kind.describe(found.name)
        trials.look()
        return told

    told = wait(look, kind.status, trials.tell, what, pace)
    trials.look()
    trials.tell()
    if kind.status(told) != "Completed" and not trials.completed:
        raise trials.error or PlatformFailed(
            what,
            f"the tuning job {found.name} ended as {kind.status(told)}: "
            f"{told.get('FailureReason') or 'AWS gives no reason'}",
            "correct it, then train again",
        )


class _Tuning:
    """Tuning jobs, as :mod:`claims` sees them."""

    longest = 32

    def __init__(
        self, clients: Clients, search: Search, definition: Callable[[], dict[str, Any]]
    ) -> None:
        self._api, self._settings = clients.client("sagemaker"), clients.settings
        self._search, self._definition = search, definition
        self.mark = claims.Mark(claims.owner(clients), requests.search_digest(search))

    def describe(self, name: str) -> dict[str, Any] | None:
        return claims.absent_as_none(
            self._api.describe_hyper_parameter_tuning_job,
            f"tuning job {name}",
            HyperParameterTuningJobName=name,
        )

    def status(self, told: dict[str, Any]) -> str:
        return str(told.get("HyperParameterTuningJobStatus"))

    def environment(self, told: dict[str, Any]) -> dict[str, str]:
        return dict((told.get("TrainingJobDefinition") or {}).get("Environment") or {})

    def create(self, name: str) -> bool:
        metric = self._search.base.hyperparameters["eval_metric"].split(",")[-1].strip()
        common = {**self._definition(), "Environment": self.mark.environment}
        return claims.unless_taken(
            self._api.create_hyper_parameter_tuning_job,
            f"search {self._search.name}",
            "correct what SageMaker refuses under training.tuning, then train again",
            HyperParameterTuningJobName=name,
            Tags=requests.tags(self._settings, **{"ml-control-job": self._search.name}),
            **requests.tuning(self._search, common, metric),
        )


class _Trials:
    """The training jobs of one tuning job."""

    def __init__(
        self,
        clients: Clients,
        tuning: str,
        search: Search,
        on_trial: Callable[[Tried], None],
        pace: Pace,
    ) -> None:
        self._clients, self._api = clients, clients.client("sagemaker")
        self._tuning, self._search = tuning, search
        self._on_trial, self._pace = on_trial, pace
        self._known: set[str] = set()
        self._untold: list[Tried] = []
        self.completed = 0
        self.error: MlControlError | None = None

    def look(self) -> None:
        """Read the trials that ended since. Raises our errors; nothing is passed over then."""
        ended = []
        with translated(f"tuning job {self._tuning}"):
            pages = self._api.get_paginator(
                "list_training_jobs_for_hyper_parameter_tuning_job"
            ).paginate(HyperParameterTuningJobName=self._tuning)
            for page in pages:
                ended += [
                    one
                    for one in page["TrainingJobSummaries"]
                    if one["TrainingJobStatus"] in _ENDED
                    and one["TrainingJobName"] not in self._known
                ]
        for one in sorted(ended, key=lambda one: str(one["TrainingJobName"])):
            trial = self._read(one)
            self._known.add(one["TrainingJobName"])
            if trial is not None:
                self._untold.append(trial)

    def tell(self) -> None:
        """Tell what was read and not told yet."""
        while self._untold:
            trial = self._untold.pop(0)
            self.completed += trial.state == "complete"
            self._on_trial(trial)

    def _read(self, one: dict[str, Any]) -> Tried | None:
        """The trial; None for one that lacked capacity or the like, which says nothing of it."""
        name, status = str(one["TrainingJobName"]), str(one["TrainingJobStatus"])
        params = {k: str(v) for k, v in one["TunedHyperParameters"].items()}
        log = JobLog(self._clients, name)
        log.read()
        for _, pause in zip(range(_LATE_LOOKS), self._pace.pauses(), strict=False):
            if log.rounds or status == "Failed":
                break
            self._pace.sleep(pause)  # the last lines of a log may come late
            log.read()
        reason, state = "", _ENDED[status]
        if status != "Completed":
            error = self._why(name, log)
            if status == "Failed":
                self.error = self.error or error
                if isinstance(error, Retryable):
                    return None
            reason = error.reason[:_LONGEST_REASON]
            if status == "Stopped" and "MaxRuntimeExceeded" in reason:
                state = "failed"
            elif status == "Stopped":
                reason = f"SageMaker stopped it early after {len(log.rounds)} rounds"
        return Tried(
            job=name,
            params={key: params[key] for key in self._search.ranges if key in params},
            state=state,  # type: ignore[arg-type]
            rounds=log.rounds,
            seconds=_seconds(one),
            reason=reason,
        )

    def _why(self, name: str, log: JobLog) -> MlControlError:
        told = claims.absent_as_none(
            self._api.describe_training_job, f"training job {name}", TrainingJobName=name
        )
        return why(f"training job {name}", told or {}, log.tail(5))


def _seconds(one: dict[str, Any]) -> float:
    start, end = one.get("TrainingStartTime"), one.get("TrainingEndTime")
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0
