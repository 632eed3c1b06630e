"""Processes of our own: started apart from us, recognised again, and ended by nobody's mistake.

A pid alone names nothing: it is given away again. Here a process is (pid, start time), and no
signal is sent to a pid whose start time is another.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

import ml_control

STARTED_FOR = "ML_CONTROL_STARTED_FOR"  # marks what was started for a home
TOLERANCE = 2.0  # seconds: the same start, told by different programs
_POLL_SECONDS = 0.02


def identity(pid: int) -> float:
    """When a process was created, in seconds since the epoch. Raises ``psutil.NoSuchProcess``."""
    return psutil.Process(pid).create_time()


def alive(pid: int, started: float) -> bool:
    """Whether exactly this process still runs: the same pid, the same start, not a zombie."""
    return _find(pid, started) is not None


def end(pid: int, started: float, grace: float = 5.0) -> None:
    """End a process: SIGTERM, and SIGKILL if it is still there after ``grace`` seconds.

    Ending one that is gone is harmless, and a pid that belongs to another process is left alone.
    """
    process = _find(pid, started)
    if process is None:
        return
    try:
        process.terminate()
        if _wait(pid, started, grace):
            return
        process.kill()
        _wait(pid, started, 5.0)
    except psutil.NoSuchProcess:
        return


def spawn(
    arguments: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> tuple[int, float]:
    """Start a program in its own session, its output appended to ``log``; (pid, start time).

    It outlives the caller. While the caller lives, it is reaped as soon as it ends.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            close_fds=True,
        )
    try:
        # Not yet waited for, so even if it has ended already its pid cannot be another's.
        started = identity(process.pid)
    except psutil.NoSuchProcess:
        started = time.time()
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return process.pid, started


def python_environment(python: Path, home: Path) -> dict[str, str]:
    """Our environment, made safe for a container's interpreter: ``ml_control`` can be imported,
    and the working folder, ``PYTHONPATH`` and an activated environment bring in nothing else.

    The process is marked as started for ``home``, so that ``down`` knows it as its own.
    """
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    environment[STARTED_FOR] = str(home)
    # Threads that wait for their turn must not spin: cores are shared with whatever else runs.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment["PYTHONSAFEPATH"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    if python == Path(sys.executable):
        # Only for ourselves: an isolated environment has its own link to the package, and would
        # find our numpy beside this one.
        environment["PYTHONPATH"] = os.pathsep.join([_package_parent(), *_inherited()])
    return environment


def _package_parent() -> str:
    return str(Path(ml_control.__file__).resolve().parent.parent)


def _inherited() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def _find(pid: int, started: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) > TOLERANCE:
            return None
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:  # ZombieProcess is one of these
        return None


def _wait(pid: int, started: float, seconds: float) -> bool:
    """Whether the process was gone within the time."""
    deadline = time.monotonic() + seconds
    while alive(pid, started):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
