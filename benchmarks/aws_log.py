"""The prediction log in DynamoDB: requests and write units of a prediction by batch size, and how
many it takes a second against moto, beside the log in SQLite in the same run.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.log import request
from ml_control.aws.client import Clients
from ml_control.aws.prediction_log import DynamoPredictionLog
from ml_control.local.prediction_log import SqlitePredictionLog
from ml_control.ports import Outcome, Prediction, PredictionLog
from ml_control.settings import AwsSettings
from ml_control.testing.account import make_account
from ml_control.testing.dynamodb import atomic_transactions

BATCHES, THREADS, SINGLE, TOLD = (1, 10, 90, 500), 8, 30, 60
NAME = "shop"


def main() -> None:
    """Print what a prediction costs by batch size, then both logs with eight writers."""
    with tempfile.TemporaryDirectory() as folder:
        settings = _account()
        clients = Clients(settings)
        with (
            closing(DynamoPredictionLog(clients)) as log,
            closing(SqlitePredictionLog(Path(folder) / "log.db")) as local,
        ):
            calls = _counted(clients)
            for one in (log, local):
                one.append([request(0)])
            print("batch   requests   actions  write units   a prediction; DynamoDB's, counted")
            for place, size in enumerate(BATCHES):
                _batch(log, calls, size, 10_000 * (place + 1), "new entities")
            _batch(log, calls, 90, 10_000 * len(BATCHES), "known entities")
            _told(log, calls)
            _both(log, local, calls)
        _contended(settings)


def _account() -> AwsSettings:
    from moto.server import ThreadedMotoServer

    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    atomic_transactions()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = ("s3", "sqs", "dynamodb", "kinesis", "sns", "iam", "events")
    return make_account(
        AwsSettings(
            region="eu-west-1",
            project=f"b{secrets.token_hex(4)}",
            endpoint_urls=dict.fromkeys(names, f"http://{host}:{port}"),
        )
    )


def _counted(clients: Clients) -> Counter[str]:
    """Requests, actions and write units, as they are sent from now on."""
    calls: Counter[str] = Counter()

    def sent(params: dict[str, Any], model: Any, **_: Any) -> None:
        calls["requests"] += 1
        if model.name != "TransactWriteItems":
            return
        body = json.loads(params["body"])
        calls["transactions"] += 1
        for action in body["TransactItems"]:
            calls["actions"] += 1
            # A transaction's write takes two units a KB; JSON and base64 are a little more.
            calls["units"] += 2 * (len(json.dumps(next(iter(action.values())))) // 1024 + 1)

    clients.client("dynamodb").meta.events.register("before-call.dynamodb", sent)
    return calls


def _batch(log: PredictionLog, calls: Counter[str], size: int, base: int, what: str) -> None:
    rounds = max(1, 200 // size)
    batches = [[request(base + k * size + i) for i in range(size)] for k in range(rounds)]
    if what.startswith("known"):
        log.append(batches[0])
        batches = [[_again(one) for one in batches[0]]]
    calls.clear()
    for batch in batches:
        log.append(batch)
    count = sum(map(len, batches))
    print(f"{size:5} {_each(calls, count)}   {what}")


def _again(one: Prediction) -> Prediction:
    return replace(one, request_id=f"{one.request_id}-again")


def _each(calls: Counter[str], count: int) -> str:
    return "  ".join(f"{calls[name] / count:9.3f}" for name in ("requests", "actions", "units"))


def _told(log: PredictionLog, calls: Counter[str]) -> None:
    """Outcomes from eight threads at once."""
    calls.clear()
    base = 10_000 * 3
    _spread(lambda number: log.tell(NAME, f"{base + number:032x}", [Outcome(0, "yes", 1.0)]), TOLD)
    print(f"{'':5} {_each(calls, TOLD)}   outcomes, {THREADS} threads")


def _both(log: PredictionLog, local: PredictionLog, calls: Counter[str]) -> None:
    speeds = []
    for one in (local, log):
        calls.clear()
        speeds.append(_singles([one], 900_000))
    count = calls["transactions"]
    print(
        f"one record a call from {THREADS} threads: SQLite {speeds[0]:,.0f}/s, moto "
        f"{speeds[1]:,.0f}/s, ratio {speeds[1] / speeds[0]:.3f}; {SINGLE * 8 / count:.1f} records "
        "a transaction"
    )
    batches = [[request(1_000_000 + k * 90 + i) for i in range(90)] for k in range(6)]
    for place, one in enumerate((local, log)):
        start = time.perf_counter()
        for batch in batches:
            one.append(batch)
        speeds[place] = 540 / (time.perf_counter() - start)
    print(
        f"90 records a call: SQLite {speeds[0]:,.0f}/s, moto {speeds[1]:,.0f}/s, ratio "
        f"{speeds[1] / speeds[0]:.3f} (moto's own work is most of it)"
    )


def _contended(settings: AwsSettings) -> None:
    """Several clients of one pipeline, as several gateways are."""
    for count in (1, 2, 4):
        clients = [Clients(settings) for _ in range(count)]
        calls = [_counted(one) for one in clients]
        logs = [DynamoPredictionLog(one) for one in clients]
        speed = _singles(logs, 2_000_000 + 10_000 * count)
        sent = sum(one["transactions"] for one in calls) / (SINGLE * THREADS)
        print(
            f"{count} clients, {THREADS} threads in all: {speed:,.0f}/s, {sent:.2f} transactions "
            "sent a record"
        )
        for log in logs:
            log.close()


def _singles(logs: Sequence[PredictionLog], base: int) -> float:
    def one(number: int) -> None:
        logs[number % len(logs)].append([request(base + number)])

    return _spread(one, SINGLE * THREADS)


def _spread(work: Callable[[int], object], count: int) -> float:
    """Do it for each number, from eight threads; how many a second."""

    def some(first: int) -> None:
        for number in range(first, count, THREADS):
            work(number)

    workers = [threading.Thread(target=some, args=(first,)) for first in range(THREADS)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
