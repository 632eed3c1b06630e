"""The demo's acts about releases: a challenger wins on evidence, another loses and is undone."""

from __future__ import annotations

import base64
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from ml_control.cli.acts import DIGITS, Story, challenger, live
from ml_control.cli.observer import expect, until

ENTITIES = 1000
REQUESTS = 2000
MINIMUM = 100
_AT_ONCE = 8
T = TypeVar("T")
R = TypeVar("R")


def configure(pipelines: Path) -> None:
    """Set up the story's pipelines: few images pass the gates, evidence decides on the rest."""
    change(
        pipelines, "gates", {"metrics": {"accuracy": {"min": 0.7}}, "champion": {"margin": 0.03}}
    )
    change(
        pipelines,
        "rollout",
        {
            "strategy": "ab_test",
            "challenger_weight": 0.5,
            "min_samples": MINIMUM,
            "metric": {"name": "accuracy", "kind": "proportion"},
        },
    )


def change(pipelines: Path, section: str, value: dict[str, Any]) -> None:
    """Change one section of the digits pipeline's file, as a person would."""
    file = pipelines / DIGITS / "defs.yaml"
    document = yaml.safe_load(file.read_text("utf-8"))
    document["attributes"].setdefault(section, {}).update(value)
    file.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")


def challenger_wins(story: Story) -> str:
    """2,000 requests with their true outcomes: the better model is promoted by evidence alone."""
    observer = story.observer
    first = until(live(story, DIGITS), "the champion in service", 30)
    second = until(challenger(story), "a challenger with traffic", 60)
    before = {v["variant"]: answered(v["url"]) for v in (first, second)}
    said = ask(story, "person")
    counted = {v["variant"]: answered(v["url"]) - before[v["variant"]] for v in (first, second)}
    expect(sum(counted.values()) == REQUESTS, f"the servers answered {counted}")
    homes: dict[str, set[str]] = {}
    for one in said:
        homes.setdefault(one.entity, set()).add(one.variant)
    expect(all(len(found) == 1 for found in homes.values()), "an entity saw two variants")
    split = Counter(next(iter(found)) for found in homes.values())
    expect(all(400 <= n <= 600 for n in split.values()), f"{ENTITIES} entities split {split}")
    expect(len(split) == 2, "one variant had no entity")
    tell(story, said)
    now = until(
        live(story, DIGITS, first["model_version"]), "the challenger promoted by evidence", 90
    )
    expect(now["model_version"] == second["model_version"], "something else was promoted")
    right: dict[str, list[bool]] = {}
    for one in said:
        right.setdefault(one.variant, []).append(one.label == one.truth)
    rates = {v: sum(hits) / len(hits) for v, hits in right.items()}
    was, new = rates[first["variant"]], rates[second["variant"]]
    decision = newest(observer, "promoted")
    story.promoted_at = float(decision["at"])
    return (
        f"{REQUESTS} requests of {ENTITIES} entities, {dict(sorted(split.items()))}, each entity "
        f"on one variant; champion right in {was:.1%}, challenger in {new:.1%}; promoted: "
        f"{decision['because']}"
    )


def challenger_loses(story: Story) -> str:
    """A model that passes every gate on its own data is worse on live traffic: rolled back."""
    observer, day = story.observer, story.day(0)
    good = until(live(story, DIGITS), "the champion in service", 30)
    # Someone narrows training to the newest day, whose pictures a scanner mirrored.
    change(observer.pipelines, "training", {"window": {"partitions": 1}})
    observer.reload()
    mirrored(story.better, story.landing / DIGITS / f"dt={day}")
    bad = until(challenger(story, good["model_version"]), "a worse challenger with traffic", 150)
    tell(story, ask(story, "visitor"))
    now = until(lambda: settled(story), "the challenger rolled back", 90)
    expect(now["live"]["model_version"] == good["model_version"], "the worse model is live")
    decision = newest(observer, "rolled_back")
    expect(decision["details"]["model"] == bad["model_version"], f"rolled back: {decision}")
    stamps = [story.promoted_at - 1.0, story.promoted_at + 1.0, time.time()]
    told = [at(observer, moment) for moment in stamps]
    expect(told[0] == story.first_model, f"live before the promotion: {told[0]}")
    expect(told[1] == told[2] == good["model_version"], f"live after it: {told[1:]}")
    return (
        f"model {bad['model_version'][:12]} passed its gates and was rolled back live: "
        f"{decision['because']}; history --at: {told[0][:12]} before the promotion, "
        f"{told[1][:12]} after it and now"
    )


