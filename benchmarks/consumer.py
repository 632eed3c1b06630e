"""The stream's consumer against one written by hand, and against decoding and predicting alone.

All work on the same batches of JSON records, in one process unless said otherwise. By hand: one
record after the other through ``json``, numpy, ``DMatrix`` and ``predict``, its result appended to
a file. Alone: from the records' JSON to a matrix and XGBoost's C function, half of the rows for
each of the two models; nothing is checked, routed, kept or answered. The JSON is read as any JSON
(orjson), and, for a stricter measure, in one typed reading (msgspec), the fastest that we know.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving import FEATURES, TREES, model_bytes
from ml_control.core.artifact import pack, version_of
from ml_control.core.digests import sha256
from ml_control.core.features import FeatureSpec
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Rollout, Variant
from ml_control.local.endpoints import LocalEndpoints
from ml_control.platform import Platform, open_platform
from ml_control.ports import Reply, StreamRecord
from ml_control.services.traffic.consumer import consume_batch
from ml_control.serving.columns import COLUMNS
from ml_control.serving.handlers.records import answer_records
from ml_control.serving.handlers.steps import Served, Snapshot
from ml_control.serving.invocations import render
from ml_control.serving.recordio import parse_recordio
from ml_control.settings import load_settings
from ml_control.spec import PipelineSpec

NAME, BATCH, SHARE = "bench", 500, 0.5
ROUNDS, SECONDS = 5, 0.5
HAND, ALONE, TYPED = "by hand", "decode + predict alone", "typed decode + predict alone"
LOGIC = "consumer, no stream and no log"
WHOLE = "consumer, durable log and stream"
HTTP = "the same, endpoints over HTTP"


def main() -> None:
    """Print records/s of each and the ratios that are promised."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_bytes()
        archive = pack(model)
        endpoints = LocalEndpoints(folder / "endpoints")
        version = version_of({"model.tar.gz": sha256(archive)})
        for variant in "ab":
            endpoints.deploy(f"{NAME}-{variant}", archive, version, "3.2-0", 120)
        try:
            rounds = _measure(folder, model, archive, endpoints)
        finally:
            for variant in "ab":
                endpoints.stop(f"{NAME}-{variant}")
    print(f"{BATCH} records a batch, {FEATURES} features, {TREES} trees x depth 6, two variants")
    for case in rounds[0]:
        wall, cpu = (median(one[case][part] for one in rounds) for part in range(2))
        print(f"  {case:34} {wall:9,.0f} records/s  {1e6 * cpu:7.2f} us of processor a record")
    print("ratios, medians over the rounds (lowest to highest):")
    _ratio("records/s to by hand, goal 30 or more", rounds, (LOGIC, WHOLE, HTTP), HAND, 0)
    _ratio("records/s to alone, goal 0.7 or more", rounds, (LOGIC, WHOLE, HTTP), ALONE, 0)
    _ratio("processor time of alone to it", rounds, (LOGIC, WHOLE), ALONE, 1)
    _ratio("processor time of alone, typed, to it", rounds, (LOGIC, WHOLE), TYPED, 1)


Rates = dict[str, tuple[float, float]]  # (records/s, processor seconds a record) by case


def _measure(folder: Path, model: bytes, archive: bytes, endpoints: LocalEndpoints) -> list[Rates]:
    from ml_control.serving.predictor import Predictor

    features = _features()
    datas = _datas()
    predictors = {variant: Predictor(model) for variant in "ab"}
    snapshot = _snapshot(features, sha256(archive))
    records = [StreamRecord(NAME, f"user-{i}", data, i + 1) for i, data in enumerate(datas)]

    def ask(served: Served, body: bytes) -> Reply:
        rows = parse_recordio(body, FEATURES)
        return Reply(*_plain(render(predictors[served.variant].predict(rows), "text/csv")))

    def logic() -> int:
        return len(answer_records(records, snapshot, ask, COLUMNS).predictions)

    with (folder / "results.jsonl").open("ab", buffering=0) as results:
        hand = _by_hand(model, datas, results)
        half = BATCH // 2

        def predict(rows: Any) -> int:
            parts = predictors["a"].predict(rows[:half]), predictors["b"].predict(rows[half:])
            return sum(map(len, parts))

        alone, typed = _alone(predict, datas), _typed(predict, features, datas)
        whole = _consumer(folder / "in-process", _InProcess(ask, snapshot), snapshot, datas)
        http = _consumer(folder / "http", endpoints, snapshot, datas)
        cases: dict[str, Callable[[], int]] = {
            HAND: hand, ALONE: alone, TYPED: typed, LOGIC: logic, WHOLE: whole, HTTP: http,
        }  # fmt: skip
        for case in cases.values():
            assert case() == BATCH
        return [{name: _rate(case) for name, case in cases.items()} for _ in range(ROUNDS)]


def _by_hand(model: bytes, datas: list[bytes], results: Any) -> Callable[[], int]:
    import numpy as np
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(model))
    booster.set_param({"nthread": 1})
    names = [f"x{i}" for i in range(FEATURES)]

    def run() -> int:
        for data in datas:
            body = json.loads(data)
            row = np.array([[body["record"][name] for name in names]], np.float32)
            score = float(booster.predict(xgboost.DMatrix(row, nthread=1))[0])
            line = {"entity": body["entity_id"], "label": "yes" if score >= 0.5 else "no"}
            results.write(json.dumps({**line, "score": score}).encode() + b"\n")
        return len(datas)

    return run


