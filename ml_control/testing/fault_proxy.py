"""A seeded faulty HTTP proxy to put between unmodified AWS clients and an emulator.

    with FaultProxy("http://127.0.0.1:5000", seed=7, throttle=0.3, drop_after=0.05) as proxy:
        boto3.client("dynamodb", endpoint_url=proxy.url)

It refuses requests in the wire format of their service, forwards a request and drops the answer,
delays, hangs, lets credentials expire, fails some records of ``PutRecords``, and gives messages of
SQS twice or never. What happens to a request is decided by the seed, the operation and how many
of it came before (see :class:`ml_control.testing.faults.FaultPlan`). It also counts requests by
service and operation. The ``Host`` header is forwarded as it came, so that signatures hold; only
``PutRecords`` of which some records are to fail has another body than was signed.

As a program: ``python -m ml_control.testing.fault_proxy URL --seed 7 --throttle 0.3``.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from ml_control.testing.fault_wire import Refusal, Request, expired, recognised, throttled
from ml_control.testing.faults import FaultPlan, Kind

_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect"})
_PATIENCE = 120.0  # seconds for the emulator's answer
_MOST_MESSAGES = 10


@dataclass
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FaultProxy:
    """Serves on a free loopback port from construction, or entering, until :meth:`close`."""

    def __init__(
        self,
        target: str,
        *,
        seed: int | None = None,
        throttle: float = 0.0,
        drop_before: float = 0.0,
        drop_after: float = 0.0,
        delay: float = 0.0,
        hang: float = 0.0,
        delay_seconds: float = 0.05,
        hang_seconds: float = 5.0,
        failed_records: float = 0.0,
        duplicates: float = 0.0,
        lost: float = 0.0,
        only: Collection[str] = (),
        spare: Mapping[str, Collection[Kind]] | None = None,
        port: int = 0,
    ) -> None:
        """Rates are shares of requests; ``drop_before`` closes the connection with nothing done,
        ``drop_after`` when it was done. ``failed_records`` is the share of Kinesis records that
        are refused, ``duplicates`` and ``lost`` those of SQS messages that are given again, or
        never. ``only``: services or ``service.Operation`` that have faults; all if empty.
        """
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.plan = FaultPlan(
            seed,
            before=drop_before,
            after=drop_after,
            throttle=throttle,
            delay=delay,
            hang=hang,
            burst=1,
            delay_seconds=delay_seconds,
            hang_seconds=hang_seconds,
            spare=spare,
        )
        self._shares = {"record": failed_records, "duplicate": duplicates, "lost": lost}
        self._only = frozenset(only)
        self._lock = threading.Lock()
        self._expired = False
        self._seen: dict[str, dict[str, Any]] = {}  # messages that may be given again, by id
        self._lost: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.rewritten: Counter[str] = Counter()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="fault proxy", daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __repr__(self) -> str:
        return f"FaultProxy({self.url} -> {self._target[0]}:{self._target[1]}, {self.plan!r})"

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Stop serving; what hangs is let go."""
        self.plan.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def by_service(self) -> dict[str, int]:
        """Requests by service, in order of name."""
        found: Counter[str] = Counter()
        with self._lock:
            for name, count in self.requests.items():
                found[name.partition(".")[0]] += count
        return dict(sorted(found.items()))

    def reset(self) -> None:
        """Count requests from here on."""
        with self._lock:
            self.requests.clear()

    def expire_credentials(self) -> None:
        """Refuse every request as one with credentials that ran out, until they are renewed."""
        self._expired = True

    def renew_credentials(self) -> None:
        """Take requests again."""
        self._expired = False

    @contextmanager
    def expired(self) -> Iterator[None]:
        """Credentials are expired while it lasts."""
        self.expire_credentials()
        try:
            yield
        finally:
            self.renew_credentials()

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> _Answer | None:
        """What the client is told; None: the connection is closed without an answer."""
        request = recognised(method, path, headers, body)
        with self._lock:
            self.requests[request.name] += 1
        if self._expired:
            return _refused(expired(request))
        if self._only and not {request.service, request.name} & self._only:
            return self._forward(method, path, headers, body)
        fault = self.plan.next(request.name)
        if fault.kind == "throttle":
            return _refused(throttled(request, self.plan.error(fault).reason))
        if fault.kind in ("before", "hang"):
            return None
        if request.name == "kinesis.PutRecords" and self._shares["record"]:
            found = self._put_records(method, path, headers, body, fault.nth)
        else:
            found = self._forward(method, path, headers, body)
        if request.name == "sqs.ReceiveMessage" and request.protocol == "json":
            found = self._received(request, found, body, fault.nth)
        return None if fault.kind == "after" else found

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> _Answer:
        connection = http.client.HTTPConnection(*self._target, timeout=_PATIENCE)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name not in _HOP | {"content-length"}:
                    connection.putheader(name, value)
            if body or method in ("POST", "PUT"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            told = connection.getresponse()
            data = told.read()
            return _Answer(told.status, told.getheaders(), data)
        finally:
            connection.close()

    def _put_records(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, nth: int
    ) -> _Answer:
        """Forward the records that do not fail, and tell of all in their order."""
        told = json.loads(body)
        records = told["Records"]
        failing = {
            place
            for place in range(len(records))
            if self.plan.draw("kinesis.PutRecords", nth, f"record {place}") < self._shares["record"]
        }
        if not failing:
            return self._forward(method, path, headers, body)
        self.rewritten["failed records"] += len(failing)
        kept = [record for place, record in enumerate(records) if place not in failing]
        done = _Answer(200, [("Content-Type", "application/x-amz-json-1.1")], b'{"Records": []}')
        if kept:
            fewer = json.dumps({**told, "Records": kept}).encode()
            done = self._forward(method, path, headers, fewer)
            if done.status != 200:
                return done
        answer = json.loads(done.body)
        results = iter(answer["Records"])
        answer["Records"] = [
            {
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": f"Rate exceeded (injected: seed {self.plan.seed}, call {nth})",
            }
            if place in failing
            else next(results)
            for place in range(len(records))
        ]
        answer["FailedRecordCount"] = int(answer.get("FailedRecordCount", 0)) + len(failing)
        return _Answer(200, done.headers, json.dumps(answer).encode())

    def _received(self, request: Request, found: _Answer, body: bytes, nth: int) -> _Answer:
        """Leave out messages that are lost, and add some that were given before."""
        if found.status != 200:
            return found
        answer = json.loads(found.body or b"{}")
        asked = json.loads(body)
        room = int(asked.get("MaxNumberOfMessages", 1))
        with self._lock:
            kept: list[dict[str, Any]] = []
            for message in answer.get("Messages", []):
                id = message["MessageId"]
                if id in self._lost or self._draws(request, nth, "lost", id):
                    self._lost.add(id)
                    self.rewritten["lost messages"] += 1
                    continue
                kept.append(message)
            given = {message["MessageId"] for message in kept}
            for id, message in list(self._seen.items()):
                if len(kept) < min(room, _MOST_MESSAGES) and id not in given:
                    del self._seen[id]
                    kept.append(message)
                    self.rewritten["duplicate messages"] += 1
            for message in kept:
                if self._draws(request, nth, "duplicate", message["MessageId"]):
                    self._seen[message["MessageId"]] = message
        if kept:
            answer["Messages"] = kept
        else:
            answer.pop("Messages", None)
        return _Answer(200, found.headers, json.dumps(answer).encode())

    def _draws(self, request: Request, nth: int, what: str, id: str) -> bool:
        share = self._shares[what]
        return share > 0 and self.plan.draw(request.name, nth, f"{what} {id}") < share


def _refused(told: Refusal) -> _Answer:
    headers = [("Content-Type", told.content_type), *told.headers.items()]
    return _Answer(told.status, headers, told.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of our trouble; everything else is shown."""
        import sys

        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _any(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            answer = self.server.proxy.answer(self.command, self.path, headers, self._body())
        except (OSError, http.client.HTTPException):
            answer = None  # the emulator is gone, as a network failure would have it
        if answer is None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(answer)

    def _send(self, answer: _Answer) -> None:
        self.send_response_only(answer.status)
        head = self.command == "HEAD"
        for name, value in answer.headers:
            skipped = name.lower() in _HOP or (name.lower() == "content-length" and not head)
            if not skipped:
                self.send_header(name, value)
        if not head and answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if not head:
            self.wfile.write(answer.body)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return bytes(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: requests are counted."""


def main() -> None:
    """Serve until Ctrl-C, then print what was asked for."""
    import click

    rates = ("throttle", "drop_before", "drop_after", "delay", "hang", "failed_records",
             "duplicates", "lost")  # fmt: skip

    def serve(target: str, seed: int | None, port: int, **shares: float) -> None:
        with FaultProxy(target, seed=seed, port=port, **shares) as proxy:  # type: ignore[arg-type]
            click.echo(f"{proxy.url} (seed {proxy.plan.seed})")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
            for name, count in sorted(proxy.requests.items()):
                click.echo(f"{count:8} {name}")

    options: list[click.Parameter] = [click.Argument(["target"])]
    options += [click.Option(["--seed"], type=int), click.Option(["--port"], type=int, default=0)]
    options += [
        click.Option([f"--{name.replace('_', '-')}"], type=click.FloatRange(0, 1), default=0.0)
        for name in rates
    ]
    click.Command("fault_proxy", params=options, callback=serve, help=main.__doc__).main()


if __name__ == "__main__":
    main()
