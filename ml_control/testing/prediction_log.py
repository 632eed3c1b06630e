"""A prediction log in memory: the port's contract, for tests that need no disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ml_control.errors import BadObject, Conflict
from ml_control.ports import LATENCY_BOUNDS, Joined, Outcome, Prediction, Traffic


@dataclass
class MemoryLog:
    """Implements :class:`ml_control.ports.PredictionLog`; one process, one thread."""

    predictions: dict[tuple[str, str], Prediction] = field(default_factory=dict)
    told: dict[tuple[str, str, int], Outcome] = field(default_factory=dict)
    joins: dict[str, list[Joined]] = field(default_factory=dict)
    counts: dict[tuple[str, str], dict[str, Traffic]] = field(default_factory=dict)
    exposed: set[tuple[str, str, str]] = field(default_factory=set)
    reads: int = 0  # outcomes that were read, for tests of cost

    def append(self, predictions: Sequence[Prediction], *, durable: bool = True) -> list[bool]:  # noqa: ARG002
        """See the port."""
        fresh = []
        for one in predictions:
            key = (one.pipeline, one.request_id)
            fresh.append(key not in self.predictions)
            if not fresh[-1]:
                continue
            self.predictions[key] = one
            self._count(one)
            for (name, request, _), outcome in list(self.told.items()):
                if (name, request) == key:
                    self._join(one, outcome)
        return fresh

    def find(self, pipeline: str, request_id: str) -> Prediction | None:
        """See the port."""
        return self.predictions.get((pipeline, request_id))

    def tell(self, pipeline: str, request_id: str, outcomes: Sequence[Outcome]) -> list[str]:
        """See the port."""
        found = self.find(pipeline, request_id)
        said = []
        for one in outcomes:
            known = self.told.get((pipeline, request_id, one.index))
            if known is not None and known.value != one.value:
                raise Conflict(request_id, "another value is known", "correct it")
            if found is not None and one.index >= found.rows:
                raise BadObject(request_id, "has no such record", "correct the index")
            waits = "waiting" if found is None else "joined"
            said.append("known" if known is not None else waits)
        for one, word in zip(outcomes, said, strict=True):
            self.told.setdefault((pipeline, request_id, one.index), one)
            if word == "joined" and found is not None:
                self._join(found, one)
        return said

    def joined(self, pipeline: str, after: int, limit: int) -> list[Joined]:
        """See the port."""
        found = self.joins.get(pipeline, [])[after : after + limit]
        self.reads += len(found)
        return found

    def traffic(self, pipeline: str, rollout_id: str) -> dict[str, Traffic]:
        """See the port."""
        return dict(self.counts.get((pipeline, rollout_id), {}))

    def newest(self, pipeline: str, limit: int) -> list[Prediction]:
        """See the port."""
        mine = [p for p in reversed(self.predictions.values()) if p.pipeline == pipeline]
        return [p for p in mine if p.records is not None and p.served][:limit]

    def count(self, pipeline: str, since: float) -> int:
        """See the port."""
        return sum(p.pipeline == pipeline and p.at >= since for p in self.predictions.values())

    def _count(self, one: Prediction) -> None:
        arms = self.counts.setdefault((one.pipeline, one.rollout_id), {})
        for name in ("champion", "challenger"):
            arms.setdefault(name, Traffic(latencies=(0,) * (len(LATENCY_BOUNDS) + 1)))
        name = "challenger" if one.challenger else "champion"
        key = (one.pipeline, one.rollout_id, one.entity_id)
        if key not in self.exposed:
            self.exposed.add(key)
            shares = {"challenger": one.share, "champion": 1.0 - one.share}
            for arm, share in shares.items():
                now = arms[arm]
                arms[arm] = replace(
                    now, expected=now.expected + share, entities=now.entities + (arm == name)
                )
        now = arms[name]
        place = sum(bound < one.latency for bound in LATENCY_BOUNDS)
        spread = tuple(n + (i == place) for i, n in enumerate(now.latencies))
        arms[name] = replace(
            now, requests=now.requests + 1, errors=now.errors + one.failed, latencies=spread
        )

    def _join(self, one: Prediction, outcome: Outcome) -> None:
        import json

        mine = self.joins.setdefault(one.pipeline, [])
        answer = json.loads(one.answers)[outcome.index]
        same = (one.rollout_id, one.entity_id)
        mine.append(
            Joined(
                offset=len(mine) + 1,
                pipeline=one.pipeline,
                request_id=one.request_id,
                index=outcome.index,
                entity_id=one.entity_id,
                rollout_id=one.rollout_id,
                challenger=one.challenger,
                share=one.share,
                served=one.served,
                model_version=one.model_version,
                label=answer["label"],
                score=answer["score"],
                outcome=outcome.value,
                predicted_at=one.at,
                told_at=outcome.at,
                first=not any((j.rollout_id, j.entity_id) == same for j in mine),
            )
        )
