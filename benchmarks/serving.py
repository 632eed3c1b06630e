"""The endpoint server against FastAPI + pandas + DMatrix, a no-op ASGI app and the bare predict.

One worker each, the same client for all: a process of its own that writes prepared requests to
keep-alive sockets and reads answers by their Content-Length, so that it costs little itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import load
from ml_control.core.artifact import pack, version_of
from ml_control.core.digests import sha256
from ml_control.local.endpoints import LocalEndpoints
from ml_control.local.processes import end, identity

FEATURES, TREES, MANY = 30, 300, 1000
# Short rounds, and ratios within each: what else the machine does meets all of a round alike.
ROUNDS, SECONDS = 5, 0.4
ENOUGH = 35.0  # seconds after which no round begins
OURS, FRAME, FLOOR = "ml-control", "FastAPI + pandas", "no-op ASGI app"
ONE, ONE_8 = "one row, 1 connection", "one row, 8 connections"
MANY_1, MANY_8 = f"{MANY} rows, 1 connection", f"{MANY} rows, 8 connections"
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
    """Print p50, p99 and requests/s of each, and the ratios that are promised, in a minute."""
    x = samples()
    model = model_bytes()
    lines = [",".join(f"{v:.6f}" for v in row).encode() for row in x[:MANY]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.ubj").write_bytes(model)
        (folder / "1.csv").write_bytes(lines[0])
        (folder / "many.csv").write_bytes(b"\n".join(lines))
        with (
            _ours(folder, pack(model)) as (ours, server),
            _script(FASTAPI, str(folder / "model.ubj")) as fastapi,
            _script(NO_OP) as floor,
        ):
            ports = {OURS: ours, FRAME: fastapi, FLOOR: floor}
            for port in ports.values():
                _load(port, folder / "many.csv", 1)
            rounds: list[_Round] = []
            last = time.monotonic() + ENOUGH
            while len(rounds) < ROUNDS and (not rounds or time.monotonic() < last):
                rounds.append(_round(folder, ports, server, model, x[:MANY]))
    print(f"{TREES} trees x depth 6 x {FEATURES} features, text/csv, one worker each")
    print(f"medians of {len(rounds)} rounds of {SECONDS:g} s each, everything once a round")
    for case in rounds[0].loads:
        print(case)
        for name in rounds[0].loads[case]:
            p50, p99, rate = (
                median(one.loads[case][name][part] for one in rounds) for part in range(3)
            )
            print(f"  {name:16} p50 {p50:7.3f} ms  p99 {p99:7.3f} ms  {rate:8.0f} requests/s")
    limit = median(one.limit for one in rounds)
    print(f"in process, {MANY} rows: {limit:.0f} predictions of all rows /s")
    print("ratios, medians over the rounds (lowest to highest):")
    for case in (ONE, ONE_8):
        _ratio(f"{case}: requests/s of {FRAME}, goal 6 or more", rounds, case, FRAME, 2)
    _ratio(f"{ONE}: p50 of a {FLOOR}, goal 3 or less", rounds, ONE, FLOOR, 0)
    for case in (MANY_1, MANY_8):
        _print(
            f"{case}: rows/s of the in-process limit" + ", goal 0.7 or more" * (case == MANY_8),
            [one.loads[case][OURS][2] / one.limit for one in rounds],
        )
    _print(
        f"{MANY_8}: processor time of predict alone to the server's",
        [one.limit_cpu / one.server_cpu for one in rounds],
    )


def samples() -> Any:
    """Rows of random numbers, float32, shape (4000, FEATURES); always the same."""
    import numpy as np

    return np.random.default_rng(0).normal(size=(4000, FEATURES)).astype(np.float32)


def model_bytes() -> bytes:
    """A model trained on them, as UBJ."""
    import xgboost as xgb

    x = samples()
    y = x[:, 0] + x[:, 1] * x[:, 2] > 0
    booster = xgb.train(
        {"objective": "binary:logistic", "max_depth": 6, "nthread": 2},
        xgb.DMatrix(x, label=y),
        num_boost_round=TREES,
    )
    return bytes(booster.save_raw("ubj"))


@dataclass
class _Round:
    """Everything measured once. Loads are (p50 ms, p99 ms, requests/s) by case and server;
    the limit is the mean of a measurement before and one after the loads of many rows."""

    loads: dict[str, dict[str, tuple[float, float, float]]]
    limit: float
    limit_cpu: float  # seconds of processor time of one prediction of all rows
    server_cpu: float  # and of one request with all rows, client not counted


def _round(folder: Path, ports: dict[str, int], server: int, model: bytes, rows: object) -> _Round:
    import psutil

    def loads(file: str, connections: int, names: Iterable[str]) -> dict[str, Any]:
        return {name: _load(ports[name], folder / file, connections) for name in names}

    process = psutil.Process(server)
    result = {ONE: loads("1.csv", 1, ports), ONE_8: loads("1.csv", 8, ports)}
    before, cpu_before = _limit(model, rows)
    result[MANY_1] = loads("many.csv", 1, [OURS])
    used = sum(process.cpu_times()[:2])
    result[MANY_8] = loads("many.csv", 8, [OURS])
    used = sum(process.cpu_times()[:2]) - used
    after, cpu_after = _limit(model, rows)
    answers = result[MANY_8][OURS][2] * (SECONDS + load.WARM_UP)
    for case, connections in ((MANY_1, 1), (MANY_8, 8)):
        result[case] |= loads("many.csv", connections, [FRAME])
    return _Round(result, (before + after) / 2, (cpu_before + cpu_after) / 2, used / answers)


def _ratio(title: str, rounds: list[_Round], case: str, other: str, part: int) -> None:
    """Print ours to the other's in one case, paired by round."""
    _print(title, [one.loads[case][OURS][part] / one.loads[case][other][part] for one in rounds])


def _print(title: str, ratios: list[float]) -> None:
    print(f"  {median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})  {title}")


def _limit(model: bytes, rows: object) -> tuple[float, float]:
    """Predictions of all rows a second by ``XGBoosterPredictFromDense`` alone, in a process,
    and the processor time of one.
    """
    from ml_control.serving.predictor import Predictor

    predictor = Predictor(model)
    assert predictor.direct
    count, begin, cpu = 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - begin) < SECONDS:
        predictor.predict(rows)
        count += 1
    return count / elapsed, (time.process_time() - cpu) / count


@contextmanager
def _ours(folder: Path, archive: bytes) -> Iterator[tuple[int, int]]:
    """(port, process) of the endpoint server."""
    endpoints = LocalEndpoints(folder / "endpoints")
    version = version_of({"model.tar.gz": sha256(archive)})
    state = endpoints.deploy("bench-a", archive, version, "3.2-0", 120)
    try:
        port = int(state.url.rsplit(":", 1)[1])
        (server,) = (folder / "endpoints").rglob("server.json")
        yield port, json.loads(server.read_text())["pid"]
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


def _load(
    port: int, body: Path, connections: int, path: str = "/invocations", kind: str = "text/csv"
) -> tuple[float, float, float]:
    """(p50 ms, p99 ms, requests/s), measured by a process of its own."""
    command = [sys.executable, str(HERE / "load.py"), str(port), str(body), str(connections)]
    command += [str(SECONDS), path, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    return told["p50"], told["p99"], told["rate"]
