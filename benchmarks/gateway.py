"""The gateway against its endpoint server, FastAPI + pandas + DMatrix, and the work in one process.

The same client for all, a process of its own. The gateway does all that it promises: assignment,
strict JSON, the model's own encoding, and a durable log before each answer; FastAPI does none of
the first two and logs nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import yaml

from benchmarks.load import WARM_UP
from benchmarks.serving import _LISTEN, _load, _print, _script
from ml_control.platform import Platform, open_platform
from ml_control.settings import load_settings

FEATURES, TREES, ROWS, MANY = 30, 300, 1000, 1000
ROUNDS, SECONDS = 5, 0.4
NAME = "shop"
ONE, MANY_8 = "one record, 1 connection", f"{MANY} records, 8 connections"
ONE_8, ONE_32 = "one record, 8 connections", "one record, 32 connections"
FASTAPI = (
    """
import json, sys
import pandas as pd, xgboost as xgb
from fastapi import FastAPI, Request
booster = xgb.Booster({"nthread": 1}); booster.load_model(sys.argv[1])
columns = json.loads(sys.argv[2])
app = FastAPI()
@app.post("/inference/shop")
async def infer(request: Request):
    body = await request.json()
    frame = pd.DataFrame(body["records"], columns=columns)
    scores = booster.predict(xgb.DMatrix(frame), validate_features=False).tolist()
    return {"request_id": "r", "variant": "a", "model_version": "v", "predictions": [
        {"label": "yes" if s >= 0.5 else "no", "score": s,
         "probabilities": {"no": 1 - s, "yes": s}} for s in scores]}
"""
    + _LISTEN
)


def main() -> None:
    """Print the rates of all, and the ratios that are promised, in about a minute."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        platform = deployed(root)
        features, model, records = _parts(platform)
        (root / "1.json").write_text(json.dumps({"records": records[:1], "entity_id": "e-1"}))
        (root / "many.json").write_text(json.dumps({"records": records}))
        (root / "model.ubj").write_bytes(model)
        rows = [",".join(f"{v:.6f}" for v in record.values()) for record in records]
        (root / "1.csv").write_text(rows[0])
        columns = json.dumps(list(records[0]))
        (file,) = (root / "home" / "endpoints").glob("*/*/server.json")
        server = json.loads(file.read_text())
        endpoint = _Server(server["port"], server["pid"])
        with (
            gateway(root) as ours,
            _script(FASTAPI, str(root / "model.ubj"), columns) as fastapi,
        ):
            rival = _Server(fastapi, 0)
            found = [
                _round(root, ours, endpoint, rival, features, model) for _ in range(ROUNDS + 1)
            ][1:]
        subprocess.run(_command(root, "down"), check=True, stdout=subprocess.DEVNULL)
    print(
        f"{TREES} trees x depth 6 x {FEATURES} features; medians of {ROUNDS} rounds of {SECONDS} s"
    )
    for case in found[0]:
        if not case.startswith("CPU"):
            cpu = median(one[f"CPU {case}"] for one in found)
            shown = f"{cpu:8.0f} us of its processor" if cpu else ""
            print(f"  {case:28} {median(one[case] for one in found):8.0f} /s {shown}")
    for case, other, goal in (
        (ONE_32, "endpoint 32", 0.4),  # as many as fill a commit; with fewer its time is waited for
        (ONE_8, "endpoint 8", 0.0),
        (ONE_8, "FastAPI 8", 3.0),
        (MANY_8, "in process", 0.5),
        (MANY_8, "FastAPI many", 0.0),
    ):
        title = f"{case}: rate to that of {other}" + (f", goal {goal:g} or more" if goal else "")
        _print(title, [one[case] / one[other] for one in found])
    print("with a core for each process, by processor time:")
    _print(
        f"{ONE_32}: endpoint's own to the gateway's",
        [one["CPU endpoint 32"] / one[f"CPU {ONE_32}"] for one in found],
    )
    _print(
        f"{MANY_8}: in process to the slower of gateway and endpoint",
        [
            one["CPU in process"] / max(one[f"CPU {MANY_8}"], one[f"CPU behind {MANY_8}"])
            for one in found
        ],
    )


@dataclass(frozen=True)
class _Server:
    """A server under load, and its process."""

    port: int
    pid: int

    @property
    def used(self) -> float:
        """Seconds of processor time that it has used."""
        return sum(psutil.Process(self.pid).cpu_times()[:2]) if self.pid else 0.0


