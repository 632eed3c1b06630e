"""What every endpoint adapter promises, with real server processes and two clients at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import psutil
import pytest
import xgboost

from ml_control.core.artifact import pack
from ml_control.errors import Conflict, InvalidSpec, NotProven, PlatformFailed, Retryable
from ml_control.local.endpoints import LocalEndpoints
from ml_control.local.files import exclusive
from ml_control.local.processes import alive, end, identity, spawn

WAIT = 60.0
TAG = "3.2-0"


class Model:
    """A booster, its archive, and rows with their predictions."""

    def __init__(self, seed, version):
        random = np.random.default_rng(seed)
        rows = random.normal(size=(500, 4)).astype(np.float32)
        rows[random.random(rows.shape) < 0.1] = np.nan
        labels = (np.nan_to_num(rows[:, 0]) * (seed + 1) + np.nan_to_num(rows[:, 1]) > 0).astype(
            int
        )
        booster = xgboost.train(
            {"objective": "binary:logistic", "seed": seed}, xgboost.DMatrix(rows, labels), 15
        )
        self.version = version
        self.archive = pack(bytes(booster.save_raw("ubj")))
        self.want = booster.predict(xgboost.DMatrix(rows)).tolist()
        self.body = "\n".join(
            ",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in rows
        ).encode()


@pytest.fixture(scope="module")
def one():
    """A model."""
    return Model(1, "v1")


@pytest.fixture(scope="module")
def two():
    """Another model over the same features."""
    return Model(2, "v2")


@pytest.fixture(params=["local"])
def clients(request, tmp_path):
    """Two clients of one platform; today the local one."""
    first, second = LocalEndpoints(tmp_path / "endpoints"), LocalEndpoints(tmp_path / "endpoints")
    yield first, second
    for name in first.names():
        first.stop(name)
    assert servers(tmp_path) == []


def servers(folder):
    """Pids of endpoint servers under a folder: nobody may leave one behind."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        running = process.info["status"] != psutil.STATUS_ZOMBIE
        if running and "ml_control.serving.endpoint" in command and str(folder) in command:
            found.append(process.info["pid"])
    return found


def deploy(client, model, name="income-a"):
    """Deploy a model and give the endpoint's state."""
    return client.deploy(name, model.archive, model.version, TAG, WAIT)


def predictions(client, model, name="income-a"):
    """The endpoint's predictions of the model's rows."""
    reply = client.invoke(name, model.body)
    assert reply.status == 200, reply.body
    return [float(line) for line in reply.body.split()]


def kill(client, name="income-a"):
    """End a server as the kernel would, and wait until it is gone."""
    pid = client.describe(name).detail["pid"]
    started = identity(pid)
    os.kill(pid, signal.SIGKILL)
    end(pid, started)
    assert not alive(pid, started)
    return pid


def folder_of(client, name="income-a"):
    """The folder of the current deployment."""
    return client._root / name / client.describe(name).detail["instance"]


def test_a_deployed_model_answers_like_the_booster(clients, one):
    """Predictions over HTTP equal booster.predict bit for bit, from any client."""
    state = deploy(clients[0], one)

    assert (state.name, state.state, state.model_version) == ("income-a", "InService", "v1")
    assert one.want == predictions(clients[0], one)
    assert one.want == predictions(clients[1], one)
    assert state == clients[1].describe("income-a")


def test_an_answer_in_json_has_the_same_scores(clients, one):
    """Accept decides the form of the answer, and its content type says so."""
    deploy(clients[0], one)

    reply = clients[0].invoke("income-a", one.body, accept="application/json")

    assert reply.content_type == "application/json"
    assert one.want == [item["score"] for item in json.loads(reply.body)["predictions"]]


def test_a_refused_request_is_a_reply(clients, one):
    """What the server refuses comes back as its status and sentence, not as an exception."""
    deploy(clients[0], one)

    reply = clients[0].invoke("income-a", b"a,b\n")

    assert reply.status == 415
    assert b"without a header" in reply.body


def test_a_new_deployment_replaces_the_old_one(clients, one, two):
    """After deploy every client gets the new model, and the old server is gone."""
    before = deploy(clients[0], one)
    assert one.want == predictions(clients[1], one)

    after = deploy(clients[0], two)

    assert two.want == predictions(clients[0], two)
    assert two.want == predictions(clients[1], two)
    assert "v2" == after.model_version == clients[1].describe("income-a").model_version
    assert [after.detail["pid"]] == servers(clients[0]._root)
    assert before.detail["pid"] != after.detail["pid"]


def test_requests_during_a_replacement_are_all_answered(clients, one, two):
    """While one model replaces another, each request gets one model's whole answer."""
    deploy(clients[0], one)
    stop, answers = threading.Event(), []

    def ask():
        while not stop.is_set():
            answers.append(predictions(clients[1], one))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        deploy(clients[0], two)
        stop.set()
        asking.result(WAIT)

    allowed = (one.want, predictions(clients[0], one))
    assert len(answers) > 3
    assert all(answer in allowed for answer in answers)


