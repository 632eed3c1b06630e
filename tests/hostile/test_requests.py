"""A real endpoint server under bad requests: each is refused with a sentence, and it serves on."""

from __future__ import annotations

import http.client
import json
import socket
import stat
import threading
import time

import pytest
from serving import CSV, GOOD, POST, RECORDS, Served, deployment

from ml_control.core.digests import sha256
from ml_control.serving.deployed import MAX_CONTENT_LENGTH as MAX_BODY
from ml_control.serving.endpoint import main

TABLE = {
    "no content type": (*POST, {}, GOOD, 415, "a missing Content-Type"),
    "json": (*POST, {"content-type": "application/json"}, b"[[1,2,3]]", 415, "send rows"),
    "parquet": (*POST, {"content-type": "application/x-parquet"}, b"PAR1", 415, "send rows"),
    "libsvm without features": (*POST, {"content-type": "text/libsvm"}, GOOD, 415, "index:value"),
    "libsvm of another model": (*POST, {"content-type": "text/libsvm"}, b"1 3:1", 400, "4 columns"),
    "records that are none": (*POST, RECORDS, b"\x0a\x23\xd7\xce\xff\xff\xff\x7f", 415, "record 1"),
    "a form that needs keys": (
        *POST,
        {**CSV, "accept": "application/jsonlines"},
        GOOD,
        500,
        "only",
    ),
    "label in front": (*POST, {"content-type": "text/csv; label_size=0"}, GOOD, 415, "label_size"),
    "utf-16": (*POST, {"content-type": "text/csv; charset=utf-16"}, GOOD, 415, "charset"),
    "unknown accept": (*POST, {**CSV, "accept": "image/png"}, GOOD, 406, "ask for text/csv"),
    "header": (*POST, CSV, b"a,b,c\n1,2,3\n", 415, "without a header"),
    "ragged": (*POST, CSV, b"1,2,3\n1,2\n", 415, "line 2 has 2 columns"),
    "infinity": (*POST, CSV, b"1,2,inf\n", 415, "column 3 is infinite"),
    "too many columns": (*POST, CSV, b"1,2,3,4\n", 400, "the model has 3 features"),
    "too few columns": (*POST, CSV, b"1,2\n", 400, "the model has 3 features"),
    "blank": (*POST, CSV, b" \n", 415, "blank"),
    "binary": (*POST, CSV, bytes(range(256)) * 20, 415, "has a byte that no number has"),
    "pickle": (*POST, CSV, b"\x80\x04cos\nsystem\n(S'id'\ntR.", 415, "without a header"),
    "too large": (*POST, CSV, b"1,2,3\n" * (MAX_BODY // 6 + 1), 413, "send fewer rows"),
    "far too large": (*POST, CSV, b"1,2,3\n" * (MAX_BODY // 2), 413, "send fewer rows"),
    "get": ("GET", "/invocations", {}, None, 405, "takes POST only"),
    "post ping": ("POST", "/ping", {}, b"x", 405, "takes GET only"),
    "head ping": ("HEAD", "/ping", {}, None, 405, ""),
    "unknown path": ("GET", "/etc/passwd", {}, None, 404, "there is no '/etc/passwd'"),
    "dotted path": ("GET", "/../../ping", {}, None, 404, "there is no"),
    "other endpoint": ("POST", "/endpoints/other/invocations", CSV, GOOD, 404, "'income-a'"),
    "other deployment": (*POST, {**CSV, "x-ml-control-instance": "i-2"}, GOOD, 421, "meant"),
}


@pytest.mark.parametrize("case", TABLE)
def test_a_bad_request_is_refused_and_the_server_serves_on(served, case):
    """Status and reason are those of the table, and afterwards health and predictions are."""
    method, path, headers, body, status, reason = TABLE[case]

    got, answered, text = served.ask(method, path, headers, body)

    assert status == got
    assert reason in text.decode()
    if method != "HEAD":
        assert status == json.loads(text)["status"]
    assert answered["x-ml-control-instance"] == "i-1"
    served.check()


def test_an_empty_body_has_an_empty_answer(served):
    """No rows, no predictions: 204, as from the container."""
    status, _, body = served.ask(*POST, CSV, b"")

    assert (status, body) == (204, b"")
    served.check()


def chunked(chunks):
    """A request without Content-Length, as bytes."""
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
    head += b"Connection: close\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + body


@pytest.mark.parametrize(("times", "end"), [(1.05, b"0\r\n\r\n"), (4, b"0\r\n\r\n"), (1.05, b"")])
def test_a_body_without_length_is_cut_off_at_the_limit(served, times, end):
    """Chunked bodies are bounded too, ended or endless, and the caller still gets the answer."""
    chunk = b"1,2,3\n" * 20_000

    answer = served.raw(chunked([chunk] * int(MAX_BODY * times / len(chunk))) + end)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"send fewer rows" in answer
    served.check()


def test_a_chunked_body_within_the_limit_is_predicted(served):
    """A body in pieces is the same body."""
    request = chunked([GOOD[:7], GOOD[7:]]) + b"0\r\n\r\n"

    answer = served.raw(request)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(served.ask(*POST, CSV, GOOD)[2])


def test_a_body_that_does_not_arrive_is_given_up(served):
    """A caller that promises a body and stops sending is answered 408, and others meanwhile 200."""
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
    answers = []
    slow = threading.Thread(
        target=lambda: answers.append(served.raw(head + b"Content-Length: 100\r\n\r\n1,2"))
    )
    slow.start()

    served.check()

    slow.join(20)
    assert answers[0].startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 1.5 seconds" in answers[0]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
)
def test_bytes_that_are_not_http_are_refused(served, request_bytes):
    """What is no request gets 400 or a closed connection; no predictions, no crash."""
    try:
        answer = served.prompt(request_bytes + b"\r\n\r\n")
    except ConnectionError:
        answer = b""

    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    served.check()


def test_callers_that_hang_up_do_no_harm(served):
    """Fifty callers that leave in the middle of a body leave nothing behind."""
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
            connection.sendall(head + b"Content-Length: 1000\r\n\r\n1,2,3\n")

    served.check()


def test_runtime_path_answers_like_sagemaker_runtime(served):
    """Under SageMaker Runtime's path a refusal is a ModelError with the original status."""
    path = "/endpoints/income-a/invocations"

    status, headers, body = served.ask("POST", path, CSV, b"1,2,3,4\n")
    told = json.loads(body)

    assert (status, headers["x-amzn-errortype"]) == (424, "ModelError")
    assert told["OriginalStatusCode"] == 400
    assert "the model has 3 features" in told["OriginalMessage"]
    good = served.ask("POST", path, CSV, GOOD)
    assert good[::2] == served.ask(*POST, CSV, GOOD)[::2]
    assert good[1]["x-amzn-invoked-production-variant"] == "AllTraffic"


def test_json_answers_hold_the_same_scores(served):
    """Asked for JSON, the scores are those of the CSV answer."""
    _, headers, body = served.ask(*POST, {**CSV, "accept": "application/json"}, GOOD)

    scores = [item["score"] for item in json.loads(body)["predictions"]]
    assert headers["content-type"] == "application/json"
    assert scores == [float(line) for line in served.ask(*POST, CSV, GOOD)[2].split()]


def test_execution_parameters_are_the_containers(served):
    """Batch transform learns from this route how to cut its input."""
    _, _, body = served.ask("GET", "/execution-parameters")

    told = json.loads(body)
    assert (told["BatchStrategy"], told["MaxPayloadInMB"]) == ("MULTI_RECORD", 6)
    assert told["MaxConcurrentTransforms"] >= 1


def test_a_refusal_keeps_the_connection(served):
    """A pooled client that once sent a bad row goes on over the same connection."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    answers = []
    for body in (b"bad", GOOD, b"1\n", GOOD):
        connection.request(*POST, body=body, headers=CSV)
        response = connection.getresponse()
        answers.append((response.status, response.read(), connection.sock.getsockname()[1]))
    connection.close()

    assert [answer[0] for answer in answers] == [415, 200, 400, 200]
    assert len({answer[2] for answer in answers}) == 1


def test_the_record_of_the_server_is_private_and_true(served):
    """server.json names this process and instance, and only its owner may read the token."""
    import psutil

    file = served.folder / "server.json"

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert served.record["pid"] == served.process.pid
    assert abs(psutil.Process(served.process.pid).create_time() - served.record["started"]) < 2
    status, headers, body = served.ask("GET", "/identity")
    assert status == 200
    told = json.loads(body)
    assert told.pop("answered") >= 0
    assert told == {"name": "income-a", "model_version": "v1", "instance": "i-1"}
    assert sha256(served.record["token"].encode()) == headers["x-ml-control-proof"]


def test_a_request_in_progress_is_finished_on_sigterm(tmp_path, booster):
    """SIGTERM lets the caller that is still sending have its answer, then the process ends."""
    served = Served(deployment(tmp_path, booster), booster)
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD[:5])
        time.sleep(0.3)
        served.process.terminate()
        time.sleep(0.3)
        connection.sendall(GOOD[5:])
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert served.process.wait(20) == 0
    served.log.close()
    assert "stopped by SIGTERM" in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize(
    ("changes", "archive", "reason"),
    [
        ({"archive_sha256": "0" * 64}, None, "was deployed"),
        ({}, b"not an archive", "was deployed"),
        ({"archive_sha256": sha256(b"not an archive")}, b"not an archive", "gzip"),
        ({"container": "3.0-5"}, None, "has XGBoost 3.0.5, this interpreter has 3.2.0"),
        ({"container": "9.9-9"}, None, "is not an XGBoost container"),
        ({"surprise": 1}, None, "holds no whole deployment"),
    ],
)
def test_a_server_does_not_start_on_what_was_not_deployed(
    tmp_path, booster, capfd, changes, archive, reason
):
    """Other bytes, another container or a broken record end the server before it has a port."""
    folder = deployment(tmp_path, booster, **changes)
    if archive is not None:
        (folder / "model.tar.gz").write_bytes(archive)

    code = main(["--dir", str(folder)])

    assert code == 1
    assert reason in capfd.readouterr().err
    assert not (folder / "server.json").exists()
