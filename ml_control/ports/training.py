"""What runs training jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from ml_control.spec import SageMakerTraining


@dataclass(frozen=True)
class TrainingJob:
    """A request to train. The name is a digest of everything that decides the result."""

    name: str
    container: str
    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Sequence[Path]]  # train, validation: label first, no header
    golden: Path  # feature rows (no label) that the training process itself predicts
    max_runtime: float = 3600.0
    external_memory: bool = False  # the training data is read from disk in every round
    machines: SageMakerTraining = field(
        default_factory=SageMakerTraining
    )  # where there is a choice
    searched: str = ""  # the platform's own name of the job of a search that trained exactly this


@dataclass(frozen=True)
class Round:
    """The metrics of one boosting round, by name (``train-auc``, ``validation-auc``)."""

    index: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training job left."""

    job: str
    model: Path  # the booster file, UBJ or JSON, cut to the chosen round
    rounds: Sequence[Round]
    best_iteration: int  # index of the last round kept
    watched: str  # name of the metric that chose it, e.g. validation-logloss
    watched_value: float  # its logged value at best_iteration
    golden_predictions: Sequence[Sequence[float]]
    seconds: float
    adopted: bool = False  # an earlier identical job's result was taken
    rounding: float = (
        0.0  # how far watched_value may be off where only its printed digits are known
    )


@dataclass(frozen=True)
class Search:
    """A search for hyperparameters that a platform may run by itself, its trials beside each other.

    ``base`` is a job whose hyperparameters hold but for those in ``ranges``; lower is better.
    """

    name: str  # a digest of the base job, the ranges and the number of trials
    base: TrainingJob
    ranges: Mapping[str, tuple[float, float]]
    integers: Collection[str]  # hyperparameters that are whole numbers
    logarithmic: Collection[str]  # those whose ratio counts
    trials: int
    seed: int
    max_runtime: float


@dataclass(frozen=True)
class Tried:
    """A trial of a platform's own search that ended: a job of the platform, and what it printed."""

    job: str
    params: Mapping[str, str]
    state: Literal["complete", "pruned", "failed"]
    rounds: Sequence[Round]
    seconds: float
    reason: str = ""


class Trainer(Protocol):
    """Runs training jobs under the container's contract."""

    def train(self, job: TrainingJob, on_round: Callable[[Round], None]) -> TrainingResult:
        """Run the job, or adopt the running or finished job of the same name.

        Raises ``PlatformFailed`` with the job's own failure text, ``InvalidSpec`` when the
        container refuses the hyperparameters, ``Retryable`` when it was ended from outside. What
        ``on_round`` raises leaves the job running.
        """
        ...

    def search(self, search: Search, on_trial: Callable[[Tried], None]) -> bool:
        """Run the search, or adopt the running or finished one of its name, as the platform does.

        ``on_trial`` is called once for each trial as it ends, in the order of the jobs' names
        among those that ended meanwhile; False when the platform has no search of its own and the
        caller searches. Raises as ``train`` does.
        """
        ...

    def end(self, name: str) -> None:
        """End the job of this name if it runs; its result is not adopted then."""
        ...

    def tidy(self, names: str, keep: Collection[str], newest: int) -> int:
        """Forget ended jobs whose whole name matches a pattern; how many.

        Kept are running jobs, those named in ``keep``, and the ``newest`` of the others.
        """
        ...
