"""The endpoint server against FastAPI + pandas + DMatrix, a no-op ASGI app and the bare predict.

One worker each, the same client for all: a process of its own that writes prepared requests to
keep-alive sockets and reads answers by their Content-Length, so that it costs little itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_control.core.artifact import pack, version_of
from ml_control.core.digests import sha256
from ml_control.local.endpoints import LocalEndpoints
from ml_control.local.processes import end, identity

FEATURES, TREES, MANY = 30, 300, 1000
SECONDS = 3.0
HERE = Path(__file__).parent

_LISTEN = """
import socket, sys, uvicorn
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0)); listener.listen(100)
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off")).run(sockets=[listener])
"""

NO_OP = (
    """
async def app(scope, receive, send):
    while (await receive()).get("more_body"): pass
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"0.5\\n"})
"""
    + _LISTEN
)

FASTAPI = (
    """
import io, sys
import pandas as pd, xgboost as xgb
from fastapi import FastAPI, Request, Response
booster = xgb.Booster({"nthread": 1}); booster.load_model(sys.argv[1])
app = FastAPI()
@app.post("/invocations")
async def invocations(request: Request):
    frame = pd.read_csv(io.BytesIO(await request.body()), header=None)
    answer = booster.predict(xgb.DMatrix(frame), validate_features=False)
    return Response("\\n".join(map(str, answer.tolist())) + "\\n", media_type="text/csv")
"""
    + _LISTEN
)


def main() -> None:
    """Print p50, p99 and requests/s of each, and the ratios that are promised."""
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
    model = bytes(booster.save_raw("ubj"))
    lines = [",".join(f"{v:.6f}" for v in row).encode() for row in x[:MANY]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.ubj").write_bytes(model)
        (folder / "1.csv").write_bytes(lines[0])
        (folder / "many.csv").write_bytes(b"\n".join(lines))
        limit = _limit(model, x[:MANY])
        with (
            _ours(folder, pack(model)) as ours,
            _script(FASTAPI, str(folder / "model.ubj")) as fastapi,
            _script(NO_OP) as floor,
        ):
            ports = {"ml-control": ours, "FastAPI + pandas": fastapi, "no-op ASGI app": floor}
            one = {name: _load(port, folder / "1.csv", 1) for name, port in ports.items()}
            eight = {name: _load(port, folder / "1.csv", 8) for name, port in ports.items()}
            many = {name: _load(port, folder / "many.csv", 1) for name, port in ports.items()}
            again = _limit(model, x[:MANY])
    print(f"{TREES} trees x depth 6 x {FEATURES} features, text/csv, one worker each")
    for title, table in {
        "one row, 1 connection": one,
        "one row, 8 connections": eight,
        f"{MANY} rows, 1 connection": many,
    }.items():
        print(title)
        for name, (p50, p99, rate) in table.items():
            print(f"  {name:16} p50 {p50:7.3f} ms  p99 {p99:7.3f} ms  {rate:8.0f} requests/s")
    most = max(limit, again)
    print(f"in process, {MANY} rows: {most:.0f} predictions of all rows /s ({limit:.0f} before)")
    name, other, nothing = ports
    print(
        f"requests/s against FastAPI + pandas + DMatrix: {one[name][2] / one[other][2]:.1f} with "
        f"1 connection, {eight[name][2] / eight[other][2]:.1f} with 8 (goal 6 or more)"
    )
    print(f"p50 against a no-op app: {one[name][0] / one[nothing][0]:.2f} (goal 3 or less)")
    print(f"{MANY} rows against the in-process limit: {many[name][2] / most:.0%} (goal 70%)")


def _limit(model: bytes, rows: object) -> float:
    """Predictions of all rows a second by ``XGBoosterPredictFromDense`` alone, in a process."""
    import time

    from ml_control.serving.predictor import Predictor

    predictor = Predictor(model)
    assert predictor.direct
    count, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < SECONDS:
        predictor.predict(rows)
        count += 1
    return count / elapsed


@contextmanager
def _ours(folder: Path, archive: bytes) -> Iterator[int]:
    endpoints = LocalEndpoints(folder / "endpoints")
    version = version_of({"model.tar.gz": sha256(archive)})
    state = endpoints.deploy("bench-a", archive, version, "3.2-0", 120)
    try:
        yield int(state.url.rsplit(":", 1)[1])
    finally:
        endpoints.stop("bench-a")


@contextmanager
def _script(source: str, *arguments: str) -> Iterator[int]:
    command = [sys.executable, "-c", source, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        end(process.pid, identity(process.pid))
        process.wait()


def _load(port: int, body: Path, connections: int) -> tuple[float, float, float]:
    """(p50 ms, p99 ms, requests/s), measured by a process of its own."""
    command = [sys.executable, str(HERE / "load.py"), str(port), str(body), str(connections)]
    done = subprocess.run([*command, str(SECONDS)], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    return told["p50"], told["p99"], told["rate"]
