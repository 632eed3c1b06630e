"""Training on SageMaker: one job for a name, in the built-in XGBoost container.

The job outlives its caller: whoever asks for the same name next waits for it, or takes its result.
What it leaves is never used as it is; see :mod:`ml_control.aws.training.outcome`.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_control.aws.client import Clients, translated
from ml_control.aws.images import image_uri
from ml_control.aws.training import claims, outcome, output, requests
from ml_control.aws.training.files import ROOT, address, provide
from ml_control.aws.training.logs import JobLog
from ml_control.aws.training.reasons import why
from ml_control.aws.training.tuning import run_search
from ml_control.aws.training.waiting import Pace, wait
from ml_control.core.containers import container
from ml_control.core.stopping import Choice, chosen
from ml_control.errors import PlatformFailed, Retryable
from ml_control.lake import Lake
from ml_control.ports import Round, Search, TrainingJob, TrainingResult, Tried

_RUBBLE_SECONDS = 86_400.0
_LATE_LOOKS = 16  # at a finished job's log, whose last lines may come late


class SageMakerTrainer:
    """Implements :class:`ml_control.ports.Trainer` with SageMaker's training and tuning jobs."""

    def __init__(
        self, clients: Clients, lake: Lake, scratch: Path, pace: Pace | None = None
    ) -> None:
        """``scratch`` holds results on this machine; it may be emptied at any time."""
        self._clients, self._lake = clients, lake
        self._scratch = scratch.absolute()
        self._pace = pace or Pace()

    def train(self, job: TrainingJob, on_round: Callable[[Round], None]) -> TrainingResult:
        """Run the job, or adopt the running or finished job of the same name.

        ``on_round`` is called once for each boosting round in order, also for an adopted job.
        Raises ``InvalidSpec`` when the container refuses the hyperparameters or the name is not
        usable, ``PlatformFailed`` with the job's failure reason and the end of its log, or when it
        ran longer than ``max_runtime`` seconds, ``Retryable`` when it was stopped, found no
        capacity, or AWS cannot be asked, ``Conflict`` when the name belongs to a job with other
        settings.
        """
        what = f"training job {job.name}"
        claims.check_name(job.name, "training job")
        request = requests.request_digest(job)
        result = outcome.kept(self._scratch, job, request)
        if result is not None:
            for step in result.rounds:
                on_round(step)
            return replace(result, adopted=True)
        kind = TrainingKind(self._clients, self._lake, job, request)
        found = self._of_search(kind, job)
        found = found or claims.claim(kind, job.name, kind.mark, what)
        log = JobLog(self._clients, found.name)
        told = self._ended(kind, found.name, log, on_round, what)
        if kind.status(told) != "Completed":
            raise why(what, told, log.tail())
        result = self._result(job, request, found.name, told, log, on_round)
        return replace(result, adopted=found.adopted)

    def search(self, search: Search, on_trial: Callable[[Tried], None]) -> bool:
        """Run the search as one tuning job, or adopt that of its name; see the port."""
        claims.check_name(search.name, "search")
        base = search.base
        kind = TrainingKind(self._clients, self._lake, base, requests.request_digest(base))
        run_search(self._clients, search, kind.definition, on_trial, self._pace)
        return True

    def end(self, name: str) -> None:
        """Stop the job of this name if it runs; waiters get ``Retryable``."""
        if claims.is_name(name):
            kind = TrainingKind(self._clients, self._lake, None, "")
            running = claims.current(kind, name, claims.owner(self._clients))
            if running is not None:
                self._stop(running)

    def tidy(self, names: str, keep: Collection[str], newest: int) -> int:
        """Remove results from the scratch folder, but those to keep and the newest; how many.

        SageMaker keeps its jobs, so each can be had again from the bucket.
        """
        found = []
        for folder in self._scratch.glob("*/"):
            if re.fullmatch(names, folder.name) and folder.name not in keep:
                with suppress(FileNotFoundError):
                    found.append((folder.stat().st_mtime, folder))
        gone = [folder for _, folder in sorted(found, reverse=True)[newest:]]
        old = time.time() - _RUBBLE_SECONDS
        for folder in self._scratch.glob(".*/"):  # of a process that was killed
            with suppress(FileNotFoundError):
                if folder.stat().st_mtime < old:
                    shutil.rmtree(folder, ignore_errors=True)
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
        return len(gone)

    def _stop(self, name: str) -> None:
        try:
            with translated(f"training job {name}"):
                self._clients.client("sagemaker").stop_training_job(TrainingJobName=name)
        except PlatformFailed as error:
            # It ended meanwhile: then there is nothing to stop.
            if error.detail.get("code") not in ("ValidationException", "ResourceNotFound"):
                raise

    def _of_search(self, kind: TrainingKind, job: TrainingJob) -> claims.Claim | None:
        """The trial that trained exactly this already, if SageMaker still has it."""
        if not job.searched:
            return None
        told = kind.describe(job.searched)
        if told is None or kind.status(told) != "Completed":
            return None
        if kind.environment(told).get(claims.OWNER) != kind.mark.owner:
            return None
        had = told.get("HyperParameters") or {}
        same = all(_equal(had.get(k), v) for k, v in requests.hyperparameters(job).items())
        return claims.Claim(job.searched, adopted=True) if same else None

    def _ended(
        self,
        kind: TrainingKind,
        name: str,
        log: JobLog,
        on_round: Callable[[Round], None],
        what: str,
    ) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            told = kind.describe(name)  # before the log: what was printed until then is read below
            log.read()
            return told

        return wait(look, kind.status, lambda: log.tell(on_round), what, self._pace)

    def _result(
        self,
        job: TrainingJob,
        request: str,
        name: str,
        told: dict[str, Any],
        log: JobLog,
        on_round: Callable[[Round], None],
    ) -> TrainingResult:
        what = f"training job {job.name}"
        data = output.archive(self._clients, told, what)
        raw = outcome.inspected(data, container(job.container), what)
        rounds, choice = self._printed(job, name, raw, log, on_round)
        seconds = float(told.get("TrainingTimeInSeconds") or 0.0) or _between(told)
        return outcome.make(self._scratch, job, request, raw, rounds, choice, seconds)

    def _printed(
        self,
        job: TrainingJob,
        name: str,
        raw: outcome.Raw,
        log: JobLog,
        on_round: Callable[[Round], None],
    ) -> tuple[tuple[Round, ...], Choice]:
        """Everything that a completed job printed, and the round that this chooses."""
        pauses = self._pace.pauses()
        for look in range(_LATE_LOOKS):
            if choice := _choice(job, raw, log.rounds):
                output.keep_rounds(self._lake, name, log.rounds)
                return log.rounds, choice
            if look == 0:
                rounds = output.kept_rounds(self._lake, name)
                if choice := _choice(job, raw, rounds):
                    for step in rounds[log.told :]:
                        on_round(step)
                    return rounds, choice
            self._pace.sleep(next(pauses))
            log.read()
            log.tell(on_round)
        raise Retryable(
            f"training job {job.name}",
            f"it completed, but its log shows only {len(log.rounds)} rounds: {log.tail(3)}",
            "train again when CloudWatch has its log; the finished job is adopted",
        )


