"""The consumer of a pipeline's stream: predicted, logged under each record's own id, then settled.

    read -> predict once per variant -> log (on disk) -> settle

A crash at any point leaves the records unsettled: they come again, the log knows the results that
were written, and nothing is written twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ml_control.core.pipeline import Pipeline
from ml_control.errors import Conflict, MlControlError, PlatformFailed, Retryable, Unknown
from ml_control.platform import Platform
from ml_control.ports import Prediction, Reply
from ml_control.services.alerts import clear_alerts, raise_alert
from ml_control.services.releases.snapshots import Snapshots
from ml_control.serving.columns import COLUMNS
from ml_control.serving.handlers.records import Batch, answer_records, reason_of
from ml_control.serving.handlers.row_codec import RECORDIO
from ml_control.serving.handlers.steps import Served

LIMIT = 500
ALERT, HALTED = "stream-parked", "stream-halted"
_PATIENCE = 5.0  # seconds that a batch waits for another consumer's
IDLE_SECONDS = 0.2
_LONGEST_WAIT = 30.0
_logger = logging.getLogger("ml_control")


@dataclass(frozen=True)
class Consumed:
    """What became of a batch: how many records each."""

    read: int = 0
    done: int = 0
    failed: int = 0
    parked: int = 0

    @property
    def settled(self) -> int:
        """Records that never come again by themselves."""
        return self.done + self.parked


def consume_once(
    platform: Platform, pipeline: Pipeline, limit: int = LIMIT, snapshots: Snapshots | None = None
) -> int:
    """Consume a batch; gives how many records were settled. See :func:`consume_batch`."""
    return consume_batch(platform, pipeline, limit, snapshots).settled


def consume_batch(
    platform: Platform, pipeline: Pipeline, limit: int = LIMIT, snapshots: Snapshots | None = None
) -> Consumed:
    """Consume up to ``limit`` records that wait.

    Raises, with everything still waiting: ``Conflict`` while another process consumes,
    ``NotProven`` when no model is live, ``Retryable`` when no variant answers or the log cannot be
    written, ``Unknown`` when records may have been lost, which people are told.
    """
    name, stream = pipeline.name, platform.stream
    try:
        if not stream.read(name, 1):
            return Consumed()  # to take turns costs writes on some platforms, many a second
    except Unknown as error:
        raise_alert(platform, name, HALTED, "stream", error.reason, error.next)
        raise
    with stream.exclusive(name, _PATIENCE):
        records = stream.read(name, limit)
        if not records:
            return Consumed()
        snapshot = (snapshots or Snapshots(platform)).read(pipeline)
        batch = answer_records(
            records, snapshot, asking(platform), COLUMNS, platform.registry.clock
        )
        _write(platform, batch)
        # A record that was answered under another's id is not done, whatever the log holds.
        try:
            parked = stream.settle(name, batch.done, batch.failed, batch.poison)
        except Retryable:
            _tell_what_lies_there(platform, name, batch)
            raise
    if parked:
        _tell(platform, name, len(parked), next(iter({**batch.failed, **batch.poison}.values())))
    failed = len(batch.failed.keys() - set(parked)) if batch.failed else 0
    return Consumed(len(records), len(batch.done), failed, len(parked))


def asking(platform: Platform) -> Callable[[Served, bytes], Reply]:
    """Asks a variant for rows as RecordIO, if it serves exactly the proven archive."""

    def ask(served: Served, body: bytes) -> Reply:
        return platform.endpoints.invoke(
            served.endpoint, body, RECORDIO, "text/csv", archive=served.archive
        )

    return ask


def _write(platform: Platform, batch: Batch) -> None:
    """Log the results, on disk at the end. What the log knew already must be the same request."""
    if not batch.predictions:
        return
    fresh = platform.log.append(batch.predictions, durable=True)
    if all(fresh):
        return
    seen: dict[str, Prediction] = {}
    for sequence, prediction, new in zip(list(batch.done), batch.predictions, fresh, strict=True):
        if not new:
            id = prediction.request_id
            logged = seen.get(id) or platform.log.find(prediction.pipeline, id)
            if logged is not None and not _same(logged, prediction):
                error = Conflict(
                    f"request {id}", "was answered before, with other content", "use a new one"
                )
                batch.done.remove(sequence)
                batch.poison[sequence] = reason_of(error)
        else:
            seen[prediction.request_id] = prediction


def _same(logged: Prediction, prediction: Prediction) -> bool:
    """Whether both are answers to the same record, as far as was kept of it."""
    if (logged.entity_id, logged.rows) != (prediction.entity_id, prediction.rows):
        return False
    return None in (logged.records, prediction.records) or logged.records == prediction.records


def _tell_what_lies_there(platform: Platform, pipeline: str, batch: Batch) -> None:
    """Tell of parked records when nobody knows whether these were: they do not come again."""
    bad = {**batch.failed, **batch.poison}
    if bad and (count := platform.stream.state(pipeline).parked):
        _tell(platform, pipeline, count, next(iter(bad.values())))


def _tell(platform: Platform, pipeline: str, count: int, example: str) -> None:
    raise_alert(
        platform,
        pipeline,
        ALERT,
        "stream",
        f"{count} records were parked, e.g. {example}",
        f"see 'ml-control stream status {pipeline}', then 'ml-control stream replay {pipeline}'",
    )


def replay(platform: Platform, pipeline: str) -> int:
    """Make parked records wait again; gives how many. Their alert is cleared, and a halt ends."""
    again = platform.stream.replay(pipeline)
    clear_alerts(platform, pipeline, ALERT)
    clear_alerts(platform, pipeline, HALTED)
    return again


class Consumer:
    """Consumes the streams of several pipelines until it is told to stop.

    What keeps one pipeline's stream from being consumed is said once and tried again, each time
    later, up to half a minute; the others go on meanwhile.
    """

    def __init__(
        self,
        platform: Platform,
        pipelines: Callable[[], Iterable[Pipeline]],
        say: Callable[[str], None] = _logger.warning,
    ) -> None:
        """``pipelines`` are asked for in every round, so that new ones are consumed too."""
        self._platform = platform
        self._pipelines = pipelines
        self._say = say
        self._snapshots = Snapshots(platform)
        self._waits: dict[str, tuple[float, float]] = {}  # pipeline -> (until, how long)
        self._said: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop`` is set; a batch that has begun is finished."""
        while not stop.is_set():
            if not self.round():
                stop.wait(IDLE_SECONDS)

    def round(self) -> int:
        """Consume a batch of each pipeline; gives how many records were settled."""
        return sum(self.step(pipeline) for pipeline in self._pipelines())

    def step(self, pipeline: Pipeline) -> int:
        """Consume a batch of a pipeline unless it has to wait; gives how many were settled."""
        name, now = pipeline.name, time.monotonic()
        until, wait = self._waits.get(name, (0.0, 0.0))
        if now < until:
            return 0
        try:
            settled = consume_once(self._platform, pipeline, snapshots=self._snapshots)
        except Exception as error:
            if not isinstance(error, MlControlError):
                _logger.exception("the stream of %s could not be consumed", name)
                error = PlatformFailed(f"stream of {name}", f"{type(error).__name__}: {error}")
            wait = min(max(2 * wait, IDLE_SECONDS), _LONGEST_WAIT)
            self._waits[name] = (time.monotonic() + wait, wait)
            if self._said.get(name) != str(error):
                self._said[name] = str(error)
                self._say(f"stream of {name}: {error}")
            return 0
        self._waits.pop(name, None)
        if self._said.pop(name, None):
            self._say(f"stream of {name}: consumed again")
        return settled
