"""What a completed job left, taken into use: hostile until proven, cut, saved anew, kept.

<scratch>/<job>/model/xgboost-model   the model to package; never the job's own output
<scratch>/<job>/report.json           rounds, choice, predictions of the golden rows
<scratch>/<job>/done.json             digests of both; a replay that finds them costs nothing
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_control
from ml_control.core.artifact import MAX_BYTES, MODEL_FILE, inspect_archive
from ml_control.core.boosters import Booster
from ml_control.core.containers import Container, container
from ml_control.core.digests import sha256
from ml_control.core.stopping import ROUNDING, Choice
from ml_control.environments import python_for
from ml_control.errors import Conflict, PlatformFailed, Retryable
from ml_control.lake import file_digest
from ml_control.ports import Round, TrainingJob, TrainingResult
from ml_control.serving.cutting import DISAGREES

_MODEL, _REPORT, _DONE = f"model/{MODEL_FILE}", "report.json", "done.json"
_TIMEOUT = 900.0
_KEPT = ("LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")
_USUAL = frozenset({"early_stopping"})  # what a raw output may have against it: it is cut here


@dataclass(frozen=True)
class Raw:
    """A job's output, looked through without loading it."""

    model: bytes
    booster: Booster


def inspected(archive: bytes, box: Container, what: str) -> Raw:
    """The one model in a job's archive. Raises ``PlatformFailed`` for anything else in it."""
    if len(archive) > MAX_BYTES:
        raise _unusable(what, f"has {len(archive)} bytes, more than an archive may have")
    found = inspect_archive(archive, box)
    against = [one for one in found.findings if one.rule not in _USUAL]
    if against or found.model is None or found.booster is None:
        told = "; ".join(f"{one.object}: {one.reason}" for one in against)
        raise _unusable(what, told or "has no model")
    return Raw(found.model, found.booster)


def _unusable(what: str, told: str) -> PlatformFailed:
    return PlatformFailed(
        what,
        f"its output is not used: {told}",
        "look at the job's model.tar.gz, correct training.hyperparameters, then train again",
    )


def make(
    scratch: Path,
    job: TrainingJob,
    request: str,
    raw: Raw,
    rounds: Sequence[Round],
    choice: Choice,
    seconds: float,
) -> TrainingResult:
    """Cut and save the model in the container's XGBoost, and keep it in the scratch folder.

    Whoever does it first has it; a folder is there whole or not at all. Raises ``PlatformFailed``
    when the booster does not load or the disk refuses.
    """
    what = f"training job {job.name}"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        private = Path(tempfile.mkdtemp(prefix=f".{job.name}.", dir=scratch))
        try:
            return _made(private, scratch / job.name, job, request, raw, rounds, choice, seconds)
        finally:
            shutil.rmtree(private, ignore_errors=True)
    except OSError as error:
        raise PlatformFailed(
            what, f"could not be kept in {scratch}: {error}", "free space, then train again"
        ) from error


def _made(
    private: Path,
    folder: Path,
    job: TrainingJob,
    request: str,
    raw: Raw,
    rounds: Sequence[Round],
    choice: Choice,
    seconds: float,
) -> TrainingResult:
    answer = _cut(job, raw.model, choice, private)
    watched = list(rounds[-1].metrics)[-1]
    best = int(answer["best"])
    printed, score = rounds[best].metrics[watched], answer["score"]
    exact = score is not None and abs(score - printed) <= 1.02 * ROUNDING
    report = {
        "best_iteration": best,
        "watched": watched,
        "watched_value": score if exact else printed,
        "rounding": 0.0 if exact else ROUNDING,
        "predictions": answer["predictions"],
        "rounds": [[step.index, dict(step.metrics)] for step in rounds],
    }
    (private / "model").mkdir()
    (private / MODEL_FILE).replace(private / _MODEL)
    (private / _REPORT).write_text(json.dumps(report), "utf-8")
    done = {
        "request": request,
        "seconds": seconds,
        "digests": {name: file_digest(private / name) for name in (_MODEL, _REPORT)},
    }
    (private / _DONE).write_text(json.dumps(done), "utf-8")
    for name in (_MODEL, _REPORT, _DONE):
        with (private / name).open("rb") as file:
            os.fsync(file.fileno())
    _place(private, folder)
    result = kept(folder.parent, job, request)
    if result is None:
        raise Retryable(f"training job {job.name}", "its result was removed meanwhile", "try again")
    return result


