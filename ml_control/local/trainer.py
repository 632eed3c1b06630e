"""Training on this machine: one process for each job, in the container's interpreter.

    <root>/<job>.lock          held while a job is started or its end is recorded
    <root>/<job>/              laid out like /opt/ml: input, model, output
    <root>/<job>/request.json  what was asked
    <root>/<job>/process.json  pid and start time of the process
    <root>/<job>/log.txt       what it printed
    <root>/<job>/done.json     digests of what it left; written last, checked before it is reused

The process outlives its caller. Whoever asks for a job of the same name next waits for the
running one or takes the finished one's result.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ml_control.core.containers import container as container_of
from ml_control.core.digests import digest_of, sha256_chunks
from ml_control.environments import python_for
from ml_control.errors import Conflict, InvalidSpec, PlatformFailed, Retryable
from ml_control.local.files import (
    exclusive,
    read_json,
    refused_by_disk,
    tail,
    write_json,
    write_whole,
)
from ml_control.local.hyperparameters import REFUSED
from ml_control.local.processes import alive, end, python_environment, spawn
from ml_control.ports import Round, Search, TrainingJob, TrainingResult, Tried

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_ROUND = re.compile(r"^\[(\d+)\]\t(.+)$")
_POLL_SECONDS = 0.05
_LOCK_SECONDS = 600.0  # building a container's environment happens under the lock
_OUTPUTS = {"model": "model/xgboost-model", "golden": "output/data/golden.json", "log": "log.txt"}


class LocalTrainer:
    """Implements :class:`ml_control.ports.Trainer` with local processes."""

    def __init__(self, root: Path, threads: int | None = None) -> None:
        """``threads`` of each job; all of the machine's when None."""
        self._root = root.absolute()
        self._threads = threads

    def train(self, job: TrainingJob, on_round: Callable[[Round], None]) -> TrainingResult:
        """Run the job, or adopt the running or finished job of the same name.

        ``on_round`` is called once for each boosting round in order, also for an adopted job.
        Raises ``InvalidSpec`` when the container refuses the hyperparameters or the name is not
        usable, ``PlatformFailed`` with the job's failure text and the end of its log, or when it
        ran longer than ``max_runtime`` seconds, ``Retryable`` when the process was ended from
        outside, ``Conflict`` when the name belongs to a job with other settings.
        """
        if not _NAME.fullmatch(job.name):
            raise InvalidSpec(
                f"training job {job.name!r}",
                "is not a usable name",
                "use 1 to 63 letters, digits, '-' and '_', with a letter or digit at both ends",
            )
        folder = self._root / job.name
        lock, what = self._root / f"{job.name}.lock", f"training job {job.name}"
        with exclusive(lock, _LOCK_SECONDS, what):
            _check_same(job, folder)
            try:
                process, adopted = self._claim(job, folder)
            except OSError as error:
                raise refused_by_disk(what, error) from error
        reported = _follow(job, folder, process, on_round)
        with exclusive(lock, _LOCK_SECONDS, what):
            if process is not None and read_json(folder / "process.json") != process:
                raise Retryable(what, "was started anew by another caller", "ask for it again")
            if process is not None and _finished(folder) is None:
                _conclude(job, folder, process)
            return _result(job, folder, reported, adopted=adopted)

    def search(self, search: Search, on_trial: Callable[[Tried], None]) -> bool:  # noqa: ARG002
        """One machine searches trial by trial: the caller does it."""
        return False

    def end(self, name: str) -> None:
        """End the job of this name if it runs, and drop its inputs; waiters get ``Retryable``."""
        folder = self._root / name
        if not _NAME.fullmatch(name) or not folder.is_dir():
            return
        with exclusive(self._root / f"{name}.lock", _LOCK_SECONDS, f"training job {name}"):
            process = read_json(folder / "process.json")
            if process is not None and alive(process["pid"], process["started"]):
                end(process["pid"], process["started"])
            for place in ("input/data", "scratch"):
                shutil.rmtree(folder / place, ignore_errors=True)

    def tidy(self, names: str, keep: Collection[str], newest: int) -> int:
        """Remove the folders of ended jobs, but those to keep and the newest; how many."""
        ended = []
        for folder in self._root.glob("*/"):
            if re.fullmatch(names, folder.name) and folder.name not in keep:
                with contextlib.suppress(FileNotFoundError):
                    ended.append(((folder / "request.json").stat().st_mtime, folder))
        removed = 0
        for _, folder in sorted(ended, reverse=True)[newest:]:
            lock = self._root / f"{folder.name}.lock"
            # A busy lock is a job that somebody starts or concludes just now: it stays.
            with contextlib.suppress(Conflict), exclusive(lock, 0.0, folder.name):
                process = read_json(folder / "process.json")
                if process is None or not alive(process["pid"], process["started"]):
                    shutil.rmtree(folder, ignore_errors=True)
                    lock.unlink(missing_ok=True)
                    removed += 1
        return removed

    def stop(self) -> int:
        """End every running job of this root; how many there were. Their callers get Retryable."""
        running = 0
        for record in self._root.glob("*/process.json"):
            process = read_json(record)
            if process is not None and alive(process["pid"], process["started"]):
                end(process["pid"], process["started"])
                running += 1
        return running

    def _claim(self, job: TrainingJob, folder: Path) -> tuple[dict[str, Any] | None, bool]:
        """(the process to wait for, or None when the job is finished; whether it was there)."""
        if _finished(folder) is not None:
            return None, True
        process = read_json(folder / "process.json")
        if process is not None and alive(process["pid"], process["started"]):
            return process, True
        unrecorded = not (folder / "done.json").exists()
        if process is not None and unrecorded and _succeeded(folder):
            return process, True  # it finished after its caller had died
        return self._start(job, folder), False

    def _start(self, job: TrainingJob, folder: Path) -> dict[str, Any]:
        """A clean folder laid out like /opt/ml, and the process started on it."""
        python = python_for(container_of(job.container))
        shutil.rmtree(folder, ignore_errors=True)
        config = folder / "input" / "config"
        for place in (config, folder / "model", folder / "output" / "data"):
            place.mkdir(parents=True)
        channels = {}
        for channel, files in job.channels.items():
            _provide(files, folder / "input" / "data" / channel)
            channels[channel] = {"TrainingInputMode": "File", "ContentType": "text/csv"}
        golden = folder / "input" / "data" / "golden"
        golden.mkdir(parents=True)
        _link(job.golden, golden / "golden.csv")
        hyperparameters = {key: str(value) for key, value in job.hyperparameters.items()}
        write_json(config / "hyperparameters.json", hyperparameters)
        write_json(config / "inputdataconfig.json", channels)
        resources: dict[str, Any] = {"current_host": "algo-1", "hosts": ["algo-1"]}
        if self._threads:
            resources["nthread"] = self._threads
        if job.external_memory:
            resources["external"] = True
        write_json(config / "resourceconfig.json", resources)
        write_json(folder / "request.json", {"digest": _request(job)})
        command = (python, "-m", "ml_control.local.algorithm", "--prefix", folder)
        pid, started = spawn(
            command,
            folder / "log.txt",
            env=python_environment(python, self._root.parent),
            cwd=folder,
        )
        process = {"pid": pid, "started": started}
        try:
            write_json(folder / "process.json", process)
        except PlatformFailed:
            end(pid, started)  # nobody would know it for ours
            raise
        return process


