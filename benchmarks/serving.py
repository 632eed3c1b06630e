"""The endpoint server against a no-op ASGI app: one row, one connection, one worker each."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ml_control.core.artifact import pack, version_of
from ml_control.core.digests import sha256
from ml_control.local.endpoints import LocalEndpoints
from ml_control.local.processes import end, identity

REQUESTS, FEATURES, TREES = 2000, 30, 300

_NO_OP = """
import socket, sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] != "http": return
    while (await receive()).get("more_body"): pass
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"0.5\\n"})
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0)); listener.listen()
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off")).run(sockets=[listener])
"""


def main() -> None:
    """Print p50 and p99 of both and their ratio."""
    import numpy as np
    import xgboost as xgb

    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, FEATURES)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(np.float32)
    booster = xgb.train(
        {"objective": "binary:logistic", "max_depth": 6, "nthread": 2},
        xgb.DMatrix(x, label=y),
        num_boost_round=TREES,
    )
    row = ",".join(f"{v:.6f}" for v in x[0]).encode()
    archive = pack(bytes(booster.save_raw("ubj")))
    with tempfile.TemporaryDirectory() as folder:
        endpoints = LocalEndpoints(Path(folder))
        version = version_of({"model.tar.gz": sha256(archive)})
        state = endpoints.deploy("bench-a", archive, version, "3.2-0", 120)
        try:
            ours = _measure(int(state.url.rsplit(":", 1)[1]), row)
        finally:
            endpoints.stop("bench-a")
    process = subprocess.Popen([sys.executable, "-c", _NO_OP], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        floor = _measure(int(process.stdout.readline()), row)
    finally:
        end(process.pid, identity(process.pid))
        process.wait()
    for name, (p50, p99) in {"endpoint server": ours, "no-op ASGI app": floor}.items():
        print(f"{name:16} p50 {1000 * p50:6.3f} ms  p99 {1000 * p99:6.3f} ms  {1 / p50:7.0f} /s")
    print(f"p50 ratio {ours[0] / floor[0]:.2f} ({TREES} trees, {FEATURES} features, one row)")


def _measure(port: int, row: bytes) -> tuple[float, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    times = []
    for i in range(REQUESTS + 200):
        start = time.perf_counter()
        connection.request("POST", "/invocations", row, {"content-type": "text/csv"})
        reply = connection.getresponse()
        body = reply.read()
        if i >= 200:  # the first requests warm both sides up
            times.append(time.perf_counter() - start)
        assert reply.status == 200, body
    connection.close()
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.99)]