def _place(private: Path, folder: Path) -> None:
    """Give the whole folder its name, unless another caller's is there by now."""
    for _ in range(3):
        with suppress(OSError):
            private.rename(folder)
            return
        if _whole(folder) is not None:
            return
        with suppress(OSError):  # damaged: out of the way first, as a whole
            away = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
            folder.rename(away)
            shutil.rmtree(away, ignore_errors=True)
    raise OSError(f"{folder} is in the way")


def kept(scratch: Path, job: TrainingJob, request: str) -> TrainingResult | None:
    """The result that the scratch folder has, byte for byte as it was kept.

    Raises ``Conflict`` when it is that of another request.
    """
    folder = scratch / job.name
    done = _whole(folder)
    if done is None:
        return None
    if done.get("request") != request:
        raise Conflict(
            f"training job {job.name}",
            "exists with another container, other hyperparameters or other channels",
            "name a job by a digest of everything that decides its result",
        )
    report = json.loads((folder / _REPORT).read_bytes())
    return TrainingResult(
        job=job.name,
        model=folder / _MODEL,
        rounds=tuple(Round(int(index), metrics) for index, metrics in report["rounds"]),
        best_iteration=int(report["best_iteration"]),
        watched=str(report["watched"]),
        watched_value=float(report["watched_value"]),
        golden_predictions=report["predictions"],
        seconds=float(done["seconds"]),
        rounding=float(report["rounding"]),
    )


def _whole(folder: Path) -> dict[str, Any] | None:
    try:
        done: dict[str, Any] = json.loads((folder / _DONE).read_bytes())
        digests = done["digests"]
        same = all(digests[name] == file_digest(folder / name) for name in (_MODEL, _REPORT))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return done if same else None


def _cut(job: TrainingJob, model: bytes, choice: Choice, work: Path) -> dict[str, Any]:
    what, box = f"training job {job.name}", container(job.container)
    python = python_for(box)
    raw = work / "raw"
    raw.write_bytes(model)
    request = {
        "model": str(raw),
        "golden": str(job.golden.absolute()),
        "best": choice.best,
        "alike": list(choice.alike),
        "output": str(work),
    }
    try:
        done = subprocess.run(
            [str(python), "-P", "-m", "ml_control.serving.cutting"],
            input=json.dumps(request).encode(),
            cwd=work,
            env=_environment(python, work),
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Retryable(
            what, f"its model was not cut within {_TIMEOUT:g} s", "train again: it is adopted"
        ) from error
    raw.unlink()
    answer = _answer(done.stdout)
    if done.returncode == 0 and answer.get("xgboost") == box.xgboost:
        return answer
    if done.returncode < 0:
        raise Retryable(
            what,
            f"the process that cuts its model ended with signal {-done.returncode}",
            "train again: the finished job is adopted",
        )
    if str(answer.get("error", "")).startswith(DISAGREES):
        raise Retryable(
            what,
            f"its log is not whole: {answer['error']}",
            "train again when CloudWatch has its log; the finished job is adopted",
        )
    said = answer.get("error") or done.stderr.decode("utf-8", "replace").strip()[-1000:]
    if done.returncode == 0:
        said = f"XGBoost {answer.get('xgboost')} answered instead of {box.xgboost}"
    raise _unusable(what, f"{said} (sha256 of the booster {sha256(model)[:12]})")


def _answer(out: bytes) -> dict[str, Any]:
    try:
        found = json.loads(out.decode("utf-8", "replace").strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _environment(python: Path, work: Path) -> dict[str, str]:
    """Nothing of ours but the search path of shared libraries: credentials least of all."""
    found = {key: os.environ[key] for key in _KEPT if key in os.environ}
    found |= {"PATH": os.defpath, "HOME": str(work), "TMPDIR": str(work)}
    found |= {"OMP_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1"}
    if python == Path(sys.executable):  # an isolated environment has its own link to the package
        found["PYTHONPATH"] = str(Path(ml_control.__file__).resolve().parent.parent)
    return found
