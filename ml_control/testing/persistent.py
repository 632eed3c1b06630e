"""Callers that ask again, and what they do when they cannot know whether a call was done.

Most calls of a port may simply be made again. A conditional write may not: if the first one was
done although it failed, the second is told that the condition does not hold. So a caller looks
before it decides: it reads what it wanted to write, and where exactly its own write stands, it was
done. A write is known by its whole content at exactly the version that it makes, where another one
was before; where two writers could write the same content at the same moment, each must put
something of its own into it, as leases, marks and the ledger's counter do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from ml_control.errors import Conflict, Retryable
from ml_control.ports import Check, Item, Prediction, Put, Table
from ml_control.testing.faults import Faulty, form_of

_T = TypeVar("_T")
_P = TypeVar("_P")
ATTEMPTS = 200


class Persistent:
    """Any port, asked again on ``Retryable``, at most ``attempts`` times.

    With ``injected`` only faults of :mod:`ml_control.testing.faults` are tried again, and what the
    port itself raises comes through, so that a contract suite can be run on it.
    """

    def __init__(self, port: object, *, injected: bool = False, attempts: int = ATTEMPTS) -> None:
        vars(self).update(_asked=port, _injected=injected, _attempts=attempts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._asked!r})"

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._asked, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._asked, name)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._asked, name)
        if name.startswith("_") or not callable(found):
            return found
        form = form_of(getattr(_innermost(self._asked), name))
        if form == "iterator":
            return lambda *given, **options: self._each(
                lambda: found(*given, **options), reverse=bool(options.get("reverse"))
            )
        if form == "context":
            return lambda *given, **options: self._hold(lambda: found(*given, **options))
        if form == "future":
            return lambda *given, **options: self._promise(lambda: found(*given, **options))
        return lambda *given, **options: self.again(lambda: found(*given, **options))

    def again(self, ask: Callable[[], _T], look: Callable[[], tuple[_T] | None] = lambda: None
              ) -> _T:  # fmt: skip
        """Ask until there is an answer. After a failure ``look`` may find that it was done."""
        failed = False
        for left in reversed(range(self._attempts)):
            try:
                return ask()
            except Retryable as error:
                if not left or not self._goes_on(error):
                    raise
                failed = True
            except Conflict:
                done = look() if failed else None
                if done is None:
                    raise
                return done[0]
            done = look()
            if done is not None:
                return done[0]
        raise AssertionError("not reached")

    def _goes_on(self, error: BaseException | None) -> bool:
        """Whether this failure is one to ask again after."""
        if not isinstance(error, Retryable):
            return False
        return not self._injected or "injected" in error.detail

    def _each(self, begin: Callable[[], Iterator[_T]], *, reverse: bool = False) -> Iterator[_T]:
        """Each item once: read again from the beginning, and go on behind the last one given.

        Items of a table are known by their place, for they may have changed meanwhile; what else
        is given (keys, chunks) is known by how many came before.
        """
        last: _T | None = None
        given, attempts = 0, 0
        while True:
            try:
                for place, item in enumerate(begin()):
                    if given and _is_given(item, place, last, given, reverse=reverse):
                        continue
                    last = item
                    given += 1
                    yield item
                return
            except Retryable as error:
                attempts += 1
                if attempts >= self._attempts or not self._goes_on(error):
                    raise

    @contextmanager
    def _hold(self, begin: Callable[[], Any]) -> Iterator[Any]:
        """Held once; a failure of giving it back comes when it has been given back."""
        held: list[Any] = []

        def enter() -> Any:
            held[:] = [begin()]
            return held[0].__enter__()

        inner = self.again(enter)
        try:
            yield inner
        except BaseException as error:
            if not held[0].__exit__(type(error), error, error.__traceback__):
                raise
            return
        try:
            held[0].__exit__(None, None, None)
        except Retryable as error:
            if not self._goes_on(error):
                raise

    def _promise(
        self, begin: Callable[[], Future[Any]], change: Callable[[Any], Any] = lambda told: told
    ) -> Future[Any]:
        """A future that is kept when one of those asked for is; ``change`` of a later answer."""
        promise: Future[Any] = Future()
        promise.set_running_or_notify_cancel()

        def ask(left: int) -> None:
            def kept(inner: Future[Any]) -> None:
                error = inner.exception()
                if left and self._goes_on(error):
                    ask(left - 1)
                elif error is not None:
                    promise.set_exception(error)
                else:
                    first = left == self._attempts
                    promise.set_result(inner.result() if first else change(inner.result()))

            begin().add_done_callback(kept)

        ask(self._attempts)
        return promise


def persistent(port: _P, *, injected: bool = False, attempts: int = ATTEMPTS) -> _P:
    """The caller for a port (of ``Tables``, a ``Lake``, a ``PredictionLog``), typed as the port."""
    for methods, kind in _KINDS.items():
        if all(hasattr(port, name) for name in methods):
            return cast("_P", kind(port, injected=injected, attempts=attempts))
    return cast("_P", Persistent(port, injected=injected, attempts=attempts))


class PersistentTables(Persistent):
    """``ports.Tables``: looks whether its own writes stand before it says that one was refused."""

    def transact(self, writes: Sequence[Put | Check]) -> None:
        """See ``ports.Tables``."""
        writes = list(writes)
        puts = [write for write in writes if isinstance(write, Put)]
        before = self._before(puts)

        def look() -> tuple[None] | None:
            told = self._told(puts, before)
            return (None,) if puts and all(done for done in told) else None

        self.again(lambda: self._asked.transact(writes), look)

    def write_each(self, writes: Sequence[Put]) -> list[bool]:
        """See ``ports.Tables``. What was done is not asked for again."""
        puts = list(writes)
        before = self._before(puts)
        done = [False] * len(puts)

        def ask() -> list[bool]:
            left = [place for place, known in enumerate(done) if not known]
            told = self._asked.write_each([puts[place] for place in left])
            for place, kept in zip(left, told, strict=True):
                done[place] = kept
            return done

        def look() -> tuple[list[bool]] | None:
            told = self._told(puts, before)
            done[:] = [bool(known) for known in told]
            return None if None in told else (done,)

        return self.again(ask, look)

    def _before(self, puts: Sequence[Put]) -> dict[tuple[Table, str, str], int]:
        """Versions before the write: what had the same content already was not written by us."""
        return {key: self._version(*key) for key in map(_key, puts)}

    def _version(self, table: Table, pk: str, sk: str) -> int:
        item = self.get(table, pk, sk)
        return item.version if item else 0

    def _told(
        self, puts: Sequence[Put], before: dict[tuple[Table, str, str], int]
    ) -> list[bool | None]:
        """What was told of each write if they were done; None where they do not stand now."""
        told: list[bool | None] = []
        made: dict[tuple[Table, str, str], tuple[int, Put | None]] = {}
        for put in puts:
            key = _key(put)
            version, last = made.get(key, (before[key], None))
            holds = put.expect is None or put.expect == version
            told.append(holds)
            made[key] = (version + 1, put) if holds else (version, last)
        stands = {key: self._stands(*end) for key, end in made.items()}
        return [known if stands[_key(put)] else None for put, known in zip(puts, told, strict=True)]

    def _stands(self, version: int, put: Put | None) -> bool:
        if put is None:
            return False
        item: Item | None = self.get(put.table, put.item.pk, put.item.sk)
        wanted = put.item
        return item is not None and (item.version, dict(item.body), item.index) == (
            version,
            dict(wanted.body),
            wanted.index,
        )


class PersistentLake(Persistent):
    """A lake: an object that was to be created and has exactly these bytes was created."""

    def create(self, key: str, data: bytes) -> None:
        """See ``Lake``."""

        def look() -> tuple[None] | None:
            there = self.exists(key) and self.get(key) == bytes(data)
            return (None,) if there else None

        self.again(lambda: self._asked.create(key, data), look)

    def put_stream(self, key: str, chunks: Any) -> tuple[str, int]:
        """See ``Lake``. The chunks are kept, for they cannot be had again."""
        kept = list(chunks)
        told: tuple[str, int] = self.again(lambda: self._asked.put_stream(key, iter(kept)))
        return told


class PersistentLog(Persistent):
    """A prediction log: a request that was not known before it was asked for is one's own."""

    def append(self, predictions: Sequence[Prediction], *, durable: bool = True) -> list[bool]:
        """See ``ports.PredictionLog``."""
        mine = self._mine(predictions)
        failed = [False]

        def ask() -> list[bool]:
            try:
                told: list[bool] = self._asked.append(predictions, durable=durable)
            except Retryable:
                failed[0] = True
                raise
            return mine(told) if failed[0] else told

        return self.again(ask)

    def submit(self, predictions: Sequence[Prediction]) -> Future[list[bool]]:
        """See ``ports.PredictionLog``."""
        return self._promise(lambda: self._asked.submit(predictions), self._mine(predictions))

    def _mine(self, predictions: Sequence[Prediction]) -> Callable[[list[bool]], list[bool]]:
        """What to make of an answer that is not the first: which of these were not known now."""
        known = {
            (one.pipeline, one.request_id)
            for one in predictions
            if self.find(one.pipeline, one.request_id) is not None
        }

        def change(told: list[bool]) -> list[bool]:
            seen, changed = set(known), []
            for one, new in zip(predictions, told, strict=True):
                key = (one.pipeline, one.request_id)
                changed.append(new or key not in seen)
                seen.add(key)
            return changed

        return change


_KINDS: dict[tuple[str, ...], type[Persistent]] = {
    ("transact", "write_each"): PersistentTables,
    ("create", "put_stream"): PersistentLake,
    ("append", "submit", "find"): PersistentLog,
}


def _is_given(item: object, place: int, last: object, given: int, *, reverse: bool) -> bool:
    """Whether this item is not behind the last one that was given."""
    if not isinstance(item, Item) or not isinstance(last, Item):
        return place < given
    here, there = (item.sk, item.pk), (last.sk, last.pk)
    return here >= there if reverse else here <= there


def _key(put: Put) -> tuple[Table, str, str]:
    return put.table, put.item.pk, put.item.sk


def _innermost(port: Any) -> Any:
    """The adapter behind wrappers: it knows what its methods give."""
    while isinstance(port, (Faulty, Persistent)):
        port = vars(port)["_port" if isinstance(port, Faulty) else "_asked"]
    return port