def test_deploying_what_is_serving_changes_nothing(clients, one):
    """The same bytes, version and container again keep the server that answers."""
    first = deploy(clients[0], one)

    assert first == deploy(clients[1], one)


@pytest.mark.parametrize("archive", [b"", b"junk", pack(b"\x80\x04cos\nsystem\n(S'id'\ntR.")])
def test_a_broken_archive_leaves_the_old_model_serving(clients, one, archive):
    """A deployment that fails says why, and what served before serves on."""
    before = deploy(clients[0], one)

    with pytest.raises(PlatformFailed, match="refused to start: NotProven"):
        clients[0].deploy("income-a", archive, "v9", TAG, WAIT)

    after = clients[1].describe("income-a")
    assert (after.state, after.model_version) == ("InService", "v1")
    assert before.detail["pid"] == after.detail["pid"]
    assert after.detail["last_failure"]["model_version"] == "v9"
    assert one.want == predictions(clients[1], one)
    assert len(servers(clients[0]._root)) == 1


def test_an_endpoint_that_never_served_is_failed(clients, one):
    """A first deployment that fails leaves Failed with the reason, and can be repeated."""
    with pytest.raises(PlatformFailed):
        clients[0].deploy("income-a", b"junk", "v9", TAG, WAIT)

    state = clients[1].describe("income-a")
    assert (state.state, state.model_version) == ("Failed", "v9")
    assert "refused to start" in state.reason
    assert deploy(clients[1], one).state == "InService"


def test_a_server_that_does_not_answer_in_time_is_given_up(clients, one):
    """Past its time a deployment fails, and its server does not stay behind."""
    with pytest.raises(PlatformFailed, match=r"did not answer within 0\.05 s"):
        clients[0].deploy("income-a", one.archive, "v1", TAG, 0.05)

    assert servers(clients[0]._root) == []


def test_a_killed_server_is_brought_back(clients, one):
    """kill -9, then ensure: the same model answers again, and until then it is told as Failed."""
    deploy(clients[0], one)
    predictions(clients[0], one)
    pid = kill(clients[0])
    dead = clients[1].describe("income-a")
    with pytest.raises(Retryable):
        clients[0].invoke("income-a", one.body)

    state = clients[1].ensure("income-a", "v1", WAIT)

    assert (dead.state, state.state) == ("Failed", "InService")
    assert pid != state.detail["pid"]
    assert one.want == predictions(clients[0], one)


def test_ensuring_what_serves_changes_nothing(clients, one):
    """A healthy endpoint is left as it is."""
    before = deploy(clients[0], one)

    assert before == clients[1].ensure("income-a", "v1", WAIT)


def test_two_that_ensure_at_once_start_one_server(clients, one):
    """Both callers get the same running server."""
    deploy(clients[0], one)
    kill(clients[0])

    with ThreadPoolExecutor(2) as pool:
        states = list(pool.map(lambda client: client.ensure("income-a", "v1", WAIT), clients))

    assert states[0] == states[1]
    assert [states[0].detail["pid"]] == servers(clients[0]._root)


def test_other_bytes_are_not_brought_back(clients, one, two):
    """Stored bytes that are not the deployed ones are NotProven, and nothing is started."""
    deploy(clients[0], one)
    folder = folder_of(clients[0])
    kill(clients[0])
    (folder / "model.tar.gz").write_bytes(two.archive)

    with pytest.raises(NotProven, match="was deployed"):
        clients[0].ensure("income-a", "v1", WAIT)

    assert servers(clients[0]._root) == []


def test_another_version_is_not_brought_back(clients, one):
    """ensure serves the version asked for or nothing: also while another one is serving."""
    deploy(clients[0], one)

    with pytest.raises(NotProven, match="holds model version v1, not v2"):
        clients[0].ensure("income-a", "v2", WAIT)

    assert one.want == predictions(clients[0], one)


def test_what_was_never_deployed_is_missing(clients):
    """Describing and stopping are harmless, invoking is Retryable, ensuring is NotProven."""
    assert clients[0].describe("nobody").state == "Missing"
    with pytest.raises(Retryable):
        clients[0].invoke("nobody", b"1,2,3,4")
    with pytest.raises(NotProven, match="nothing was deployed"):
        clients[0].ensure("nobody", "v1", WAIT)
    clients[0].stop("nobody")
    assert clients[0].names() == []


def test_a_stopped_endpoint_can_be_brought_back(clients, one):
    """stop ends the server and keeps the bytes; stopping twice is harmless."""
    deploy(clients[0], one)

    clients[0].stop("income-a")
    clients[1].stop("income-a")

    assert clients[1].describe("income-a").state == "Missing"
    assert servers(clients[0]._root) == []
    with pytest.raises(Retryable):
        clients[1].invoke("income-a", one.body)
    assert clients[0].names() == ["income-a"]
    assert clients[1].ensure("income-a", "v1", WAIT).state == "InService"
    assert one.want == predictions(clients[0], one)


