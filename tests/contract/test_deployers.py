"""One endpoint, several deployers, and callers all the while."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from endpoint_models import TAG, WAIT, alone, deploy, predictions, serving

from ml_control.errors import Conflict
from ml_control.local.files import exclusive
from ml_control.local.processes import alive, spawn


def http(client, body):
    """The outcome of one plain HTTP request: its predictions, or None when it was refused before
    a byte of an answer. Whatever is answered must be whole.
    """
    port = int(client.describe("income-a").url.rpartition(":")[2] or 1)
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
            request = head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
            connection.sendall(request + body)
            while part := connection.recv(65536):
                answer += part
    except ConnectionError:
        assert b"" == answer
    if not answer:
        return None
    got, _, body = answer.partition(b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: %d" % len(body) in got
    return [float(line) for line in body.split()]


def test_requests_during_a_replacement_are_all_answered(clients, one, another):
    """While models replace each other, no caller of ``invoke`` sees a failure and none over plain
    HTTP half an answer: each gets one model's whole answer.
    """
    deploy(clients[0], one)
    stop, answers, plain = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            answers.append(predictions(clients[1], one))

    def ask_plainly():
        while not stop.is_set():
            plain.append(http(clients[1], one.body))

    with ThreadPoolExecutor(4) as pool:
        plainly = (ask_plainly,) if clients[1].on_this_machine else ()
        asking = [pool.submit(work) for work in (ask, ask, *plainly)]
        try:
            for model in (another, one, another):
                deploy(clients[0], model)
        finally:
            stop.set()
        for work in asking:
            work.result(WAIT)

    allowed = (one.want, predictions(clients[0], one))
    assert one.want in answers
    assert allowed[1] in answers
    assert all(answer in allowed for answer in answers)
    assert all(answer in allowed for answer in plain if answer is not None)
    assert 2 * sum(answer is not None for answer in plain) >= len(plain)
    assert bool(plain) == clients[1].on_this_machine


def test_a_new_deployment_replaces_the_old_one(clients, one, another):
    """After deploy every client gets the new model, and the old server is gone."""
    before = deploy(clients[0], one)
    assert one.want == predictions(clients[1], one)

    after = deploy(clients[0], another)

    assert another.want == predictions(clients[0], another)
    assert another.want == predictions(clients[1], another)
    assert "v2" == after.model_version == clients[1].describe("income-a").model_version
    assert alone(clients[0])
    assert serving(before) != serving(after)


def test_a_deployer_with_an_older_token_replaces_nothing(clients, one, another):
    """Whoever slept past its lease is told so, before anything is started; its successor serves
    on, also when the successor found its model serving already.
    """
    clients[0].deploy("income-a", one.archive, "v1", TAG, WAIT, token=5)
    before = clients[1].deploy("income-a", one.archive, "v1", TAG, WAIT, token=7)

    with pytest.raises(Conflict, match="token 7 came after the one with token 6") as caught:
        clients[0].deploy("income-a", another.archive, "v2", TAG, WAIT, token=6)

    assert 7 == caught.value.detail["seen"]
    assert before == clients[0].describe("income-a")
    assert alone(clients[0])
    assert (
        "v2"
        == clients[0].deploy("income-a", another.archive, "v2", TAG, WAIT, token=7).model_version
    )


@pytest.mark.usefixtures("local_only")
def test_a_server_outlives_its_deployer(clients, one, tmp_path):
    """The control plane may die at any time after a deployment: the server answers on."""
    (tmp_path / "archive").write_bytes(one.archive)
    script = (
        "import os, signal, sys; from pathlib import Path;"
        "from ml_control.local.endpoints import LocalEndpoints; root = Path(sys.argv[1]);"
        "archive = (root / 'archive').read_bytes();"
        f"LocalEndpoints(root / 'endpoints').deploy('income-a', archive, 'v1', '{TAG}', {WAIT});"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )

    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)

    assert -signal.SIGKILL == done.returncode
    assert one.want == predictions(clients[0], one)


def test_two_deployers_at_once_leave_one_whole_deployment(clients, one, another):
    """Whichever comes last serves, alone, and every client agrees on it."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(deploy, clients, (one, another)))

    state = clients[0].describe("income-a")
    last = one if state.model_version == "v1" else another
    assert state == clients[1].describe("income-a")
    assert last.want == predictions(clients[0], last) == predictions(clients[1], last)
    assert alone(clients[0])


@pytest.mark.usefixtures("local_only")
def test_a_deployer_that_cannot_wait_longer_is_told_who_holds_it(clients, one):
    """A change in progress elsewhere is a Conflict after the caller's time, and shows as such."""
    lock = clients[0]._root / "income-a" / "lock"
    with exclusive(lock, 1, "test"):
        assert clients[0].describe("income-a").state == "Creating"
        with pytest.raises(Conflict) as caught:
            clients[1].deploy("income-a", one.archive, "v1", TAG, 0.2)

    assert f"pid {os.getpid()}" == caught.value.detail["holder"]
    assert clients[0].describe("income-a").state == "Missing"


@pytest.mark.usefixtures("local_only")
def test_what_a_crashed_deployer_left_is_swept_away(clients, one, tmp_path):
    """A server started by a deployer that died before the switch is ended by the next one."""
    folder = tmp_path / "endpoints" / "income-a" / "0123456789abcdef"
    folder.mkdir(parents=True)
    pid, started = spawn(["sleep", "60"], folder / "server.log")
    record = {"pid": pid, "started": started}
    (folder / "process.json").write_text(json.dumps(record))

    deploy(clients[0], one)

    assert not alive(pid, started)
    assert not folder.exists()
