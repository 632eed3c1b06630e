"""The registry in DynamoDB: requests of each operation, and of a tick with few and many events.

On moto in this process, so that times say little about AWS; numbers of requests are the same there.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_control.aws.client import Clients
from ml_control.aws.registry import DynamoTables, stored
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Event
from ml_control.lake import Lake
from ml_control.local.registry import SqliteTables
from ml_control.platform import Platform, open_platform
from ml_control.ports import Item
from ml_control.registry import Registry
from ml_control.services.alerts import attend
from ml_control.services.arrivals.intake import take_in
from ml_control.services.arrivals.requests import plan
from ml_control.services.arrivals.sweep import sweep
from ml_control.services.authoring.pipelines import read_pipeline
from ml_control.settings import AwsSettings, load_settings
from ml_control.testing.account import make_tables
from ml_control.testing.dynamodb import atomic_transactions

EVENTS, FEW, MANY, NEW, TICKS = 1000, 1_000, 20_000, 10, 2
NAME, DAY = "tumours", "2026-09-01"
REGION, ACCOUNT = "eu-west-1", "123456789012"


class Counted:
    """Tables of their own on moto, whose requests are counted by operation."""

    def __init__(self, url: str, lake: Lake) -> None:
        self.settings = AwsSettings(
            region=REGION, project=f"b{secrets.token_hex(6)}", endpoint_urls={"dynamodb": url}
        )
        clients = Clients(self.settings)
        make_tables(clients)
        self.tables = DynamoTables(clients, lake)
        self.requests: Counter[str] = Counter()
        events = clients.client("dynamodb").meta.events
        events.register("before-send.dynamodb", self._count)

    def _count(self, request: Any, **_: Any) -> None:
        self.requests[request.headers["X-Amz-Target"].decode().rpartition(".")[2]] += 1

    def of(self, work: Callable[[], Any]) -> tuple[Counter[str], float]:
        """The requests and seconds of some work; answers that were lost are counted again."""
        self.requests.clear()
        start = time.perf_counter()
        work()
        return Counter(self.requests), time.perf_counter() - start


def main() -> None:
    """Print requests of each operation beside SQLite's time, and requests of a tick."""
    from moto.server import ThreadedMotoServer

    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    atomic_transactions()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        _operations(f"http://{host}:{port}")
        _ticks(f"http://{host}:{port}")
    finally:
        server.stop()


def _operations(url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        counted = Counted(url, Lake.local(Path(folder) / "lake"))
        local = SqliteTables(Path(folder) / "registry.db")
        steps = zip(_steps(Registry(counted.tables)), _steps(Registry(local)), strict=True)
        for (what, work), (_, same) in steps:
            requests, seconds = counted.of(work)
            start = time.perf_counter()
            same()
            ratio = seconds / (time.perf_counter() - start)
            total = sum(requests.values())
            print(
                f"{what:<28} {total:4d} requests, {ratio:6.1f} x SQLite's time  {_told(requests)}"
            )
        local.close()


def _steps(registry: Registry) -> list[tuple[str, Callable[[], Any]]]:
    events = [_event(i, "pending") for i in range(EVENTS)]
    claims: list[Any] = []
    certain = [True] * EVENTS
    return [
        (f"record {EVENTS} events", lambda: registry.ledger.record(NAME, events, certain)),
        ("record them again", lambda: registry.ledger.record(NAME, events, [False] * EVENTS)),
        ("claim them", lambda: claims.append(registry.ledger.claim(NAME, DAY, "run"))),
        ("settle them", lambda: registry.ledger.settle(claims[0], lambda _: ("done", None))),
        ("acquire a lease", lambda: registry.leases.acquire(NAME, DAY, "run")),
        ("held leases", lambda: registry.leases.held(NAME)),
        ("what waits", lambda: list(registry.ledger.waiting(NAME))),
        ("counts of status", lambda: registry.ledger.counts(NAME)),
        ("a decision", lambda: registry.history.append(NAME, "note", "s", "x", actor="bench")),
    ]


def _ticks(url: str) -> None:
    pipeline = read_pipeline(Path(__file__).parents[1] / "pipelines" / NAME / "defs.yaml")
    assert pipeline is not None
    totals = {}
    for count in (FEW, MANY):
        requests = _tick(url, pipeline, count)
        totals[count] = sum(requests.values())
        print(
            f"{NEW} new objects, {count:>6,} stored: {totals[count]:3d} requests  {_told(requests)}"
        )
    print(f"ratio {totals[MANY] / totals[FEW]:.2f} (1 = requests do not grow with what is stored)")


def _tick(url: str, pipeline: Pipeline, count: int) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        local = open_platform(load_settings(home=Path(folder)))
        counted = Counted(url, local.lake)
        platform = replace(local, registry=Registry(counted.tables))
        _store(counted, count)
        day = datetime.now(UTC).date().isoformat()
        landing = platform.settings.landing / pipeline.name / f"dt={day}"
        requests: Counter[str] = Counter()
        for tick in range(TICKS):
            landing.mkdir(parents=True, exist_ok=True)
            for i in range(NEW):
                (landing / f"{tick}-{i}.csv").write_text(f"{tick},{i}\n")
            requests, _ = counted.of(lambda: _once(platform, pipeline))
            open_events = list(platform.registry.ledger.open_events(pipeline.name))
            assert len(open_events) == NEW
            platform.registry.ledger.move(open_events, "done", None)
        return requests  # of the last one: a sweep is behind us, as in most ticks


def _once(platform: Platform, pipeline: Pipeline) -> None:
    take_in(platform, pipeline, settle=0.0)
    sweep(platform, pipeline)
    plan(platform, pipeline, in_flight=set(), limit=4)
    attend(platform, pipeline.name)


def _store(counted: Counted, count: int) -> None:
    """Put events that are done, and their entries, right into moto's table."""
    from moto.dynamodb import dynamodb_backends

    backend, name = dynamodb_backends[ACCOUNT][REGION], counted.settings.table("control-ledger")
    for i in range(count):
        event = _event(i, "done")
        item = Item(
            f"event#{NAME}",
            f"{event.partition}#{event.key}#{event.version}",
            event.to_json(),
            f"done#{NAME}",
        )
        body = stored.body_of(item)
        for of in (stored.item_attributes, stored.entry_attributes):
            backend.put_item(name, of("control-ledger", item, body, 1))


def _event(number: int, state: Any) -> Event:
    return Event(
        pipeline=NAME,
        partition=DAY,
        bucket="raw",
        key=f"{NAME}/dt={DAY}/{number}.csv",
        version=f"{number:064x}",
        size=1,
        path=f"raw/{NAME}/dt={DAY}/{number}.{number:016x}.csv",
        state=state,
    )


def _told(requests: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(requests.items()))


if __name__ == "__main__":
    main()