class TrainingKind:
    """Training jobs, as :mod:`claims` sees them."""

    longest = 63

    def __init__(self, clients: Clients, lake: Lake, job: TrainingJob | None, request: str) -> None:
        self._clients, self._lake, self._job = clients, lake, job
        self._api = clients.client("sagemaker")
        self.mark = claims.Mark(claims.owner(clients), request)

    def describe(self, name: str) -> dict[str, Any] | None:
        """DescribeTrainingJob."""
        what = f"training job {name}"
        return claims.absent_as_none(self._api.describe_training_job, what, TrainingJobName=name)

    def status(self, told: dict[str, Any]) -> str:
        """The job's status."""
        return str(told.get("TrainingJobStatus"))

    def environment(self, told: dict[str, Any]) -> dict[str, str]:
        """What it was created with."""
        return dict(told.get("Environment") or {})

    def create(self, name: str) -> bool:
        """CreateTrainingJob, its files being in the bucket by then."""
        job = self._job
        if job is None:
            raise Retryable(name, "is not to be created", "ask for a job")
        return claims.unless_taken(
            self._api.create_training_job,
            f"training job {job.name}",
            "correct what SageMaker refuses under training, then train again",
            TrainingJobName=name,
            HyperParameters=requests.hyperparameters(job),
            Environment=self.mark.environment,
            Tags=requests.tags(
                self._clients.settings,
                **{"ml-control-job": job.name, "ml-control-request": self.mark.request[:32]},
            ),
            **self.definition(),
        )

    def definition(self) -> dict[str, Any]:
        """What training jobs and the trials of a search have in common; uploads the channels."""
        job = self._job
        if job is None:
            raise Retryable("training job", "is not to be created", "ask for a job")
        settings = self._clients.settings
        hosts = requests.shares(job.machines)
        manifests = {
            name: provide(self._lake, settings, files, hosts if name == "train" else 1)
            for name, files in job.channels.items()
        }
        return requests.training(
            settings,
            job,
            image=image_uri(job.container, self._clients.region),
            manifests=manifests,
            output=address(settings, f"{ROOT}/output"),
        )


def _choice(job: TrainingJob, raw: outcome.Raw, rounds: tuple[Round, ...]) -> Choice | None:
    """The round to keep, once everything that the job printed is there."""
    if not rounds:
        return None
    watched = list(rounds[-1].metrics)[-1]
    patience = job.hyperparameters.get("early_stopping_rounds")
    choice = chosen(
        [step.metrics[watched] for step in rounds if watched in step.metrics],
        watched.partition("-")[2],
        int(job.hyperparameters["num_round"]),
        int(patience) if patience else None,
        unprinted=1 if container(job.container).version < (2, 0, 0) else 0,
    )
    own, kept = raw.booster.best_iteration, raw.booster.rounds
    short = max((own or 0) + 1, kept or 0) > len(rounds)
    return choice if choice.ended and not short else None


def _equal(had: str | None, wanted: str) -> bool:
    if had is None or had == wanted:
        return had is not None
    try:
        return float(had) == float(wanted)
    except ValueError:
        return False


def _between(told: dict[str, Any]) -> float:
    start, end = told.get("TrainingStartTime"), told.get("TrainingEndTime")
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0
