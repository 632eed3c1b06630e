"""Faults in any port: calls that fail before or after they are done, late, never, or too often.

    plan = FaultPlan(seed=7, before=0.1, after=0.1)
    tables = faulty(SqliteTables(path), plan, "tables")

What happens to a call is a pure function of the seed, the call's name and how many calls of that
name came before, so that threads do not change each other's faults. Seed, name and number are in
every failure's message: the same plan makes the same failure again.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import isgeneratorfunction
from typing import Any, Literal, TypeVar, cast, get_args

from ml_control.errors import Retryable

Kind = Literal["before", "after", "throttle", "delay", "hang"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_P = TypeVar("_P")
_SAID: dict[Kind, str] = {
    "before": "failed before it was done",
    "after": "was done, but its caller is told that it failed",
    "throttle": "was refused: too many calls",
    "delay": "was late",
    "hang": "did not answer in time",
}


@dataclass(frozen=True)
class Fault:
    """What happens to the ``nth`` call of this name (``deploy``, or ``endpoints.deploy``)."""

    call: str
    nth: int
    kind: Kind


class FaultPlan:
    """Decides what happens to each call; any number of ports and threads may share one."""

    def __init__(
        self,
        seed: int | None = None,
        *,
        before: float = 0.0,
        after: float = 0.0,
        throttle: float = 0.0,
        delay: float = 0.0,
        hang: float = 0.0,
        burst: int = 3,
        delay_seconds: float = 0.005,
        hang_seconds: float = 0.05,
        script: Sequence[Fault] = (),
        spare: Mapping[str, Collection[Kind]] | None = None,
    ) -> None:
        """Rates are shares of calls, by kind; ``script`` names single calls and goes first.

        ``throttle`` begins a burst of so many refused calls of one name. ``spare`` keeps kinds
        away from calls, by name with or without the port's. Without a seed one is drawn.
        """
        self.seed = secrets.randbelow(2**32) if seed is None else seed
        rates = (before, after, throttle, delay, hang)
        self._rates: dict[Kind, float] = dict(zip(KINDS, rates, strict=True))
        self._burst = burst
        self._delay_seconds, self._hang_seconds = delay_seconds, hang_seconds
        self._script = {(fault.call, fault.nth): fault.kind for fault in script}
        self._spare = {name: frozenset(kinds) for name, kinds in (spare or {}).items()}
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._quiet = 0
        self.calls: Counter[str] = Counter()
        self.injected: list[Fault] = []

    def __repr__(self) -> str:
        rates = ", ".join(f"{kind}={rate:g}" for kind, rate in self._rates.items() if rate)
        return f"FaultPlan(seed={self.seed}{', ' if rates else ''}{rates})"

    @property
    def counts(self) -> dict[Kind, int]:
        """How many faults of each kind there were."""
        found = Counter(fault.kind for fault in self.injected)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """No faults while it lasts, and its calls do not count: to prepare and to look."""
        with self._lock:
            self._quiet += 1
        try:
            yield
        finally:
            with self._lock:
                self._quiet -= 1

    def release(self) -> None:
        """Let every call that hangs, now or later, fail at once."""
        self._released.set()

    def next(self, name: str) -> Fault:
        """Count a call of this name (``port.method``); what happens to it, ``delay`` 0 if nothing.

        A call that hangs or is late has waited when this returns.
        """
        with self._lock:
            if self._quiet:
                return Fault(name, 0, "delay")
            self.calls[name] += 1
            nth = self.calls[name]
            kind = self._kind(name, nth)
            if kind is not None:
                self.injected.append(Fault(name, nth, kind))
        if kind == "delay":
            time.sleep(self._delay_seconds)
        if kind == "hang":
            self._released.wait(self._hang_seconds)
        return Fault(name, nth, kind or "delay")

    def _kind(self, name: str, nth: int) -> Kind | None:
        method = name.rpartition(".")[2]
        for call in (name, method):
            if (call, nth) in self._script:
                return self._script[call, nth]
        spared = self._spare.get(name, frozenset()) | self._spare.get(method, frozenset())
        drawn = self._drawn(name, nth)
        if drawn is None or drawn == "throttle" or drawn in spared:
            drawn = None
            if "throttle" not in spared and self._in_burst(name, nth):
                drawn = "throttle"
        return drawn

    def _in_burst(self, name: str, nth: int) -> bool:
        """Whether this call, or one of the few before it, began to be refused."""
        earlier = range(max(1, nth - self._burst + 1), nth + 1)
        rate = self._rates["throttle"]
        return rate > 0 and any(self._drawn(name, one) == "throttle" for one in earlier)

    def _drawn(self, name: str, nth: int) -> Kind | None:
        left = self.draw(name, nth)
        for kind, rate in self._rates.items():
            left -= rate
            if left < 0:
                return kind
        return None

    def draw(self, name: str, nth: int, what: str = "") -> float:
        """A number below 1 that only the seed, the call and ``what`` decide."""
        return random.Random(f"{self.seed}/{name}/{nth}/{what}").random()  # noqa: S311

    def error(self, fault: Fault) -> Retryable:
        """The failure that a caller sees."""
        return Retryable(
            fault.call,
            f"{_SAID[fault.kind]} (injected: seed {self.seed}, {fault.kind}, "
            f"call {fault.nth} of {fault.call})",
            f"ask again; the same failure comes with FaultPlan(seed={self.seed})",
            injected=fault.kind,
            seed=self.seed,
            call=fault.nth,
        )


class Faulty:
    """Any port, with the faults of a plan. Attributes that are no public methods pass through.

    A method that gives an iterator fails in mid-iteration, one that gives a future fails through
    the future, and a context manager fails on entering, where nothing is held afterwards, or on
    leaving, where it has been given back.
    """

    def __init__(self, port: object, plan: FaultPlan, name: str = "") -> None:
        vars(self).update(_port=port, _plan=plan, _name=name or type(port).__name__)

    def __repr__(self) -> str:
        return f"Faulty({self._port!r}, {self._plan!r})"

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._port, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._port, name)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name.startswith("_") or not callable(found):
            return found
        return self._wrapped(f"{self._name}.{name}", found)

    def _wrapped(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        plan: FaultPlan = self._plan
        form = form_of(method)

        def call(*arguments: Any, **options: Any) -> Any:
            fault = plan.next(name)
            if form == "iterator":
                return _iterated(plan, fault, lambda: method(*arguments, **options))
            if form == "context":
                return _held(plan, fault, lambda: method(*arguments, **options))
            if form == "future":
                return _promised(plan, fault, lambda: method(*arguments, **options))
            if _early(fault):
                raise plan.error(fault)
            result = method(*arguments, **options)
            if fault.kind == "after":
                raise plan.error(fault)
            return result

        return call


def faulty(port: _P, plan: FaultPlan, name: str = "") -> _P:
    """:class:`Faulty`, typed as the port that it wraps."""
    return cast("_P", Faulty(port, plan, name))


def form_of(method: Callable[..., Any]) -> Literal["value", "iterator", "context", "future"]:
    """What a method gives, by what it is and says: nothing is called to find out."""
    wrapped = getattr(method, "__wrapped__", None)
    if wrapped is not None and isgeneratorfunction(wrapped):
        return "context"
    told = getattr(method, "__annotations__", {}).get("return", "")
    text = told if isinstance(told, str) else str(told)
    word = text.partition("[")[0].rpartition(".")[2]
    if isgeneratorfunction(method) or word == "Iterator":
        return "iterator"
    if word in ("AbstractContextManager", "ContextManager"):
        return "context"
    return "future" if word == "Future" else "value"


def _early(fault: Fault) -> bool:
    return fault.kind in ("before", "throttle", "hang")


def _iterated(plan: FaultPlan, fault: Fault, begin: Callable[[], Any]) -> Iterator[Any]:
    """The items; a failure comes where a page ends: before the first, or after a few."""
    if _early(fault):
        raise plan.error(fault)
    left = int(plan.draw(fault.call, fault.nth, "items") * 5) if fault.kind == "after" else -1
    for item in begin():
        if left == 0:
            raise plan.error(fault)
        left -= 1
        yield item
    if fault.kind == "after":
        raise plan.error(fault)


@contextmanager
def _held(plan: FaultPlan, fault: Fault, begin: Callable[[], Any]) -> Iterator[Any]:
    if _early(fault):
        raise plan.error(fault)
    leaving = plan.draw(fault.call, fault.nth, "leaving") < 0.5
    with begin() as held:
        if fault.kind == "after" and not leaving:
            raise plan.error(fault)  # got, and given back with the connection that failed
        yield held
    if fault.kind == "after":
        raise plan.error(fault)


def _promised(plan: FaultPlan, fault: Fault, begin: Callable[[], Future[Any]]) -> Future[Any]:
    """A future of the same result, which fails before, or after the other one was kept."""
    promise: Future[Any] = Future()
    promise.set_running_or_notify_cancel()
    if _early(fault):
        promise.set_exception(plan.error(fault))
        return promise

    def kept(inner: Future[Any]) -> None:
        error = inner.exception()
        if error is None and fault.kind == "after":
            error = plan.error(fault)
        if error is not None:
            promise.set_exception(error)
        else:
            promise.set_result(inner.result())

    begin().add_done_callback(kept)
    return promise
