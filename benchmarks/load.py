"""A small HTTP load generator: ``python load.py PORT FILE CONNECTIONS SECONDS [PATH TYPE]``.

Each connection is kept alive and has one request in flight. Prints p50 and p99 in milliseconds
and requests a second as JSON.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from pathlib import Path

WARM_UP = 0.1


def main(
    port: int,
    file: str,
    connections: int,
    seconds: float,
    path: str = "/invocations",
    kind: str = "text/csv",
) -> None:
    """Run the load and print what was measured. Fails on any answer but 200."""
    body = Path(file).read_bytes()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    request = head.encode() + f"Content-Type: {kind}\r\n\r\n".encode() + body
    waiting = selectors.DefaultSelector()
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request)
        waiting.register(connection, selectors.EVENT_READ, [b"", time.perf_counter()])
    times: list[float] = []
    begin = time.perf_counter() + WARM_UP
    while (now := time.perf_counter()) < begin + seconds or not times:
        for key, _ in waiting.select():
            connection, state = key.fileobj, key.data
            assert isinstance(connection, socket.socket)
            state[0] += connection.recv(1 << 18)
            if not whole(state[0]):
                continue
            now = time.perf_counter()
            if now >= begin:
                times.append(now - state[1])
            state[:] = [b"", now]
            connection.sendall(request)
    times.sort()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(json.dumps({"p50": p50 * 1e3, "p99": p99 * 1e3, "rate": len(times) / (now - begin)}))


def whole(answer: bytes) -> bool:
    """Whether an answer has arrived to its end."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    assert head.startswith(b"HTTP/1.1 200"), answer[:300]
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return len(body) == int(length)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), *sys.argv[5:])
