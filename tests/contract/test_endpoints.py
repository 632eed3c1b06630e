"""What every endpoint adapter promises, with real server processes and two clients at once."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from endpoint_models import TAG, WAIT, alone, deploy, folder_of, kill, predictions, servers, serving

from ml_control.core.artifact import pack
from ml_control.core.digests import sha256
from ml_control.errors import InvalidSpec, PlatformFailed, Retryable

# How a model that does not load is refused: by our server, and by SageMaker.
REFUSED = {
    True: "refused to start: NotProven",
    False: "did not pass the ping health check|Failed to extract model data archive",
}


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


def test_only_a_server_of_the_named_archive_answers(clients, one, another):
    """Rows encoded for one model are never read by another that took its name meanwhile."""
    deploy(clients[0], one)
    digests = [sha256(model.archive) for model in (one, another)]

    assert 200 == clients[0].invoke("income-a", one.body, archive=digests[0]).status
    with pytest.raises(Retryable, match="another model"):
        clients[1].invoke("income-a", one.body, archive=digests[1])

    deploy(clients[1], another)
    with pytest.raises(Retryable, match="another model"):
        clients[0].invoke("income-a", one.body, archive=digests[0])
    assert 200 == clients[0].invoke("income-a", one.body, archive=digests[1]).status


def test_deploying_what_is_serving_changes_nothing(clients, one):
    """The same bytes, version and container again keep the server that answers."""
    first = deploy(clients[0], one)

    assert first == deploy(clients[1], one)


@pytest.mark.parametrize("archive", [b"", b"junk", pack(b"\x80\x04cos\nsystem\n(S'id'\ntR.")])
def test_a_broken_archive_leaves_the_old_model_serving(clients, one, archive):
    """A deployment that fails says why, and what served before serves on."""
    before = deploy(clients[0], one)

    with pytest.raises(PlatformFailed, match=REFUSED[clients[0].on_this_machine]):
        clients[0].deploy("income-a", archive, "v9", TAG, WAIT)

    after = clients[1].describe("income-a")
    assert (after.state, after.model_version) == ("InService", "v1")
    assert serving(before) == serving(after)
    assert after.detail["last_failure"]["model_version"] == "v9"
    assert one.want == predictions(clients[1], one)
    assert alone(clients[0])


def test_an_endpoint_that_never_served_is_failed(clients, one):
    """A first deployment that fails leaves Failed with the reason, and can be repeated."""
    with pytest.raises(PlatformFailed):
        clients[0].deploy("income-a", b"junk", "v9", TAG, WAIT)

    state = clients[1].describe("income-a")
    assert (state.state, state.model_version) == ("Failed", "v9")
    assert re.search(REFUSED[clients[0].on_this_machine], state.reason)
    assert deploy(clients[1], one).state == "InService"


def test_a_server_that_does_not_answer_in_time_is_given_up(clients, one):
    """Past its time a deployment fails, and its server does not stay behind."""
    with pytest.raises(PlatformFailed, match=r"did not answer within 0\.05 s"):
        clients[0].deploy("income-a", one.archive, "v1", TAG, 0.05)

    assert servers(clients[0]._root) == []


@pytest.mark.usefixtures("local_only")
def test_a_killed_server_is_brought_back(clients, one):
    """kill -9, then deploy: the same model answers again, and until then it is told as Failed."""
    deploy(clients[0], one)
    predictions(clients[0], one)
    pid = kill(clients[0])
    dead = clients[1].describe("income-a")
    with pytest.raises(Retryable):
        clients[0].invoke("income-a", one.body)

    state = deploy(clients[1], one)

    assert (dead.state, state.state) == ("Failed", "InService")
    assert pid != state.detail["pid"]
    assert one.want == predictions(clients[0], one)


def test_what_was_never_deployed_is_missing(clients):
    """Describing and stopping are harmless, invoking is Retryable."""
    assert clients[0].describe("nobody").state == "Missing"
    with pytest.raises(Retryable):
        clients[0].invoke("nobody", b"1,2,3,4")
    clients[0].stop("nobody")
    assert clients[0].names() == []


def test_a_stopped_endpoint_can_be_brought_back(clients, one):
    """stop ends the server and keeps the name; stopping twice is harmless."""
    deploy(clients[0], one)

    clients[0].stop("income-a")
    clients[1].stop("income-a")

    assert clients[1].describe("income-a").state == "Missing"
    assert servers(clients[0]._root) == []
    with pytest.raises(Retryable):
        clients[1].invoke("income-a", one.body)
    assert clients[0].names() == ["income-a"]
    assert deploy(clients[1], one).state == "InService"
    assert one.want == predictions(clients[0], one)


def test_names_do_not_share_anything(clients, one, another):
    """Two endpoints serve two models; stopping one leaves the other."""
    deploy(clients[0], one, "a")
    deploy(clients[1], another, "b")

    clients[0].stop("a")

    assert clients[0].names() == ["a", "b"]
    assert another.want == predictions(clients[0], another, "b")


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


@pytest.mark.usefixtures("local_only")
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
            assert deploy(clients[0], one).state == "InService"
        finally:
            server.shutdown()
            serving.join()

    assert one.want == predictions(clients[1], one)
    assert alone(clients[0])


@pytest.mark.parametrize("tag", ["1.5-1", "1.7-1", "3.0-5"])
def test_an_older_container_serves_in_its_own_version(clients, tmp_path, tag):
    """A container's model is served by its own XGBoost, with that version's predictions."""
    from ml_control.core.containers import container
    from ml_control.environments import python_for

    kind = "json" if tag == "1.5-1" else "ubj"
    script = (
        "import numpy as np, xgboost as x; r = np.arange(40, dtype='f4').reshape(10, 4);"
        "b = x.train({'objective': 'binary:logistic'}, x.DMatrix(r, r[:, 0] > 15), 5);"
        f"b.save_model('m.{kind}'); print(b.predict(x.DMatrix(r)).tolist())"
    )
    python = python_for(container(tag))
    done = subprocess.run([python, "-c", script], cwd=tmp_path, capture_output=True, check=True)
    body = "\n".join(",".join(map(str, range(i, i + 4))) for i in range(0, 40, 4)).encode()

    archive = pack((tmp_path / f"m.{kind}").read_bytes())
    clients[0].deploy("old", archive, "v1", tag, WAIT)

    reply = clients[0].invoke("old", body)
    assert json.loads(done.stdout.splitlines()[-1]) == [float(line) for line in reply.body.split()]


@pytest.mark.usefixtures("local_only")
def test_servers_listen_on_loopback_only(clients, one):
    """Nobody outside this machine can reach a server."""
    pid = deploy(clients[0], one).detail["pid"]

    listening = [c for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]

    assert {"127.0.0.1"} == {connection.laddr.ip for connection in listening}
    assert {socket.AF_INET} == {connection.family for connection in listening}
