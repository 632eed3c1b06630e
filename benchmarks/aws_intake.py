"""Arrivals on AWS, in requests by service as an emulator counts them: no account is needed.

A tick with 10 new objects with few and with many objects in the bucket, and 1,000 queued events.
The registry's operations are counted too, over SQLite.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from emulators import credentials, fresh_settings

from ml_control.aws.client import Clients
from ml_control.aws.lake import open_lake
from ml_control.aws.notifications import SqsNotifications
from ml_control.core.pipeline import Pipeline
from ml_control.platform import Platform, open_platform
from ml_control.registry import Registry
from ml_control.registry.sweeps import SweepState
from ml_control.services.alerts import attend
from ml_control.services.arrivals.intake import take_in
from ml_control.services.arrivals.requests import plan
from ml_control.services.arrivals.sweep import sweep
from ml_control.services.authoring.pipelines import read_pipeline
from ml_control.settings import load_settings
from ml_control.testing.account import make_arrivals

FEW, MANY, NEW, EVENTS = 1_000, 20_000, 10, 1_000
_SERVICE = re.compile(r"/([a-z0-9-]+)/aws4_request")


class Counted:
    """The registry's storage, its operations counted."""

    def __init__(self, tables: Any, counts: Counter[str]) -> None:
        self._tables, self._counts = tables, counts

    def __getattr__(self, name: str) -> Any:
        self._counts[f"registry {name}"] += 1
        return getattr(self._tables, name)


def main() -> None:
    """Print the requests of each part by service, and the two ratios."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication as Server
    from moto.sqs.models import SQSBackend

    pipeline = read_pipeline(Path(__file__).parents[1] / "pipelines" / "tumours" / "defs.yaml")
    assert pipeline is not None
    counts: Counter[str] = Counter()
    serve = Server.__call__

    def counting(self: Any, environ: Any, start: Any) -> Any:
        found = _SERVICE.search(environ.get("HTTP_AUTHORIZATION", ""))
        counts[found[1] if found else "unsigned"] += 1
        return serve(self, environ, start)

    valid = "is_message_valid_based_on_retention_period"  # counts the whole queue for each message
    with (
        credentials(),
        mock.patch.object(Server, "__call__", counting),
        mock.patch.object(SQSBackend, valid, return_value=True),
    ):
        ticks = {stored: _tick(pipeline, stored, counts) for stored in (FEW, MANY)}
        queued = _queued(pipeline, counts)
    for stored, spent in ticks.items():
        print(f"{NEW} new objects, {stored:>6,} in the bucket: {_shown(spent)}")
    same = ticks[FEW] == ticks[MANY]
    print(f"the same number of requests with {FEW:,} and {MANY:,} objects: {same}")
    print(f"{EVENTS:,} queued events: {_shown(queued)}")
    print(f"SQS requests for 10 events: {10 * queued['sqs'] / EVENTS:.2f} (at most 2)")


def _shown(spent: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(spent.items()))


def _opened(folder: str, counts: Counter[str]) -> tuple[Platform, Any, str]:
    """A platform on a new account, with its S3 client and raw bucket."""
    settings = make_arrivals(fresh_settings())
    clients = Clients(settings)
    platform = open_platform(load_settings(home=Path(folder)))
    tables: Any = Counted(platform.registry.tables, counts)
    lake = open_lake(clients)
    source = SqsNotifications(clients, lake, tables, wait_seconds=0)
    platform = replace(
        platform, lake=lake, notifications=source, registry=Registry(tables, lease_seconds=30.0)
    )
    return platform, clients, settings.bucket("raw")


def _tick(pipeline: Pipeline, stored: int, counts: Counter[str]) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        platform, clients, bucket = _opened(folder, counts)
        _fill(bucket, pipeline.name, stored)
        state = SweepState(pipeline=pipeline.name, passes=1, ended_at=time.time())
        platform.registry.sweeps.put(state, 0)
        day = datetime.now(UTC).date().isoformat()
        for number in range(NEW):
            clients.client("s3").put_object(
                Bucket=bucket, Key=f"{pipeline.name}/dt={day}/{number}.csv", Body=b"x"
            )
        counts.clear()
        assert take_in(platform, pipeline).recorded == NEW
        sweep(platform, pipeline)
        plan(platform, pipeline, in_flight=set(), limit=4)
        attend(platform, pipeline.name)
        spent = Counter(counts)
        counts.clear()
        assert len(platform.notifications.stored(pipeline.name, "", 500)) == 500
        spent["s3 of a sweep's page"] = counts["s3"]
        return spent


def _fill(bucket: str, pipeline: str, count: int) -> None:
    """Objects that are there already, put straight into the emulator, which tells nobody."""
    from moto.backends import get_backend
    from moto.core import DEFAULT_ACCOUNT_ID

    s3 = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
    held = s3.buckets[bucket].notification_configuration
    s3.buckets[bucket].notification_configuration = None
    for number in range(count):
        s3.put_object(bucket, f"{pipeline}/dt=2026-01-01/{number:06d}.csv", b"x")
    s3.buckets[bucket].notification_configuration = held


def _queued(pipeline: Pipeline, counts: Counter[str]) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        platform, clients, bucket = _opened(folder, counts)
        day = datetime.now(UTC).date().isoformat()
        for start in range(0, EVENTS, 10):
            entries = [
                {
                    "Id": str(number),
                    "MessageBody": json.dumps(
                        {
                            "source": "aws.s3",
                            "detail-type": "Object Created",
                            "time": datetime.now(UTC).isoformat(),
                            "detail": {
                                "bucket": {"name": bucket},
                                "object": {
                                    "key": f"{pipeline.name}/dt={day}/{number}.csv",
                                    "size": 1,
                                    "version-id": f"v{number}",
                                    "sequencer": f"{number:016X}",
                                },
                            },
                        }
                    ),
                }
                for number in range(start, start + 10)
            ]
            queue = clients.client("sqs")
            queue.send_message_batch(QueueUrl=clients.settings.queue_url, Entries=entries)
        counts.clear()
        taken = 0
        while taken < EVENTS:
            taken += take_in(platform, pipeline).recorded
        return Counter(counts)


if __name__ == "__main__":
    main()
