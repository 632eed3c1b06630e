"""The gateway killed in mid-request and in mid-log: what it acknowledged is in the log, once."""

from __future__ import annotations

import threading
import time
from http.client import HTTPException
from types import SimpleNamespace

from drilling import DAYS, NAME
from gateways import RunningGateway, records

WORKERS = 4
KILLED_AFTER = (0.3, 0.05, 0.7)  # seconds of load


def load(gateway, record, stop, answered, sent, round):
    """Ask until the gateway is gone; notes what was sent and what was answered."""

    def ask(worker):
        number = 0
        while not stop.is_set():
            number += 1
            id = f"r{round}-{worker}-{number}"
            sent.append(id)
            body = {"records": [record], "request_id": id, "entity_id": f"e{worker}"}
            try:
                status, answer, _ = gateway.ask("POST", f"/inference/{NAME}", body)
            except (OSError, HTTPException, ValueError):
                return  # killed: whether it is in the log nobody knows
            assert 200 == status, answer
            answered[id] = answer

    workers = [threading.Thread(target=ask, args=(worker,)) for worker in range(WORKERS)]
    for worker in workers:
        worker.start()
    return workers


def test_a_gateway_killed_under_load_loses_nothing_that_it_acknowledged(served):
    """Every acknowledged request is in the durable log; every other one may be sent again with its
    id, is answered then, and is logged once however often it was sent.
    """
    home = SimpleNamespace(
        path=served.folder, pipelines=served.pipelines, root=served.folder, days=DAYS
    )
    (record,) = records(home, 1)
    gateway = RunningGateway(home)
    sent, answered = [], {}
    for round, seconds in enumerate(KILLED_AFTER):
        if round:
            gateway.start()
        stop = threading.Event()
        workers = load(gateway, record, stop, answered, sent, round)
        time.sleep(seconds)
        gateway.kill()
        stop.set()
        for worker in workers:
            worker.join()

    log = served.platform.log
    assert answered
    for id, answer in answered.items():
        entry = log.find(NAME, id)

        assert (id, answer["variant"], False) == (entry.request_id, entry.served, entry.failed)
    gateway.start()
    for id in sent:
        worker = id.split("-")[1]
        body = {"records": [record], "request_id": id, "entity_id": f"e{worker}"}
        status, answer, _ = gateway.ask("POST", f"/inference/{NAME}", body)

        assert (200, id) == (status, answer["request_id"])
        assert answer == answered.get(id, answer)
    assert 0 == gateway.end()
    assert len(sent) == log.count(NAME, time.time() - 3600)
