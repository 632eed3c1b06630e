"""How a handler asks for what takes time: it yields a step and is sent the result.

So one function serves a program that waits (Lambda, the consumer) and one that does something else
meanwhile (the gateway).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ml_control.core.features import FeatureSpec
from ml_control.core.records import Rollout
from ml_control.ports import Prediction, Reply
from ml_control.serving.handlers.messages import Answer
from ml_control.spec import Log


@dataclass(frozen=True)
class Served:
    """A variant as it may be asked: its endpoint and the encoding of exactly its model.

    ``features`` is None when that model cannot be used; ``unusable`` says why.
    """

    variant: str
    endpoint: str
    model_version: str
    archive: str  # SHA-256 of the proven archive
    features: FeatureSpec | None
    unusable: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A pipeline's routing as it was a moment ago."""

    pipeline: str
    task: str
    log: Log
    rollout: Rollout
    variants: Mapping[str, Served]


@dataclass(frozen=True)
class Look:
    """Give the pipeline's ``Snapshot``. Raises ``Refusal`` (404) when there is none."""

    pipeline: str


@dataclass(frozen=True)
class Invoke:
    """Ask a variant; gives its ``Reply``. Raises ``Retryable`` when it does not answer in time."""

    served: Served
    body: bytes


@dataclass(frozen=True)
class Write:
    """Log a request; gives whether its id was new."""

    prediction: Prediction
    durable: bool


@dataclass(frozen=True)
class Do:
    """Call something that may take a while, and give what it gives."""

    call: Callable[[], Any]


Step = Look | Invoke | Write | Do
Steps = Generator[Step, Any, Answer]


class World(Protocol):
    """Does steps and waits for them."""

    def look(self, pipeline: str) -> Snapshot:
        """See ``Look``."""
        ...

    def invoke(self, served: Served, body: bytes) -> Reply:
        """See ``Invoke``."""
        ...

    def write(self, prediction: Prediction, *, durable: bool) -> bool:
        """See ``Write``."""
        ...


def run(steps: Steps, world: World) -> Answer:
    """Take a handler to its end, here and now. Raises what it raises."""
    try:
        step = next(steps)
        while True:
            try:
                result = _do(step, world)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        answer: Answer = end.value
        return answer


def _do(step: Step, world: World) -> Any:
    if isinstance(step, Invoke):
        return world.invoke(step.served, step.body)
    if isinstance(step, Look):
        return world.look(step.pipeline)
    if isinstance(step, Write):
        return world.write(step.prediction, durable=step.durable)
    return step.call()
