"""The Python interpreter of each container: exactly its XGBoost, apart from ours.

A container's environment is a virtual environment under the cache, built once by uv from the
hash-pinned lock in ``ml_control/containers`` and used by every process afterwards.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from ml_control.core.containers import Container
from ml_control.core.digests import digest_of, short
from ml_control.errors import PlatformFailed

_PACKAGE = Path(__file__).resolve().parent
_BUILD_TIMEOUT = 600.0
_NEXT = "see that the package index can be reached, then do it again"


def cache_root() -> Path:
    """Where container environments are kept: ``ML_CONTROL_CACHE``, else ``~/.cache/ml-control``."""
    named = os.environ.get("ML_CONTROL_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "ml-control"


def python_for(container: Container) -> Path:
    """The interpreter that has exactly this container's XGBoost, uvicorn and ``ml_control``.

    Our own interpreter when it is one, else an isolated one, built on first use (seconds) and
    then found in no time; any number of processes may ask at once. There ``ml_control`` can be
    imported, but only what needs no more than numpy, XGBoost and uvicorn works.
    Raises ``PlatformFailed`` with the end of uv's own words when it cannot be built.
    """
    if _ours(container):
        return Path(sys.executable)
    lock = _PACKAGE / "containers" / f"{container.tag}.lock"
    interpreter = _base(container)
    identity = [lock.read_text(), interpreter, list(sys.version_info[:3]), str(_PACKAGE)]
    home = cache_root() / "envs" / f"{container.tag}-{short(digest_of(identity))}"
    python = home / "bin" / "python"
    if python.exists():
        return python
    home.parent.mkdir(parents=True, exist_ok=True)
    with _alone(home.with_name(f"{home.name}.lock")):
        if not python.exists():  # else another process built it while we waited
            _build(container, lock, interpreter, home)
    return python


def _ours(container: Container) -> bool:
    if importlib.util.find_spec("uvicorn") is None:
        return False
    for name in ("xgboost-cpu", "xgboost"):
        try:
            return metadata.version(name) == container.xgboost
        except metadata.PackageNotFoundError:
            continue
    return False


def _base(container: Container) -> str:
    # XGBoost 1.x needs numpy 1, which has no wheels for Python 3.13 and later.
    too_new = container.version < (2, 0, 0) and sys.version_info >= (3, 13)
    return "3.11" if too_new else sys.executable


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold an exclusive file lock; it ends with the process, so a crash leaves nothing behind."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(container: Container, lock: Path, interpreter: str, home: Path) -> None:
    """Build beside the final place and rename, so that nobody ever sees half an environment."""
    making = home.with_name(f".{home.name}.making")
    shutil.rmtree(making, ignore_errors=True)  # left by a process that was killed
    try:
        _uv(container, "venv", "--relocatable", "--no-project", "--python", interpreter, making)
        python = making / "bin" / "python"
        _uv(
            container,
            *("pip", "sync", "--require-hashes", "--only-binary", ":all:", "--compile-bytecode"),
            *("--python", python, lock),
        )
        packages = next(making.glob("lib/python*/site-packages"))
        (packages / "ml_control").symlink_to(_PACKAGE, target_is_directory=True)
        shutil.rmtree(home, ignore_errors=True)  # an environment whose base interpreter is gone
        making.rename(home)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _uv(container: Container, *arguments: str | Path) -> None:
    where = f"environment of container {container.tag}"
    try:
        from uv import find_uv_bin

        command = [find_uv_bin(), *map(str, arguments)]
    except (ImportError, FileNotFoundError) as error:
        raise PlatformFailed(where, f"uv is not installed: {error}", "pip install uv") from error
    # An activated environment or a project's own uv settings must not leak into this one.
    leaks = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT")
    environment = {key: value for key, value in os.environ.items() if key not in leaks}
    root = cache_root()
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_BUILD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        reason = f"uv did not finish in {_BUILD_TIMEOUT:.0f} s"
        raise PlatformFailed(where, reason, _NEXT) from error
    if done.returncode != 0:
        tail = done.stderr.strip()[-1500:]
        raise PlatformFailed(where, f"uv could not build it: {tail}", _NEXT)