def _alone(predict: Callable[[Any], int], datas: list[bytes]) -> Callable[[], int]:
    from itertools import chain
    from operator import itemgetter

    import numpy as np
    import orjson

    values = itemgetter(*(f"x{i}" for i in range(FEATURES)))

    def run() -> int:
        rows = [values(orjson.loads(data)["record"]) for data in datas]
        flat = np.fromiter(chain.from_iterable(rows), np.float32, len(rows) * FEATURES)
        return predict(flat.reshape(len(rows), FEATURES))

    return run


def _typed(
    predict: Callable[[Any], int], features: FeatureSpec, datas: list[bytes]
) -> Callable[[], int]:
    import msgspec
    import numpy as np

    record = msgspec.defstruct("Record", [(one.name, float) for one in features.features])
    whole = msgspec.defstruct("Whole", [("record", record), ("entity_id", str)])
    decode, values = msgspec.json.Decoder(whole).decode, msgspec.structs.astuple

    def run() -> int:
        rows = [values(decode(data).record) for data in datas]  # type: ignore[attr-defined]
        return predict(np.array(rows, np.float32))

    return run


def _consumer(
    home: Path, endpoints: Any, snapshot: Snapshot, datas: list[bytes]
) -> Callable[[], int]:
    """Consumes a batch that was put before the clock starts."""
    settings = load_settings(home, home / "pipelines")
    platform: Platform = replace(open_platform(settings), endpoints=endpoints)
    pipeline = Pipeline(spec=_spec())
    fresh = iter(range(10**9))

    class Snapshots:
        def read(self, _: Pipeline) -> Snapshot:
            platform.registry.rollouts.get(NAME)  # what reading the real one costs
            return snapshot

    def put() -> None:
        batch = next(fresh)
        platform.stream.put(
            [StreamRecord(NAME, f"user-{batch}-{i}", data) for i, data in enumerate(datas)]
        )

    def run() -> int:
        return consume_batch(platform, pipeline, BATCH, Snapshots()).done  # type: ignore[arg-type]

    run.prepare = put  # type: ignore[attr-defined]
    put()
    return run


class _InProcess:
    """Endpoints without HTTP: what the server does with a body, in this process."""

    def __init__(self, ask: Callable[[Served, bytes], Reply], snapshot: Snapshot) -> None:
        self._ask = ask
        self._served = {one.endpoint: one for one in snapshot.variants.values()}

    def invoke(self, name: str, body: bytes, *_: str, **__: str) -> Reply:
        return self._ask(self._served[name], body)


def _rate(case: Callable[[], int]) -> tuple[float, float]:
    """(records/s, processor seconds a record of this process), preparation not counted."""
    prepare = getattr(case, "prepare", None)
    done, wall, cpu = 0, 0.0, 0.0
    while wall < SECONDS:
        if prepare is not None:
            prepare()
        began, used = time.perf_counter(), time.process_time()
        done += case()
        wall += time.perf_counter() - began
        cpu += time.process_time() - used
    return done / wall, cpu / done


def _ratio(title: str, rounds: list[Rates], cases: tuple[str, ...], other: str, part: int) -> None:
    print(f"  {title}")
    for case in cases:
        ratios = [one[case][part] / one[other][part] for one in rounds]
        if part == 1:
            ratios = [1 / ratio for ratio in ratios]
        low, high = min(ratios), max(ratios)
        print(f"    {median(ratios):7.2f} ({low:.2f} to {high:.2f})  {case}")


def _plain(rendered: tuple[int, str, bytes]) -> tuple[int, bytes, str]:
    status, kind, body = rendered
    return status, body, kind


def _datas() -> list[bytes]:
    import numpy as np

    values = np.random.default_rng(0).normal(size=(BATCH, FEATURES)).round(6).tolist()
    return [
        json.dumps(
            {"entity_id": f"user-{i}", "record": {f"x{j}": v for j, v in enumerate(row)}}
        ).encode()
        for i, row in enumerate(values)
    ]


def _features() -> FeatureSpec:
    columns = [{"kind": "number", "name": f"x{i}"} for i in range(FEATURES)]
    return FeatureSpec.model_validate(
        {"task": "binary", "labels": ("no", "yes"), "features": columns}
    )


def _spec() -> PipelineSpec:
    columns = [{"name": f"x{i}", "type": "number"} for i in range(FEATURES)]
    return PipelineSpec.model_validate(
        {
            "name": NAME,
            "source": {"format": "csv", "partition": {"by": "day", "start": "2026-01-01"}},
            "columns": {"target": "y", "task": "binary", "positive": "yes", "features": columns},
        }
    )


def _snapshot(features: FeatureSpec, archive: str) -> Snapshot:
    """An experiment in progress: half of the entities for each of two variants."""
    entries = {
        name: Variant(
            endpoint=f"{NAME}-{name}", model_version=name * 64, verdict="", proven_live_at=0.0
        )
        for name in "ab"
    }
    rollout = Rollout(
        pipeline=NAME,
        id=f"{NAME}-1",
        champion="a" * 64,
        variants=entries,
        weights={"a": 1 - SHARE, "b": SHARE},
        state="in_progress",
        phase="experiment",
        challenger="b",
    )
    served = {
        name: Served(name, entry.endpoint, entry.model_version, archive, features)
        for name, entry in entries.items()
    }
    return Snapshot(NAME, "binary", _spec().log, rollout, served)


if __name__ == "__main__":
    main()
