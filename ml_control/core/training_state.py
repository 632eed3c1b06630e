"""What asks for a pipeline's next training, and how the last one ended."""

from __future__ import annotations

from typing import Literal

from ml_control.core.records import Record

TriggerKind = Literal[
    "rows", "schedule", "call", "partition drift", "live drift", "prediction drift", "quality"
]


class Trigger(Record):
    """Something that asks for a training, until it is over. ``answering`` is the number of the
    training that began last while it held; once that was judged it is ``trained`` and asks no more.
    """

    kind: TriggerKind
    subject: str = ""  # what it is about: of the same kind with another subject is another one
    value: float = 0.0  # when it was seen first, or was last trained on
    at: float = 0.0  # when it was seen first
    answering: int = 0
    trained: bool = False


class TrainingState(Record):
    """The last training that was asked for, how it ended, and what asks for the next one."""

    pipeline: str
    dataset: str | None = None
    attempt: int = 0
    outcome: Literal["requested", "passed", "refused", "failed"] | None = None
    reason: str = ""
    at: float = 0.0  # of the outcome
    run: str | None = None  # None while it was asked for and did not begin
    number: int = 0  # trainings that began
    began: float = 0.0  # when the last one began
    asked: tuple[float, ...] = ()  # when trainings were asked for, within the last day
    triggers: tuple[Trigger, ...] = ()