def _request(job: TrainingJob) -> str:
    """What must be equal for two jobs of one name to be the same job. The content of the channels
    is not read again for this: it is the caller who names a job by its digest.
    """
    names = {channel: len(files) for channel, files in job.channels.items()}
    settings = {key: str(value) for key, value in job.hyperparameters.items()}
    return digest_of([job.container, settings, names, job.external_memory])


def _check_same(job: TrainingJob, folder: Path) -> None:
    known = read_json(folder / "request.json")
    if known is not None and known.get("digest") != _request(job):
        raise Conflict(
            f"training job {job.name}",
            "exists with another container, other hyperparameters or other channels",
            "name a job by a digest of everything that decides its result",
        )


def _provide(files: Any, channel: Path) -> None:
    """The channel's files in the order given, without a second copy where the disk allows it."""
    channel.mkdir(parents=True)
    for index, file in enumerate(files):
        _link(file, channel / f"{index:05d}-{file.stem}.csv")


def _link(source: Path, target: Path) -> None:
    source = source.resolve()
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise InvalidSpec(
            str(source), "this channel file does not exist", "write it first"
        ) from None
    except OSError:  # another device, or a file system without hard links
        shutil.copy2(source, target)


def _rounds(folder: Path, done: Callable[[], bool]) -> Iterator[Round]:
    """The rounds in the log as they are printed, until ``done`` and the log is read to its end."""
    path, position, rest = folder / "log.txt", 0, b""
    while True:
        last = done()  # asked before reading: what was printed until then is read below
        with contextlib.suppress(FileNotFoundError), path.open("rb") as log:
            log.seek(position)
            data = log.read()
            position += len(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if found := _ROUND.match(line.decode(errors="replace")):
                    yield Round(int(found[1]), _metrics(found[2]))
        if last:
            return
        time.sleep(_POLL_SECONDS)


def _metrics(text: str) -> dict[str, float]:
    pairs = (part.rpartition(":") for part in text.strip().split("\t"))
    return {name: float(value) for name, _, value in pairs}


def _follow(
    job: TrainingJob,
    folder: Path,
    process: dict[str, Any] | None,
    on_round: Callable[[Round], None],
) -> list[Round]:
    """Report every round until the process has ended; end it when it runs too long."""

    def ended() -> bool:
        if process is None or not alive(process["pid"], process["started"]):
            return True
        if time.time() - process["started"] > job.max_runtime:
            # Written down first, so that everyone who waits for the job learns why it ended.
            failure = f"MaxRuntimeExceeded: it ran longer than {job.max_runtime:g} s and was ended"
            write_whole(folder / "output" / "failure", failure.encode())
            end(process["pid"], process["started"])
            return True
        return False

    reported = []
    for found in _rounds(folder, ended):
        reported.append(found)
        on_round(found)
    return reported


def _conclude(job: TrainingJob, folder: Path, process: dict[str, Any]) -> None:
    """Record how an ended process left its job: ``done.json``, or the typed error."""
    what = f"training job {job.name}"
    if _succeeded(folder):
        model = folder / _OUTPUTS["model"]
        seconds = max(0.0, model.stat().st_mtime - process["started"])
        digests = {key: _digest(folder / path) for key, path in _OUTPUTS.items()}
        write_json(folder / "done.json", {"digests": digests, "seconds": seconds})
        shutil.rmtree(folder / "input" / "data", ignore_errors=True)  # it is kept in the lake
        return
    try:
        failure = (folder / "output" / "failure").read_text(errors="replace").strip()
    except FileNotFoundError:
        raise Retryable(
            what,
            f"its process was ended from outside; its log ends: {tail(folder / 'log.txt', 3)}",
            "train again: it starts from scratch",
        ) from None
    if REFUSED.match(failure):
        raise InvalidSpec(what, failure, "correct training.hyperparameters")
    log = tail(folder / "log.txt")
    raise PlatformFailed(what, f"{failure}; its log ends: {log}", "correct it, then train again")


def _succeeded(folder: Path) -> bool:
    """The model is the last thing that the training program writes, and it appears whole."""
    return (folder / _OUTPUTS["model"]).exists() and (folder / _OUTPUTS["golden"]).exists()


def _finished(folder: Path) -> dict[str, Any] | None:
    """``done.json`` if everything that it names is still there byte for byte, else None."""
    done = read_json(folder / "done.json")
    if done is None:
        return None
    try:
        same = all(_digest(folder / path) == done["digests"][key] for key, path in _OUTPUTS.items())
    except (OSError, KeyError, TypeError):
        return None
    return done if same else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_chunks(iter(lambda: file.read(1 << 20), b""))


def _result(
    job: TrainingJob, folder: Path, rounds: list[Round], *, adopted: bool
) -> TrainingResult:
    report = json.loads((folder / _OUTPUTS["golden"]).read_bytes())
    done = read_json(folder / "done.json") or {}
    return TrainingResult(
        job=job.name,
        model=folder / _OUTPUTS["model"],
        rounds=tuple(rounds),
        best_iteration=int(report["best_iteration"]),
        watched=str(report["watched"]),
        watched_value=float(report["watched_value"]),
        golden_predictions=report["predictions"],
        seconds=float(done.get("seconds", 0.0)),
        adopted=adopted,
    )
