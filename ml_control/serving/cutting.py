"""Make a training job's raw booster the one to package: cut to its best round, saved anew.

Run as ``python -m ml_control.serving.cutting`` in a fresh process, with exactly the container's
XGBoost. It reads one JSON request from stdin, ``{"model": path, "golden": path, "best": index,
"alike": [index, ...], "output": directory}``, writes ``<output>/xgboost-model`` (UBJ; JSON before
1.6), and prints ``{"predictions": [[...]], "best": ..., "score": ... or null, "xgboost": ...}``:
the predictions of the golden rows, made before the model was saved. A failure is
``{"error": ...}`` and exit code 1. Needs only the standard library, numpy and XGBoost, of any
version from 1.5.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from ml_control.serving.lean import leave_out_unused
from ml_control.serving.proving import load, predict, read_rows

DISAGREES = "the booster was stopped for round"


def cut(request: dict[str, Any]) -> dict[str, Any]:
    """Serve one request; see the module. Raises ValueError and what XGBoost raises."""
    import numpy as np
    import xgboost

    booster = load(request["model"])
    best, kept = int(request["best"]), int(booster.num_boosted_rounds())
    # Printed values have five digits; where those are equal, the booster's own word decides.
    own = booster.attr("best_iteration")
    if own is not None:
        if int(own) not in request["alike"]:
            raise ValueError(f"{DISAGREES} {int(own)}, its log chooses {best}")
        best = int(own)
    score = booster.attr("best_score")
    if kept < best + 1:
        raise ValueError(f"the booster has {kept} rounds, the log chooses round {best}")
    if kept > best + 1:
        booster = booster[: best + 1]
    blocks = [predict(booster, rows) for rows in read_rows(request["golden"])]
    answers = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    (Path(request["output"]) / "xgboost-model").write_bytes(_saved(booster, request["output"]))
    return {
        "predictions": answers.reshape(len(answers), -1).tolist(),
        "best": best,
        "score": float(score) if own is not None and score is not None else None,
        "xgboost": xgboost.__version__,
    }


def _saved(booster: Any, folder: str) -> bytes:
    """The model as bytes that this very version of XGBoost loads again."""
    import xgboost

    if tuple(int(part) for part in xgboost.__version__.split(".")[:2]) >= (1, 6):
        return bytes(booster.save_raw("ubj"))
    draft = Path(folder) / "draft.json"  # the format follows the file's name
    booster.save_model(str(draft))
    model = draft.read_bytes()
    draft.unlink()
    return model


def main() -> int:
    """Serve the one request on stdin; the exit status."""
    answer = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):  # XGBoost prints its warnings to stdout
            report = cut(json.load(sys.stdin))
    except Exception as error:  # whatever the loader says, the caller gets its words
        words = f"{error}".split("Stack trace")[0].strip() or type(error).__name__
        answer.write(json.dumps({"error": words[:2000]}) + "\n")
        return 1
    answer.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    leave_out_unused()
    sys.exit(main())
