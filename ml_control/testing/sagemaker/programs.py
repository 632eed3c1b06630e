"""The container's programs as subprocesses, their output in a log stream, ended with the fake."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from ml_control.core.containers import Container
from ml_control.environments import python_for
from ml_control.local.processes import python_environment


class Program:
    """A running program of the container; every line that it prints goes to ``write``."""

    def __init__(
        self,
        module: str,
        container: Container,
        arguments: list[str],
        folder: Path,
        write: Callable[[str], None],
    ) -> None:
        python = python_for(container)
        self._process = subprocess.Popen(
            [str(python), "-m", f"ml_control.testing.xgboost_container.{module}", *arguments],
            stdin=subprocess.PIPE,  # its end tells the program that we are gone
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=python_environment(python, folder),
            cwd=folder,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, args=(write,), daemon=True)
        self._reader.start()

    def _read(self, write: Callable[[str], None]) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        for line in self._process.stdout:
            write(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def code(self) -> int | None:
        """The exit code, once all that it printed was taken; None while it runs."""
        if self._process.poll() is None:
            return None
        self._reader.join(timeout=10)
        return self._process.returncode

    def end(self, grace: float = 0.0) -> None:
        """End it and wait until it is gone; with seconds of grace it may finish what it does."""
        if self._process.poll() is None:
            if grace:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=grace)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        self._reader.join(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
