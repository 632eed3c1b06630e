"""What strangers send to the gateway: a typed refusal each, and everybody else is served on."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest
from gateways import RunningGateway, fuzz, records, server_of

from ml_control.core.routing import to_challenger

PATH = "/inference/tumours"
BECAUSE = {"because": "the test says so"}
READ_SECONDS = 2.0
PLANTED = "s3cr3t-4711"


@pytest.fixture(scope="module")
def home(tmp_path_factory, two_variants_template):
    """Both variants served for real; one column is never kept."""
    from ml_control.services.releases.deployment import ensure_serving

    home = two_variants_template.copy_to(tmp_path_factory.mktemp("gateway"))
    file = home.pipelines / "tumours" / "defs.yaml"
    file.write_text(file.read_text() + "  log: {mask: [mean_radius]}\n")
    ensure_serving(home.platform, home.pipeline())
    yield home
    home.stop_endpoints()


@pytest.fixture(scope="module")
def tokens(home):
    """A token of each role, one that has expired, one that was taken back."""
    made = home.platform.registry.tokens
    found = {role: made.create(role, role)[1] for role in ("caller", "reader", "manager")}
    found["expired"] = made.create("expired", "manager", 0.001)[1]
    found["revoked"] = made.create("revoked", "manager")[1]
    made.revoke("revoked")
    return found


@pytest.fixture(scope="module")
def gateway(home, tokens):
    """One gateway for all: what one request breaks, the next one finds."""
    running = RunningGateway(home, READ_SECONDS, alert_webhook=f"http://127.0.0.1:9/{PLANTED}")
    yield running
    assert 0 == running.end()


@pytest.fixture(scope="module")
def record(home):
    """A record that fits."""
    return records(home, 1)[0]


def infer(gateway, record, **more):
    """An ordinary request."""
    return gateway.ask("POST", PATH, {"records": [record], **more})


def test_no_header_and_no_field_chooses_the_variant(gateway, record):
    """The entity's variant answers, whatever a caller guesses; unknown fields are refused."""
    entity = next(f"e{i}" for i in range(99) if to_challenger("tumours-2", f"e{i}", 0.5))
    guesses = {"x-variant": "a", "x-amzn-sagemaker-target-variant": "a", "cookie": "variant=a"}
    body = {"records": [record], "entity_id": entity}

    status, answer, _ = gateway.ask("POST", PATH, body, headers=guesses)
    refused, error, _ = gateway.ask("POST", PATH, {**body, "variant": "a"})

    assert (200, "b") == (status, answer["variant"])
    assert (400, "BadObject") == (refused, error["error"]["kind"])