def test_two_deployers_at_once_leave_one_whole_deployment(clients, one, two):
    """Whichever comes last serves, alone, and every client agrees on it."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(deploy, clients, (one, two)))

    state = clients[0].describe("income-a")
    last = one if state.model_version == "v1" else two
    assert state == clients[1].describe("income-a")
    assert last.want == predictions(clients[0], last) == predictions(clients[1], last)
    assert [state.detail["pid"]] == servers(clients[0]._root)


def test_a_deployer_that_cannot_wait_longer_is_told_who_holds_it(clients, one):
    """A change in progress elsewhere is a Conflict after the caller's time, and shows as such."""
    lock = clients[0]._root / "income-a" / "lock"
    with exclusive(lock, 1, "test"):
        assert clients[0].describe("income-a").state == "Creating"
        with pytest.raises(Conflict) as caught:
            clients[1].deploy("income-a", one.archive, "v1", TAG, 0.2)

    assert f"pid {os.getpid()}" == caught.value.detail["holder"]
    assert clients[0].describe("income-a").state == "Missing"


def test_names_do_not_share_anything(clients, one, two):
    """Two endpoints serve two models; stopping one leaves the other."""
    deploy(clients[0], one, "a")
    deploy(clients[1], two, "b")

    clients[0].stop("a")

    assert clients[0].names() == ["a", "b"]
    assert two.want == predictions(clients[0], two, "b")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "-x", "x" * 64, "a b", "lock\n"])
def test_a_name_that_is_no_name_is_refused(clients, one, name):
    """An endpoint's name cannot point outside the root."""
    with pytest.raises(InvalidSpec, match="not a usable name"):
        deploy(clients[0], one, name)


def test_an_unknown_container_is_refused_before_anything_is_changed(clients, one):
    """A container that does not exist is the caller's mistake; what serves is left alone."""
    with pytest.raises(InvalidSpec):
        clients[0].deploy("income-a", one.archive, "v1", "0.72", WAIT)

    assert clients[0].describe("income-a").state == "Missing"


class Stranger(BaseHTTPRequestHandler):
    """Answers everything with 200 and a number."""

    def answer(self):
        """What a careless client would take for a prediction."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"0.5\n")

    do_GET = do_POST = answer  # noqa: N815 (the base class's names)

    def log_message(self, *_):
        """Say nothing."""


def test_a_stranger_on_the_port_is_not_believed(clients, one):
    """When another program answers on the server's port, its answers are not taken."""
    deploy(clients[0], one)
    file = folder_of(clients[0]) / "server.json"
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            record = {**json.loads(file.read_text()), "port": server.server_port}
            file.write_text(json.dumps(record))

            with pytest.raises(Retryable, match="another program answers"):
                clients[1].invoke("income-a", one.body)
            assert clients[0].describe("income-a").state == "Failed"
            assert clients[0].ensure("income-a", "v1", WAIT).state == "InService"
        finally:
            server.shutdown()
            serving.join()

    assert one.want == predictions(clients[1], one)
    assert len(servers(clients[0]._root)) == 1


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


def test_a_pid_that_was_given_away_again_is_not_touched(tmp_path):
    """Neither alive nor end takes a process with another start time for ours."""
    pid, started = spawn(["sleep", "60"], tmp_path / "log")

    end(pid, started - 100.0)

    assert not alive(pid, started - 100.0)
    assert alive(pid, started)
    end(pid, started)
    assert not alive(pid, started)


def test_a_process_that_ignores_sigterm_is_ended(tmp_path):
    """After the grace time SIGKILL ends what does not listen."""
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    pid, started = spawn(["python3", "-c", script + "time.sleep(60)"], tmp_path / "log")
    while not (tmp_path / "log").read_text():
        assert alive(pid, started)

    end(pid, started, grace=0.2)

    assert not alive(pid, started)


def test_an_older_container_serves_in_its_own_version(clients, tmp_path):
    """A model of container 1.7-1 is served by XGBoost 1.7.4, with that version's predictions."""
    import subprocess

    from ml_control.core.containers import container
    from ml_control.environments import python_for

    script = (
        "import numpy as np, xgboost as x; r = np.arange(40, dtype='f4').reshape(10, 4);"
        "b = x.train({'objective': 'binary:logistic'}, x.DMatrix(r, r[:, 0] > 15), 5);"
        "open('m', 'wb').write(b.save_raw('ubj')); print(b.predict(x.DMatrix(r)).tolist())"
    )
    python = python_for(container("1.7-1"))
    done = subprocess.run([python, "-c", script], cwd=tmp_path, capture_output=True, check=True)
    body = "\n".join(",".join(map(str, range(i, i + 4))) for i in range(0, 40, 4)).encode()

    archive = pack((tmp_path / "m").read_bytes())
    clients[0].deploy("old", archive, "v1", "1.7-1", WAIT)

    reply = clients[0].invoke("old", body)
    assert json.loads(done.stdout) == [float(line) for line in reply.body.split()]


def test_servers_listen_on_loopback_only(clients, one):
    """Nobody outside this machine can reach a server."""
    pid = deploy(clients[0], one).detail["pid"]

    listening = [c for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]

    assert {"127.0.0.1"} == {connection.laddr.ip for connection in listening}
    assert {socket.AF_INET} == {connection.family for connection in listening}
