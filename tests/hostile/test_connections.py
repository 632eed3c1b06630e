"""Callers that break HTTP, dawdle, hoard connections or send two requests at once."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest
from serving import CSV, GOOD, POST, READ_SECONDS, Served, deployment, head

from ml_control.serving.protocol import MAX_CONNECTIONS, MAX_HEAD

LENGTH = f"Content-Length: {len(GOOD)}"


def told(answer):
    """(status, message) of a refusal: JSON with a next step, and the connection is closed."""
    start, _, body = answer.partition(b"\r\n\r\n")
    status = int(start.split()[1])
    found = json.loads(body)
    assert status == found["status"]
    assert ";" in found["message"]  # reason; next step
    assert b"connection: close" in start.lower()
    return status, found["message"]


def good(served):
    """The whole answer to the good rows."""
    return served.ask(*POST, CSV, GOOD)[2]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n",
        head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"zz\r\n",
        head("Bad Header: x", "Content-Length: 0"),
        b"GET /ping HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    ],
)
def test_what_is_no_request_is_told_so(served, request_bytes):
    """Bytes that are no HTTP, two lengths, a length beside chunks, broken chunks: 400 in JSON."""
    status, message = told(served.raw(request_bytes + b"\r\n\r\n"))

    assert status == 400
    assert "no HTTP/1.1 request" in message
    served.check()


@pytest.mark.parametrize("ended", [True, False])
def test_a_head_has_a_size(served, ended):
    """Headers without end are cut off; whether the head is whole or goes on, it is 431."""
    line = b"X: " + b"a" * (MAX_HEAD + 1000) + (b"\r\n\r\n" if ended else b"")

    status, message = told(served.raw(b"GET /ping HTTP/1.1\r\nHost: x\r\n" + line))

    assert status == 431
    assert f"larger than {MAX_HEAD} bytes" in message
    served.check()


def test_a_header_cannot_add_headers_to_the_answer(served):
    """What a caller writes into headers and paths comes back escaped in a body, or not at all."""
    status, headers, body = served.ask(
        "POST", "/endpoints/x%0d%0aset-cookie:%20a/invocations", CSV, GOOD
    )
    _, others, _ = served.ask(*POST, {**CSV, "accept": 'image/png";\tx-evil: 1'}, GOOD)

    assert status == 404
    assert "set-cookie" not in headers
    assert b"\n" not in body.rstrip(b"\n")
    assert "x-evil" not in others
    served.check()


def test_pipelined_requests_are_answered_in_their_order(served):
    """Two requests in one packet have two answers, the first one first."""
    first = head(LENGTH) + GOOD
    second = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    answer = served.raw(first + first + second)

    assert 3 == answer.count(b"HTTP/1.1 200 OK")
    assert 2 == answer.count(good(served))
    assert answer.index(good(served)) < answer.rindex(b"HTTP/1.1 200 OK")


def test_a_whole_request_is_answered_before_what_follows_it_is_refused(served):
    """Garbage behind a request neither hides its answer nor takes its place."""
    answer = served.raw(head(LENGTH) + GOOD + b"\x00garbage\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert good(served) in answer
    served.check()


def test_http_1_0_is_answered_and_closed(served):
    """An old client gets its answer and the end of the connection."""
    request = head(LENGTH).replace(b"HTTP/1.1", b"HTTP/1.0") + GOOD

    answer = served.raw(request)

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(good(served))
    assert b"connection: close" in answer


def test_a_caller_that_asks_first_is_told_to_go_on_or_not(served):
    """Expect: 100-continue: 100 for a body that will be read, the refusal itself for another."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(head(LENGTH, "Expect: 100-continue", "Connection: close"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(GOOD)
        answer = b""
        while part := connection.recv(65536):
            answer += part

    assert answer.startswith(b"HTTP/1.1 200 OK")
    large = served.raw(head("Content-Length: 100000000", "Expect: 100-continue"))
    assert 413 == told(large)[0]
    assert b"100 Continue" not in large


def test_a_hundred_megabytes_are_refused_and_not_kept(served):
    """The refusal comes at once, and the server does not take the body into memory."""
    import psutil

    process = psutil.Process(served.process.pid)
    before = process.memory_info().rss
    request = head("Content-Length: 100000000")
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(request)
        answer = connection.recv(65536)
        try:
            for _ in range(100):
                connection.sendall(b"1" * 1_000_000)
        except ConnectionError:
            pass  # it has read enough

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert process.memory_info().rss - before < 30_000_000
    served.check()


@pytest.mark.parametrize("sent", [b"", b"GET /ping HT"])
def test_a_head_that_does_not_arrive_is_given_up(served, sent):
    """Neither silence nor half a line holds a connection for longer than a request may take."""
    began = time.monotonic()

    status, message = told(served.raw(sent))

    assert status == 408
    assert "no request arrived within 1.5 seconds" in message
    assert time.monotonic() - began < READ_SECONDS + 5


def test_callers_that_only_hold_connections_do_not_keep_others_out(served):
    """More idle and half-open connections than the server takes, and it still answers others."""
    held = []
    try:
        for number in range(MAX_CONNECTIONS + 50):
            held.append(socket.create_connection(("127.0.0.1", served.port), timeout=10))
            if number % 2:
                held[-1].sendall(b"POST /invoc")
        served.check()
    finally:
        for connection in held:
            connection.close()
    served.check()


def test_callers_that_drip_their_bodies_do_not_hold_up_others(served):
    """A byte now and then: each is given up in its time, and others are answered meanwhile."""
    held = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(20)]
    for connection in held:
        connection.sendall(head("Content-Length: 1000"))
    for _ in range(4):
        for connection in held:
            connection.sendall(b"1")
        served.check()
        time.sleep(0.2)

    answers = {connection.recv(65536)[:13] for connection in held}

    assert {b"HTTP/1.1 408 "} == answers
    for connection in held:
        connection.close()


def test_a_caller_that_does_not_read_is_given_up(served):
    """An answer that nobody takes is thrown away, with its connection, in the time of a request."""
    body = b"1,2,3\n" * 900_000
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}") + body)
        served.check()
        began = time.monotonic()
        while time.monotonic() - began < 60 and connection_count(served) > 0:
            time.sleep(0.5)

    assert time.monotonic() - began < 60
    served.check()


def connection_count(served):
    """Connections that the server holds open."""
    import psutil

    process = psutil.Process(served.process.pid)
    return sum(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections())


def test_a_server_that_is_told_to_end_closes_idle_connections(tmp_path, booster):
    """SIGTERM ends connections without a request at once, refuses new ones, and takes no time."""
    served = Served(deployment(tmp_path, booster), booster)
    idle = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    idle.request("GET", "/ping")
    assert idle.getresponse().read() == b""

    served.process.terminate()

    assert served.process.wait(10) == 0
    assert idle.sock.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port), timeout=5)
    idle.close()
    served.log.close()