HOSTILE = {
    "nan": (b'{"records": [{"mean_radius": NaN}]}', 400),
    "twice": (b'{"records": [{"mean_radius": 1, "mean_radius": 2}]}', 400),
    "deep": (b'{"records": ' + b"[" * 1_000_000, 400),
    "deep objects": (b'{"a":' * 1_000_000, 400),
    "long entity": (b'{"records": [{}], "entity_id": "' + b"e" * 100_000 + b'"}', 400),
    "two lines": (b'{"records": [{}], "request_id": "a\\n2026 INFO all is well"}', 400),
    "unknown column": (b'{"records": [{"colour": 1}]}', 400),
    "no json": (b"mean_radius,1", 400),
    "empty": (b"", 400),
    "too large": (b" " * ((6 << 20) + 1), 413),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_a_typed_refusal(gateway, record, name):
    """Kind, object, reason and next step come back, and the next request is answered."""
    body, wanted = HOSTILE[name]

    status, answer, headers = gateway.ask("POST", PATH, body)

    assert (wanted, "BadObject") == (status, answer["error"]["kind"])
    assert {"object", "reason", "next"} <= set(answer["error"])
    assert "application/json" == headers["content-type"]
    assert 200 == infer(gateway, record)[0]


def test_100_megabytes_are_refused_unread(gateway, record):
    """A body that is announced, or that just goes on, is refused without being kept."""
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    announced = gateway.raw(f"{head}content-length: 104857600\r\n\r\n".encode())
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        sent = 0
        with suppress(OSError):
            while sent < 100:
                connection.sendall(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
                sent += 1

    assert announced.startswith(b"HTTP/1.1 413")
    assert sent < 100  # it was closed before all had come
    assert 200 == infer(gateway, record)[0]


def test_a_slow_body_ends_in_408_and_holds_up_nobody(gateway, record):
    """Others are answered meanwhile; whoever sends nothing is told so and closed."""
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as slow:
        slow.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
        assert 200 == infer(gateway, record)[0]
        answer = b""
        while part := slow.recv(65536):
            answer += part

    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"Retryable"' in answer


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
    ids=["smuggled", "tls", "long head"],
)
def test_what_is_no_request_is_refused_and_closed(gateway, record, raw):
    """The parser's refusals have the form of all others."""
    answer = gateway.raw(raw)

    status, _, body = answer.partition(b"\r\n\r\n")
    assert status[9:12] in (b"400", b"431")
    assert "error" in json.loads(body)
    assert 200 == infer(gateway, record)[0]


def test_addresses_methods_and_types_are_exact(gateway, record):
    """404, 405 with the methods that are there, 415 for anything but JSON."""
    body = json.dumps({"records": [record]}).encode()

    assert 404 == gateway.ask("GET", "/nothing")[0]
    assert 404 == gateway.ask("GET", "/pipelines/../../etc/passwd")[0]
    assert 404 == gateway.ask("POST", "/inference/nobody", {"records": [record]})[0]
    status, _, headers = gateway.ask("DELETE", PATH)
    assert (405, "POST") == (status, headers["allow"])
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"):
        assert 415 == gateway.ask("POST", PATH, body, headers={"content-type": kind})[0]
    kind = {"content-type": "Application/JSON; charset=utf-8"}
    assert 200 == gateway.ask("POST", PATH, body, headers=kind)[0]


@pytest.mark.parametrize("name", ["wrong", "expired", "revoked", "unknown", "basic", "long"])
def test_a_token_that_is_not_valid_is_401(gateway, tokens, name):
    """Typed, with the header that asks for one; also where none would be needed."""
    wrong = tokens["manager"][:-1] + ("x" if tokens["manager"][-1] != "x" else "y")
    sent = {"wrong": wrong, "unknown": f"mlc_nobody_{'x' * 43}", "long": "x" * 10_000}
    token = sent.get(name, tokens.get(name, ""))
    headers = {"authorization": f"Bearer {token}" if name != "basic" else "Basic eDp5"}

    for method, path, body in (
        ("POST", "/pipelines/tumours/promote", BECAUSE),
        ("GET", "/pipelines/tumours/history", None),
    ):
        status, answer, told = gateway.ask(method, path, body, headers=headers)
        if status == 404:
            continue  # a command that this installation does not have
        assert (401, "InvalidSpec", "Bearer") == (
            status,
            answer["error"]["kind"],
            told["www-authenticate"],
        )


def test_planted_secrets_are_nowhere(home, gateway, tokens, record):
    """Neither tokens nor the webhook nor a masked column's value is in any file or answer."""
    value = 17.99871234
    answers = [
        gateway.ask("POST", PATH, {"records": [{**record, "mean_radius": value}]}),
        gateway.ask("POST", PATH, {"records": [record], "x": PLANTED}),
        gateway.ask("GET", "/pipelines", token=f"mlc_manager_{PLANTED}"),
        gateway.ask("GET", "/pipelines/tumours", token=tokens["reader"]),
        gateway.ask("GET", f"/{PLANTED}" * 30),
    ]
    hidden = [PLANTED, str(value), *(token.rpartition("_")[2] for token in tokens.values())]
    for path in home.path.rglob("*"):
        if path.is_file() and "landing" not in path.parts:
            held = path.read_bytes()
            assert [] == [one for one in hidden if one.encode() in held], path
    told = json.dumps([answer[1] for answer in answers[1:4]])
    assert [] == [one for one in hidden[:2] if one in told]


def test_nothing_that_is_sent_can_write_a_line_of_the_log(home, gateway):
    """Line breaks in addresses and headers come out escaped or not at all."""
    line = "INFO all is well"
    head = f"GET /x%0A{line.replace(' ', '%20')} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    gateway.raw(f"{head}\r\n".encode())
    gateway.ask("GET", "/healthz", headers={"authorization": "Bearer x"})

    logs = "".join(path.read_text() for path in (home.path / "logs").glob("*"))
    assert not any(one.startswith(line) for one in logs.splitlines())


def test_a_browser_of_another_origin_is_told_nothing(gateway):
    """Without ``cors_origins`` no header lets a page read an answer."""
    origin = {"origin": "https://evil.example"}
    status, _, headers = gateway.ask("OPTIONS", PATH, headers=origin)

    assert (204, None) == (status, headers["access-control-allow-origin"])


def test_what_the_document_allows_and_more_is_never_a_fault(gateway):
    """Schemathesis: no 500, and no status, type or body that the document does not have."""
    asked = fuzz(gateway.port, examples=15)

    assert {"/inference/{pipeline}", "/outcomes/{pipeline}", "/pipelines", "/healthz"} <= asked


def test_a_variant_that_is_killed_under_load_fails_no_request(home, gateway, record):
    """The champion answers for the dead challenger, whose failures they are."""
    found, stop = [], threading.Event()

    def ask(worker):
        number = 0
        while not stop.is_set():
            number += 1
            found.append(infer(gateway, record, entity_id=f"k{worker}-{number}"))

    workers = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(0.5)
    os.kill(server_of(home, "b"), signal.SIGKILL)
    time.sleep(1.5)
    stop.set()
    for worker in workers:
        worker.join()

    assert {200} == {status for status, _, _ in found}
    log = home.platform.log
    logged = [log.find("tumours", answer["request_id"]) for _, answer, _ in found]
    failed = [entry for entry in logged if entry.failed]
    assert failed
    assert {("b", "a", True)} == {(e.assigned, e.served, e.challenger) for e in failed}
    traffic = log.traffic("tumours", "tumours-2")
    assert traffic["challenger"].errors >= len(failed)
    assert 0 == traffic["champion"].errors


def test_sigterm_lets_a_request_in_progress_finish(gateway, record):
    """Whoever has begun is answered; nobody else is let in; then it ends."""
    body = json.dumps({"records": [record]}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as begun:
        begun.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:9])
        time.sleep(0.2)
        gateway.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        begun.sendall(body[9:])
        answer = begun.recv(65536)

    assert answer.startswith(b"HTTP/1.1 200")
    assert 0 == gateway.end()
    with pytest.raises(ConnectionRefusedError):
        gateway.ask("GET", "/healthz")
