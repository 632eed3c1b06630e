"""What waits in each partition, in sum, so that a tick need not read the events themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ml_control.core.coalescing import Waiting
from ml_control.core.records import Event
from ml_control.errors import Conflict
from ml_control.ports import Item, Put, Table, Tables

_TABLE: Table = "control-ledger"
_OPEN = ("pending", "claimed")
_FORGOTTEN_SECONDS = 3600.0  # a writer that announced so long ago is dead; its events count anyway


class Marks:
    """One sum a partition, kept beside the events.

    Events are the truth and a mark is only a hint where to look, so it errs on one side: a writer
    announces itself in the mark before it writes events and takes its token away after. Wherever
    it dies, the mark stays open and says that its sums must be made anew.
    """

    def __init__(self, tables: Tables, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._clock = clock

    def announce(
        self, pipeline: str, partitions: Iterable[str], token: str, also: Iterable[Put] = ()
    ) -> dict[str, tuple[Waiting, int]]:
        """Open the marks of partitions that will get events; gives each with its item version.

        ``also`` is written in the same go.
        """
        left, found, extra = list(partitions), {}, list(also)
        while left or extra:
            marks: list[tuple[Waiting, int]] = []
            for partition in left:
                mark, version = self._get(pipeline, partition)
                writers = {**mark.writers, token: self._clock()}
                marks.append((mark.model_copy(update={"writers": writers}), version))
            puts = [_put(pipeline, mark, version) for mark, version in marks]
            done = self._tables.write_each([*extra, *puts])[len(extra) :]
            for (mark, version), kept in zip(marks, done, strict=True):
                if kept:
                    found[mark.partition] = (mark, version + 1)
            left, extra = [p for p in left if p not in found], []
        return found

    def account(
        self,
        pipeline: str,
        token: str,
        announced: dict[str, tuple[Waiting, int]],
        written: Iterable[Event],
    ) -> None:
        """Add events that are written now, and take the token away."""
        sums = {
            partition: mark.model_copy(
                update={"writers": {k: v for k, v in mark.writers.items() if k != token}}
            )
            for partition, (mark, _) in announced.items()
        }
        for event in written:
            sums[event.partition] = sums[event.partition].joined(event.recorded_at, event.seq)
        puts = [_put(pipeline, mark, announced[key][1]) for key, mark in sums.items()]
        for key, kept in zip(sums, self._tables.write_each(puts), strict=True):
            if not kept:  # someone else changed it meanwhile: the events decide
                self.refresh(pipeline, key, without=token)

    def open(self, pipeline: str) -> Iterator[Waiting]:
        """Partitions with open events, oldest first."""
        for item in self._tables.query_index(_TABLE, _index(pipeline)):
            mark = Waiting.model_validate(item.body)
            if mark.writers:
                mark = self.refresh(pipeline, mark.partition)
            if mark.objects:
                yield mark

    def refresh(self, pipeline: str, partition: str, *, without: str = "") -> Waiting:
        """Sum the partition's open events anew; closes the mark when there is none."""
        while True:
            mark, version = self._get(pipeline, partition)
            now = self._clock()
            writers = {
                token: at
                for token, at in mark.writers.items()
                if token != without and abs(now - at) <= _FORGOTTEN_SECONDS
            }
            found = self._sum(pipeline, partition).model_copy(update={"writers": writers})
            if found == mark:
                return found
            try:
                self._tables.transact([_put(pipeline, found, version)])
            except Conflict:
                continue
            return found

    def rebuild(self, pipeline: str) -> bool:
        """Make all marks anew if they do not add up to the open events; whether they did not."""
        counted = sum(self._tables.count_index(_TABLE, f"{s}#{pipeline}") for s in _OPEN)
        marked = {mark.partition: mark.objects for mark in self.open(pipeline)}
        if sum(marked.values()) == counted:
            return False
        for state in _OPEN:
            for item in self._tables.query_index(_TABLE, f"{state}#{pipeline}"):
                marked.setdefault(item.body["partition"], 0)
        for partition in marked:
            self.refresh(pipeline, partition)
        return True

    def _sum(self, pipeline: str, partition: str) -> Waiting:
        numbers, times = [], []
        for state in _OPEN:
            index = f"{state}#{pipeline}"
            for item in self._tables.query_index(_TABLE, index, prefix=f"{partition}#"):
                numbers.append(int(item.body["seq"]))
                times.append(float(item.body["recorded_at"]))
        return Waiting(
            partition=partition,
            objects=len(numbers),
            first_at=min(times, default=0.0),
            last_at=max(times, default=0.0),
            newest=max(numbers, default=0),
        )

    def _get(self, pipeline: str, partition: str) -> tuple[Waiting, int]:
        item = self._tables.get(_TABLE, _pk(pipeline), partition)
        if item is None:
            return Waiting(partition=partition), 0
        return Waiting.model_validate(item.body), item.version


def _put(pipeline: str, mark: Waiting, version: int) -> Put:
    index = _index(pipeline) if mark.objects or mark.writers else None
    return Put(_TABLE, Item(_pk(pipeline), mark.partition, mark.to_json(), index), version)


def _pk(pipeline: str) -> str:
    return f"waiting#{pipeline}"


def _index(pipeline: str) -> str:
    return f"waits#{pipeline}"