def settled(story: Story) -> dict[str, Any] | None:
    """The pipeline once no rollout is under way."""
    found = story.observer.status(DIGITS)
    return found if found["rollout"]["state"] == "idle" else None


def mirrored(source: Path, target: Path) -> None:
    """The same digits, left for right: no check of theirs tells, and every shape is another."""
    import numpy as np

    from ml_control.core.images import decode, encode_png
    from ml_control.spec import ImageShape

    shape = ImageShape(height=8, width=8)
    for file in sorted(source.rglob("*.png")):
        pixels = decode(file.read_bytes(), shape, file.name).reshape(8, 8)
        path = target / file.parent.name / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(np.ascontiguousarray(pixels[:, ::-1])))


@dataclass(frozen=True)
class Said:
    """A request that was answered, and what the picture really shows."""

    entity: str
    request: str
    variant: str
    label: str
    truth: str


def ask(story: Story, who: str) -> list[Said]:
    """Held-back pictures of 1,000 entities, two of each, several at once."""
    draw = random.Random(11)  # noqa: S311 - not a secret
    jobs = [
        (f"{who}-{i % ENTITIES}", *story.held_back[draw.randrange(len(story.held_back))])
        for i in range(REQUESTS)
    ]

    def one(client: httpx.Client, job: tuple[str, str, bytes]) -> Said:
        entity, truth, png = job
        record = {"image": base64.b64encode(png).decode()}
        reply = client.post(f"/inference/{DIGITS}", json={"records": [record], "entity_id": entity})
        expect(reply.status_code == 200, f"status {reply.status_code}: {reply.text[:200]}")
        found = reply.json()
        label = found["predictions"][0]["label"]
        return Said(entity, found["request_id"], found["variant"], label, truth)

    return _all(story, one, jobs)


def tell(story: Story, said: list[Said]) -> None:
    """What each picture really shows, told to the gateway."""

    def one(client: httpx.Client, item: Said) -> None:
        body = {"request_id": item.request, "outcomes": [item.truth]}
        reply = client.post(f"/outcomes/{DIGITS}", json=body)
        expect(reply.status_code == 200, f"outcome refused: {reply.text[:200]}")

    _all(story, one, said)


def _all(story: Story, one: Callable[[httpx.Client, T], R], jobs: Iterable[T]) -> list[R]:
    limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    with (
        httpx.Client(base_url=story.observer.gateway, timeout=30, limits=limits) as client,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        return list(pool.map(partial(one, client), jobs))


def answered(url: str) -> int:
    """Invocations that a variant's server has answered since it started."""
    return int(httpx.get(f"{url}/identity", timeout=10).json()["answered"])


def newest(observer: Any, action: str) -> dict[str, Any]:
    """The newest decision of a kind."""
    found = observer.command("history", DIGITS, "--json").json()["decisions"]
    return dict([d for d in found if d["action"] == action][-1])


def at(observer: Any, moment: float) -> str:
    """The model version that was live at a time, as ``history --at`` says."""
    text = datetime.fromtimestamp(moment, UTC).isoformat()
    answer = observer.command("history", DIGITS, "--at", text, "--json")
    expect(answer.status == 0, f"history --at failed: {answer.err}")
    return str(json.loads(answer.out)["live"]["subject"])