def _round(
    root: Path, ours: _Server, endpoint: _Server, rival: _Server, features: Any, model: bytes
) -> dict[str, float]:
    """Requests a second, by case; and under ``CPU`` microseconds of processor time of each."""
    path, found = f"/inference/{NAME}", dict[str, float]()

    def load(case: str, at: _Server, file: str, connections: int) -> None:
        csv = file.endswith("csv")
        to, kind = ("/invocations", "text/csv") if csv else (path, "application/json")
        before = at.used, endpoint.used
        found[case] = _load(at.port, root / file, connections, to, kind)[2]
        count = found[case] * (SECONDS + WARM_UP)
        found[f"CPU {case}"] = (at.used - before[0]) / count * 1e6
        found[f"CPU behind {case}"] = (endpoint.used - before[1]) / count * 1e6

    load(ONE, ours, "1.json", 1)
    load("endpoint 1", endpoint, "1.csv", 1)
    for case, connections in ((ONE_8, 8), (ONE_32, 32)):
        load(case, ours, "1.json", connections)
        load(f"endpoint {connections}", endpoint, "1.csv", connections)
    load("FastAPI 8", rival, "1.json", 8)
    load(MANY_8, ours, "many.json", 8)
    found["in process"], found["CPU in process"] = _limit(root / "many.json", features, model)
    load("FastAPI many", rival, "many.json", 8)
    return found


def _limit(file: Path, features: Any, model: bytes) -> tuple[float, float]:
    """Bodies a second by the same functions in one process: no HTTP, no endpoint, no log; and
    microseconds of processor time of each.
    """
    import orjson

    from ml_control.core.batch import encode_records
    from ml_control.gateway.codec import BatchCodec
    from ml_control.serving.handlers.bodies import Inference, decode
    from ml_control.serving.predictor import Predictor

    body, predictor, codec = file.read_bytes(), Predictor(model), BatchCodec()
    count, begin, used = 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - begin) < SECONDS:
        request = decode(Inference, body)
        scores = predictor.predict(encode_records(features, request.records))
        text = b"\n".join(map(repr_bytes, scores.tolist()))
        orjson.dumps({"predictions": codec.decode(features, len(request.records), text)})
        count += 1
    return count / elapsed, (time.process_time() - used) / count * 1e6


def repr_bytes(value: float) -> bytes:
    """A number as the endpoint writes it."""
    return repr(value).encode()


def deployed(root: Path) -> Platform:
    """A home with one live model of this size, made by the ordinary commands."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).round(6)
    bought = x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=ROWS) / 2 > 0
    lines = [",".join([*(f"x{i}" for i in range(FEATURES)), "bought"])]
    lines += [
        ",".join([*map(str, row), "yes" if yes else "no"])
        for row, yes in zip(x.tolist(), bought, strict=True)
    ]
    day = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    data = root / "home" / "landing" / NAME / f"dt={day}" / "shop.csv"
    data.parent.mkdir(parents=True)
    data.write_text("\n".join(lines) + "\n")
    folder = root / "pipelines" / NAME
    init = ["init", str(folder), "--from", str(data), "--target", "bought"]
    subprocess.run(_command(root, *init), check=True, stdout=subprocess.DEVNULL)
    file = folder / "defs.yaml"
    document = yaml.safe_load(file.read_text("utf-8"))
    training = document["attributes"].setdefault("training", {})
    training["hyperparameters"] = {"num_round": TREES, "max_depth": 6, "eta": 0.1}
    training["early_stopping_rounds"] = None
    document["attributes"]["gates"] = {"metrics": {"auc": {"min": 0.5}}}
    file.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    subprocess.run(_command(root, "run", NAME), check=True, stdout=subprocess.DEVNULL)
    return open_platform(load_settings(root / "home", root / "pipelines"))


def _parts(platform: Platform) -> tuple[Any, bytes, list[dict[str, float]]]:
    """The live model's encoding, its booster, and records."""
    import numpy as np

    from ml_control.core.artifact import unpack
    from ml_control.core.containers import container
    from ml_control.core.features import FeatureSpec

    version = platform.registry.rollouts.get(NAME).champion
    assert version is not None
    model = platform.registry.models.get(NAME, version)
    features = FeatureSpec.model_validate_json(platform.lake.get(f"{model.prefix}/features.json"))
    archive = platform.lake.get(f"{model.prefix}/model.tar.gz")
    values = np.random.default_rng(1).normal(size=(MANY, FEATURES)).round(6).tolist()
    records = [{f"x{i}": value for i, value in enumerate(row)} for row in values]
    return features, unpack(archive, container(model.container)), records


@contextmanager
def gateway(root: Path) -> Iterator[_Server]:
    """The gateway's process on this home."""
    from ml_control.cli.supervisor import answers, free_port

    port = free_port()
    command = [sys.executable, "-m", "ml_control.gateway", "--port", str(port)]
    process = subprocess.Popen(command, env=_environment(root), stderr=subprocess.DEVNULL)
    try:
        while not answers(f"http://127.0.0.1:{port}"):
            assert process.poll() is None
            time.sleep(0.05)
        yield _Server(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _environment(root: Path) -> dict[str, str]:
    home = {"ML_CONTROL_HOME": str(root / "home"), "ML_CONTROL_PIPELINES": str(root / "pipelines")}
    return {**os.environ, **home}


def _command(root: Path, *arguments: str) -> list[str]:
    options = ["--home", str(root / "home"), "--pipelines", str(root / "pipelines")]
    return [sys.executable, "-m", "ml_control", *options, *arguments]


if __name__ == "__main__":
    main()
