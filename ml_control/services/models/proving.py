"""Replay rows through a model in a fresh process with its container's exact XGBoost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_control
from ml_control.core.artifact import MODEL_FILE
from ml_control.core.containers import Container
from ml_control.environments import python_for
from ml_control.errors import InvalidSpec, NotProven, PlatformFailed

if TYPE_CHECKING:
    import numpy as np

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
_KEPT = ("LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")


@dataclass
class Replay:
    """What a model answered: float32 predictions by input, (n,) or (n, classes)."""

    predictions: dict[str, np.ndarray]
    xgboost: str
    num_features: int
    latency_p99_ms: float  # of one row at a time, in process
    seconds: float
    latency_p50_ms: float = 0.0
    latency_cpu_p99_ms: float = 0.0  # the processor's own time of the same
    contributions: np.ndarray | None = None  # (n, columns + 1) or (n, classes, columns + 1)
    contributions_rows: np.ndarray | None = None  # the encoded rows that these are of
    not_explained: str = ""  # why there are no contributions though asked for


def replay(
    model: bytes,
    container: Container,
    inputs: Mapping[str, Path],
    timeout: float = 120,
    explain: str | None = None,
) -> Replay:
    """Load a model in the container's XGBoost and predict CSV files of feature rows.

    Inputs have no header and no label; an empty cell is missing. Nothing of our environment but
    the search path of shared libraries reaches the process, and its directory is removed. With
    ``explain``, a sample of that input's rows is explained by contributions (SHAP values).

    Raises ``NotProven`` with the loader's own words when the model does not load or predict, and
    when it takes longer than ``timeout`` seconds; ``InvalidSpec`` for an unusable input name;
    ``PlatformFailed`` when the container's environment cannot be built or is not what it must be.
    """
    for name in inputs:
        if not _NAME.match(name):
            raise InvalidSpec(f"input {name!r}", "is not a plain name", "use letters and digits")
    python = python_for(container)
    with tempfile.TemporaryDirectory(prefix="ml-control-replay-") as folder:
        work = Path(folder)
        (work / MODEL_FILE).write_bytes(model)
        request = {
            "model": str(work / MODEL_FILE),
            "inputs": {name: str(Path(path).absolute()) for name, path in inputs.items()},
            "output": folder,
            "explain": explain,
        }
        answer = _ask(python, container, request, work, timeout)
        return _read(answer, container, inputs, work)


def _ask(
    python: Path, container: Container, request: dict[str, Any], work: Path, timeout: float
) -> dict[str, Any]:
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    environment |= {"PATH": os.defpath, "HOME": str(work), "TMPDIR": str(work)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1"}
    if python == Path(sys.executable):  # an isolated environment has its own link to the package
        environment["PYTHONPATH"] = str(Path(ml_control.__file__).resolve().parent.parent)
    try:
        done = subprocess.run(
            [str(python), "-P", "-m", "ml_control.serving.proving"],
            input=json.dumps(request).encode(),
            cwd=work,
            env=environment,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotProven(
            MODEL_FILE,
            f"did not answer within {timeout:g} s in XGBoost {container.xgboost}",
            "allow more time, or replay fewer rows",
            stage="timeout",
        ) from error
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        answer = {}
    if done.returncode == 0 and "xgboost" in answer:
        return dict(answer)
    said = str(answer.get("error") or done.stderr.decode("utf-8", "replace").strip()[-1000:])
    how = "does not load" if answer.get("stage", "load") == "load" else "does not predict"
    ended = f" (the process ended with signal {-done.returncode})" if done.returncode < 0 else ""
    raise NotProven(
        MODEL_FILE,
        f"{how} in XGBoost {container.xgboost}: {said or 'no word from the process'}{ended}",
        f"save the model with XGBoost {container.xgboost} and pack it again",
        stage=answer.get("stage", "crash"),
        signal=max(0, -done.returncode),
    )


def _read(
    answer: dict[str, Any], container: Container, inputs: Mapping[str, Path], work: Path
) -> Replay:
    import numpy as np

    if answer["xgboost"] != container.xgboost:
        raise PlatformFailed(
            f"environment of container {container.tag}",
            f"has XGBoost {answer['xgboost']}, not {container.xgboost}",
            "remove it from the cache so that it is built again",
        )
    contributions = rows = None
    if answer.get("explained"):
        contributions = np.load(work / "contributions.npy", allow_pickle=False)
        rows = np.load(work / "contributions_rows.npy", allow_pickle=False)
    return Replay(
        {name: np.load(work / f"{name}.npy", allow_pickle=False) for name in inputs},
        answer["xgboost"],
        int(answer["num_features"]),
        float(answer["latency_p99_ms"]),
        float(answer["seconds"]),
        float(answer["latency_p50_ms"]),
        float(answer["latency_cpu_p99_ms"]),
        contributions,
        rows,
        str(answer.get("not_explained", "")),
    )
