"""What the decision to train looks at, and what it says."""

from __future__ import annotations

from dataclasses import dataclass

from ml_control.core.training_state import TrainingState, TriggerKind


@dataclass(frozen=True)
class Measured:
    """How far something is from what the newest or the serving model knew, as measured now.

    It asks for a training once it is ``beyond`` its bound and chance, and until it is below
    ``over``: in between nothing changes, so that a value that sways about the bound asks once.
    """

    kind: TriggerKind
    subject: str  # the model that it is measured against
    value: float
    bound: float
    beyond: bool  # larger than the bound, and than what chance gives
    because: str
    over: float = 0.0
    worst: str = ""  # the feature that is farthest away


@dataclass(frozen=True)
class Observation:
    """What the platform says is true."""

    published: str | None  # digest of the dataset that training would use
    ingesting: int  # ingest runs in flight
    waiting: int  # partitions with open events or unprocessed content
    training: bool  # a training run is in flight
    backfilling: bool
    undeployed: bool  # the candidate passed its gates and nothing was done with it
    now: float
    trained: str | None = None  # digest of the newest model's dataset
    new_rows: int = 1  # published since, in partitions that the newest model knows otherwise
    first_published: float | None = None  # when the oldest published partition was
    last_published: float | None = None  # when the newest one was
    paused: bool = False  # a person stopped every automatic step
    measured: tuple[Measured, ...] = ()  # what could be measured; the rest is not known


@dataclass(frozen=True)
class Asking:
    """A trigger as it is now, for people."""

    kind: TriggerKind
    holds: bool
    because: str
    value: float | None = None
    bound: float | None = None
    since: float | None = None  # when it was seen first
    trained: bool = False  # it was trained on and waits to be over
    worst: str = ""


@dataclass(frozen=True)
class Decision:
    """Whether to train, and the reason that people are shown.

    ``state`` is what to keep: the state before, with the triggers that hold now.
    """

    train: bool
    because: str
    state: TrainingState
    attempt: int = 1
    halted: bool = False  # attempts are used up: a person is needed
    ended: bool = False  # this data was trained on and judged
    redeploy: bool = False  # the run has nothing to train, only to deploy
    triggers: tuple[Asking, ...] = ()
    not_before: float | None = None  # the earliest time that this answer can change by itself
    scheduled: float | None = None  # the next time of the schedule
    budget: int = 0  # trainings that may still be asked for within this day
