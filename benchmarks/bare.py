"""The rival of ``run`` and ``landing``: one script that does the same work for one CSV, by hand.

Read, Great Expectations, split, train in a subprocess, evaluate, package, load the package in a
fresh process and compare its answers. It keeps no record, refuses nothing and serves nothing.

Run as ``python -m benchmarks.bare DATA.csv SUITE.json TARGET POSITIVE FOLDER``.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

TRAIN = """
import sys, numpy as np, xgboost as xgb
data = np.load(sys.argv[1])
train = xgb.DMatrix(data["x_train"], label=data["y_train"])
validation = xgb.DMatrix(data["x_validation"], label=data["y_validation"])
booster = xgb.train(
    {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1}, train, num_boost_round=200,
    evals=[(train, "train"), (validation, "validation")], early_stopping_rounds=20,
    verbose_eval=False,
)
booster = booster[: booster.best_iteration + 1]
booster.save_model(sys.argv[2])
np.save(sys.argv[3], booster.predict(xgb.DMatrix(data["x_test"])))
"""
LOAD = """
import sys, tarfile, numpy as np, xgboost as xgb
with tarfile.open(sys.argv[1]) as archive:
    model = archive.extractfile("xgboost-model").read()
booster = xgb.Booster()
booster.load_model(bytearray(model))
answers = booster.predict(xgb.DMatrix(np.load(sys.argv[2])["x_test"]))
assert np.allclose(answers, np.load(sys.argv[3]), atol=1e-6)
"""


def main() -> None:
    """Do the work and print how long each step took."""
    data, suite, target, positive, place = sys.argv[1:6]
    folder = Path(place)
    times = {}
    start = time.perf_counter()

    def step(name: str) -> None:
        nonlocal start
        times[name] = round(time.perf_counter() - start, 2)
        start = time.perf_counter()

    import numpy as np
    import pandas as pd

    frame = pd.read_csv(data)
    step("read")
    _expect(frame, json.loads(Path(suite).read_text("utf-8")))
    step("expectations")
    from sklearn.model_selection import train_test_split

    x = frame.drop(columns=target).to_numpy(np.float32)
    y = (frame[target] == positive).to_numpy(np.float32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
    x, x_validation, y, y_validation = train_test_split(x, y, test_size=0.125, random_state=0)
    np.savez(
        folder / "data.npz",
        x_train=x,
        y_train=y,
        x_test=x_test,
        x_validation=x_validation,
        y_validation=y_validation,
    )
    step("split")
    files = [str(folder / name) for name in ("data.npz", "model.ubj", "answers.npy")]
    subprocess.run([sys.executable, "-c", TRAIN, *files], check=True)
    step("train in a subprocess")
    from sklearn.metrics import roc_auc_score

    auc = roc_auc_score(y_test, np.load(folder / "answers.npy"))
    step("evaluate")
    model = (folder / "model.ubj").read_bytes()
    entry = tarfile.TarInfo("xgboost-model")
    entry.size = len(model)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        archive.addfile(entry, io.BytesIO(model))
    files = [str(folder / name) for name in ("model.tar.gz", "data.npz", "answers.npy")]
    subprocess.run([sys.executable, "-c", LOAD, *files], check=True)
    step("package, load, compare")
    print(json.dumps({"auc": round(float(auc), 4), "steps": times}))


def _expect(frame: object, suite: dict[str, object]) -> None:
    import great_expectations as gx
    from great_expectations.expectations.registry import get_expectation_impl

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("bare").add_dataframe_asset(name="bare")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    expectations = [get_expectation_impl(e["type"])(**e["kwargs"]) for e in suite["expectations"]]
    assert batch.validate(gx.ExpectationSuite(name="bare", expectations=expectations)).success


if __name__ == "__main__":
    main()
