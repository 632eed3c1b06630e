"""Environments apart from the suite's own, built by uv from hash-pinned locks."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "envs"
_LEAKS = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT")


def environment_of(lock: str, *, package: bool = False) -> Path:
    """The interpreter of an environment with exactly what ``requirements/<lock>.lock`` names.

    With ``package`` this checkout's ``ml_control`` can be imported there too. It is built once for
    each lock, beside its place and renamed, by one process at a time; with the packages in uv's
    cache no index is asked. Raises ``CalledProcessError`` when it cannot be built.
    """
    file = ROOT / "requirements" / f"{lock}.lock"
    identity = f"{file.read_text()}\0{sys.version}\0{ROOT if package else ''}"
    home = CACHE / f"{lock}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{home.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not python.exists():
            making = home.with_name(f".{home.name}.making")
            shutil.rmtree(making, ignore_errors=True)  # left by a process that was killed
            _uv("venv", "--relocatable", "--no-project", "--python", sys.executable, making)
            _uv(
                *("pip", "sync", "--require-hashes", "--python", making / "bin" / "python", file),
            )
            if package:
                packages = next(making.glob("lib/python*/site-packages"))
                (packages / "ml_control").symlink_to(ROOT / "ml_control")
            making.rename(home)
    return python


def _uv(*arguments: object) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in _LEAKS}
    environment.setdefault("UV_CACHE_DIR", str(ROOT / ".cache" / "uv"))
    subprocess.run(
        [find_uv_bin(), "--quiet", *map(str, arguments)], cwd=ROOT, env=environment, check=True
    )
