"""A world for handlers that fits in memory: two variants, a log, a clock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ml_control.core.features import FeatureSpec
from ml_control.core.kinds import CategoryFeature, NumberFeature
from ml_control.core.records import Rollout, Variant
from ml_control.errors import BadObject, Conflict, Retryable
from ml_control.ports import Outcome, Prediction, Reply
from ml_control.serving.handlers.desk import Command, Desk
from ml_control.serving.handlers.messages import Answer, Caller, Refusal, Request, refused
from ml_control.serving.handlers.routes import Table, routes
from ml_control.serving.handlers.steps import Served, Snapshot, run
from ml_control.spec import Log

FEATURES = FeatureSpec(
    task="binary",
    labels=("no", "yes"),
    features=(
        NumberFeature(name="age", min=0, max=120),
        CategoryFeature(name="work", levels=("a", "b"), encoding="onehot"),
    ),
    missing=("?",),
    ignore=("id",),
)
RECORD = {"age": 30, "work": "b"}
PIPELINE = "income"


class MemoryLog:
    """``ports.PredictionLog`` as far as handlers use it."""

    def __init__(self) -> None:
        self.entries: dict[str, Prediction] = {}
        self.told: dict[tuple[str, int], Any] = {}
        self.broken = False

    def append(self, predictions: Sequence[Prediction], *, durable: bool = True) -> list[bool]:
        if self.broken:
            raise Retryable("prediction log", "cannot be written", "free space")
        fresh = []
        for one in predictions:
            fresh.append(one.request_id not in self.entries)
            self.entries.setdefault(one.request_id, one)
        return fresh

    def find(self, pipeline: str, request_id: str) -> Prediction | None:
        return self.entries.get(request_id)

    def tell(self, pipeline: str, request_id: str, outcomes: Sequence[Outcome]) -> list[str]:
        logged, states = self.entries.get(request_id), []
        for one in outcomes:
            if logged is not None and one.index >= logged.rows:
                raise BadObject("outcome", "is beyond the request's records")
            known = self.told.get((request_id, one.index), one.value)
            if known != one.value:
                raise Conflict("outcome", "another value was told before")
            before = (request_id, one.index) in self.told
            states.append("known" if before else "joined" if logged else "waiting")
        self.told.update({(request_id, one.index): one.value for one in outcomes})
        return states

    def __getattr__(self, name: str) -> Any:  # the rest of the port is not asked here
        raise AttributeError(name)


class World:
    """Does a handler's steps: replies by variant, a list of who was asked."""

    def __init__(self, rollout: Rollout, **log: Any) -> None:
        self.log = MemoryLog()
        self.rollout = rollout
        self.kept = Log(**log)
        self.replies: dict[str, Reply | Exception] = {}
        self.asked: list[str] = []
        self.features: dict[str, FeatureSpec | None] = {"a": FEATURES, "b": FEATURES}
        self.writes: list[bool] = []
        self.done: list[tuple[str, dict[str, Any]]] = []

    def look(self, pipeline: str) -> Snapshot:
        if pipeline != PIPELINE:
            raise Refusal(404, BadObject(pipeline, "there is no such pipeline"))
        variants = {
            name: Served(name, entry.endpoint, entry.model_version, "", self.features[name], "gone")
            for name, entry in self.rollout.variants.items()
        }
        return Snapshot(pipeline, "binary", self.kept, self.rollout, variants)

    def invoke(self, served: Served, body: bytes) -> Reply:
        self.asked.append(served.variant)
        reply = self.replies.get(served.variant)
        if isinstance(reply, Exception):
            raise reply
        score = b"0.25\n" if served.variant == "a" else b"0.75\n"
        return reply or Reply(200, score * len(body.splitlines()), "text/csv")

    def write(self, prediction: Prediction, *, durable: bool) -> bool:
        self.writes.append(durable)
        (fresh,) = self.log.append([prediction], durable=durable)
        return fresh

    def command(self, name: str, takes: Any) -> Command:
        def call(pipeline: str, **given: Any) -> dict[str, str]:
            self.done.append((f"{name} {pipeline}", given))
            return {"champion": "v1"}

        return Command(name, takes, name, call)

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        method: str = "POST",
        commands: Mapping[str, Command] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to a request, as the gateway and Lambda would give it."""
        desk = Desk(self.log, None, commands or {}, clock=lambda: 1000.0)  # type: ignore[arg-type]
        methods, parameters = Table(routes(commands or {})).find(path)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(method, path, headers or {}, data, Caller("ada", "manager", "127.0.0.1"))
        try:
            return run(methods[method].handler(request, desk, **parameters), self)
        except (Refusal, BadObject, Conflict, Retryable) as error:
            return refused(error)

    def infer(self, **body: Any) -> tuple[int, Any]:
        answer = self.ask(f"/inference/{PIPELINE}", {"records": [RECORD], **body})
        return answer.status, json.loads(answer.body)

    @property
    def logged(self) -> list[Prediction]:
        return list(self.log.entries.values())


def rollout(share: float = 0.0, **changes: Any) -> Rollout:
    """A champion on a and, with a share, a challenger on b."""

    def variant(name: str, version: str) -> Variant:
        return Variant(
            endpoint=f"income-{name}", model_version=version, verdict="", proven_live_at=0
        )

    second = {"b": variant("b", "v2")} if share else {}
    found = Rollout(
        pipeline=PIPELINE,
        id="income-7",
        champion="v1",
        variants={"a": variant("a", "v1"), **second},
        weights={"a": 1 - share, **({"b": share} if share else {})},
        challenger="b" if share else None,
        state="in_progress" if share else "idle",
    )
    return found.model_copy(update=changes)
