"""The HTTP server: a thread for each connection, on the loopback interface only."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ml_control.testing.sagemaker.application import Application, Reply
from ml_control.testing.sagemaker.refused import Dropped

HOST = "127.0.0.1"
_LARGEST = 64 << 20


class Server(ThreadingHTTPServer):
    """Serves an application from ``start`` to ``stop``."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.application: Application | None = None
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.05,), name="fake-sagemaker", daemon=True
        )

    @property
    def url(self) -> str:
        """The address."""
        return f"http://{HOST}:{self.server_address[1]}"

    def start(self, application: Application) -> None:
        """Answer from now on."""
        self.application = application
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; every connection is closed."""
        self.shutdown()
        self._thread.join()
        with self._guard:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that it can be closed."""
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A connection has ended."""
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: Server

    def do_POST(self) -> None:
        self._do()

    def do_GET(self) -> None:
        self._do()

    def _do(self) -> None:
        application = self.server.application
        assert application is not None  # noqa: S101 - it answers only once it was started
        headers = {key.lower(): value for key, value in self.headers.items()}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        else:
            body = self.rfile.read(min(int(headers.get("content-length", 0)), _LARGEST))
        try:
            reply = application.answer(self.command, self.path, headers, body)
        except Dropped:
            self.close_connection = True
            return
        except Exception as error:
            said = {"__type": "InternalFailure", "message": f"the fake failed: {error!r}"}
            kind = {"Content-Type": "application/x-amz-json-1.1"}
            reply = Reply(500, json.dumps(said).encode(), kind)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if reply.status != 204:
            self.wfile.write(reply.body)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ARG002
        return
