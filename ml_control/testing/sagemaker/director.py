"""What is to go wrong, said beforehand: by a test in this process, or over HTTP under ``/_fake/``.

Every method is a POST of its keyword arguments as JSON: ``POST /_fake/fail`` with
``{"operation": "CreateEndpoint", "code": "ThrottlingException"}``. A plan is used up: ``times``
says how often it applies, ``name`` (a glob) to which job or endpoint.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

TRAINING = (
    "CapacityError",
    "InsufficientInstanceCapacity",
    "AlgorithmError",
    "InternalServerError",
    "Interrupted",
    "MaxWaitTimeExceeded",
    "MaxRuntimeExceeded",
    "hang",
)
ENDPOINT = ("CapacityError", "InsufficientInstanceCapacity", "ping", "hang")
TRANSFORM = ("CapacityError", "ClientError", "hang")
_STAGES = {"training": TRAINING, "endpoint": ENDPOINT, "transform": TRANSFORM}


@dataclass
class Plan:
    """One thing that is to go wrong."""

    what: str  # an operation, or training, transform, endpoint, invoke
    kind: str
    name: str = "*"
    times: int = 1
    detail: dict[str, Any] = field(default_factory=dict)
    releases: int = 0  # how many there had been when this was planned


class Director:
    """Plans, and what was called so far. Any thread may use it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311 - must be repeatable
        self._plans: list[Plan] = []
        self._calls: Counter[str] = Counter()
        self._alarms: set[str] = set()
        self._limits: dict[str, int] = {}
        self._shares = {"throttle": 0.0, "lose": 0.0, "delay": 0.0}
        self._delay = 0.0
        self._releases = 0

    def fail(
        self,
        operation: str,
        code: str,
        message: str = "",
        status: int = 400,
        times: int = 1,
        name: str = "*",
    ) -> None:
        """The next calls of an operation are refused with this code and do nothing."""
        self._add(
            Plan(
                operation,
                "fail",
                name,
                times,
                {
                    "code": code,
                    "message": message or code,
                    "status": status,
                },
            )
        )

    def lose_answer(
        self, operation: str, times: int = 1, hang: float = 0.0, name: str = "*"
    ) -> None:
        """The next calls are done, and the caller never learns it: the connection is dropped.

        With ``hang`` it stays silent for so many real seconds first, so that a client with a
        shorter read timeout sees a timeout.
        """
        self._add(Plan(operation, "lose", name, times, {"hang": hang}))

    def training(self, kind: str, times: int = 1, name: str = "*", reason: str = "") -> None:
        """What befalls the next training jobs: one of ``TRAINING``.

        ``reason`` is the text after ``AlgorithmError:``. ``Interrupted`` restarts a spot job from
        round 0; ``hang`` trains forever, until stopped or over its maximum runtime.
        """
        self._stage("training", kind, times, name, reason)

    def transform(self, kind: str, times: int = 1, name: str = "*", reason: str = "") -> None:
        """What befalls the next transform jobs: one of ``TRANSFORM``."""
        self._stage("transform", kind, times, name, reason)

    def endpoint(self, kind: str, times: int = 1, name: str = "*", reason: str = "") -> None:
        """What befalls the next creations and updates of endpoints: one of ``ENDPOINT``.

        ``ping`` fails the health check whatever the model, ``hang`` stays in Creating or Updating
        until ``release``.
        """
        self._stage("endpoint", kind, times, name, reason)

    def not_ready(self, name: str = "*", times: int = 1) -> None:
        """The next invocations are answered ModelNotReadyException (429)."""
        self._add(Plan("invoke", "not_ready", name, times))

    def model_error(
        self, name: str = "*", times: int = 1, status: int = 500, message: str = "Internal error"
    ) -> None:
        """The next invocations fail in the model, with this status of the container."""
        self._add(
            Plan(
                "invoke",
                "model_error",
                name,
                times,
                {
                    "status": status,
                    "message": message,
                },
            )
        )

    def alarm(self, name: str, *, firing: bool = True) -> None:
        """A CloudWatch alarm that deployments watch goes into ALARM, or back to OK."""
        with self._lock:
            (self._alarms.add if firing else self._alarms.discard)(name)

    def limit(self, what: str, most: int) -> None:
        """An account limit: ``endpoints``, ``serverless concurrency``, ``training jobs``, or
        the instance type of either (``ml.m5.xlarge for training job usage``).
        """
        with self._lock:
            self._limits[what] = most

    def throttle(self, share: float) -> None:
        """This share of calls is refused with ThrottlingException, chosen by the seed."""
        self._share("throttle", share)

    def lose(self, share: float) -> None:
        """This share of calls is done and their connections dropped, chosen by the seed."""
        self._share("lose", share)

    def delay(self, share: float, seconds: float) -> None:
        """This share of calls is answered so many real seconds later."""
        self._share("delay", share)
        self._delay = seconds

    def release(self) -> None:
        """Everything that hangs goes on as if nothing had been."""
        with self._lock:
            self._plans = [plan for plan in self._plans if plan.kind != "hang"]
            self._releases += 1

    def calls(self) -> dict[str, int]:
        """How often each operation was called, refused calls included."""
        with self._lock:
            return dict(self._calls)

    def plans(self) -> list[dict[str, Any]]:
        """What is still to go wrong."""
        with self._lock:
            return [asdict(plan) for plan in self._plans]

    def reset(self) -> None:
        """Nothing more goes wrong; the counts of calls begin anew."""
        self.release()
        with self._lock:
            self._plans.clear()
            self._calls.clear()
            self._alarms.clear()
            self._limits.clear()
            self._shares = dict.fromkeys(self._shares, 0.0)

    # What follows is asked by the fake.

    def take(self, what: str, *names: str) -> Plan | None:
        """The first plan for this and one of these names, one use of it gone."""
        with self._lock:
            for plan in self._plans:
                if plan.what == what and any(
                    fnmatchcase(name, plan.name) for name in names or ("",)
                ):
                    plan.times -= 1
                    if plan.times <= 0:
                        self._plans.remove(plan)
                    return plan
        return None

    def released(self, plan: Plan) -> bool:
        """Whether what hangs by this plan may go on: everything was released since."""
        with self._lock:
            return self._releases > plan.releases

    def firing(self, alarms: list[str]) -> list[str]:
        """Those of these alarms that are in ALARM."""
        with self._lock:
            return [name for name in alarms if name in self._alarms]

    def most(self, what: str) -> int | None:
        """A limit that was set."""
        with self._lock:
            return self._limits.get(what)

    def called(self, operation: str) -> tuple[bool, bool, float]:
        """Count a call: (whether it is throttled, whether its answer is lost, its delay)."""
        with self._lock:
            self._calls[operation] += 1
            drawn = {kind: self._random.random() < share for kind, share in self._shares.items()}
            return drawn["throttle"], drawn["lose"], self._delay if drawn["delay"] else 0.0

    def percent(self) -> float:
        """A number from 0 to under 100 drawn by the seed."""
        with self._lock:
            return self._random.random() * 100

    def weighted(self, weights: list[float]) -> int:
        """An index drawn by weight."""
        with self._lock:
            return self._random.choices(range(len(weights)), weights)[0]

    def _stage(self, what: str, kind: str, times: int, name: str, reason: str) -> None:
        if kind not in _STAGES[what]:
            raise ValueError(f"{what} knows {', '.join(_STAGES[what])}, not {kind!r}")
        self._add(Plan(what, kind, name, times, {"reason": reason}))

    def _share(self, kind: str, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"a share is from 0 to 1, not {share}")
        with self._lock:
            self._shares[kind] = share

    def _add(self, plan: Plan) -> None:
        with self._lock:
            plan.releases = self._releases
            self._plans.append(plan)


PUBLIC = (
    *("fail", "lose_answer", "training", "transform", "endpoint", "not_ready", "model_error"),
    *("alarm", "limit", "throttle", "lose", "delay", "release", "calls", "plans", "reset"),
)
"""The methods that answer over HTTP."""
