"""What the gateway knows: pipeline files, routing and tokens, each as it was a moment ago.

A request never waits for a look at what was looked at within the last second. Within two it goes
by what is known while the new look is under way; beyond that it waits for it. When the registry
cannot be read, what was known goes on for half a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ml_control.core.pipeline import Pipeline
from ml_control.errors import InvalidSpec, MlControlError, PlatformFailed, Retryable
from ml_control.platform import Platform
from ml_control.registry.tokens import Token
from ml_control.services.authoring.pipelines import PipelineFolder, read_folder
from ml_control.services.releases.snapshots import Snapshots
from ml_control.serving.handlers.messages import Refusal
from ml_control.serving.handlers.steps import Snapshot

FRESH_SECONDS = 1.0
_STALE_SECONDS = 2.0
_LAST_SECONDS = 30.0
_T = TypeVar("_T")


@dataclass
class _Held(Generic[_T]):
    value: _T
    at: float


class Cached(Generic[_T]):
    """A value that is read anew, in a thread, at most once a second and once for all who wait."""

    def __init__(self, read: Callable[[], _T], pool: ThreadPoolExecutor) -> None:
        self._read = read
        self._pool = pool
        self._held: _Held[_T] | None = None
        self._reading: asyncio.Task[_T] | None = None

    def now(self) -> _T | None:
        """The value, if it need not be waited for."""
        held = self._held
        if held is None:
            return None
        age = time.monotonic() - held.at
        if age > _STALE_SECONDS:
            return None
        if age > FRESH_SECONDS:
            self._start()
        return held.value

    def fill(self) -> _T:
        """Read the value here and now. Raises what reading it raises."""
        began = time.monotonic()
        value = self._read()
        self._held = _Held(value, began)
        return value

    async def get(self) -> _T:
        """The value. Raises what reading it raises."""
        found = self.now()
        if found is not None:
            return found
        try:
            return await asyncio.shield(self._start())
        except (Retryable, PlatformFailed):
            held = self._held
            if held is not None and time.monotonic() - held.at < _LAST_SECONDS:
                return held.value
            raise

    def _start(self) -> asyncio.Task[_T]:
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._refresh())
            self._reading.add_done_callback(self._ended)
        return self._reading

    def _ended(self, task: asyncio.Task[_T]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # taken note of: whoever waits has it too

    async def _refresh(self) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.fill)


class State:
    """Pipelines, snapshots and tokens of a platform."""

    def __init__(self, platform: Platform, pool: ThreadPoolExecutor) -> None:
        self.platform = platform
        self._pool = pool
        self._snapshots = Snapshots(platform)
        self._routing: dict[str, Cached[Snapshot]] = {}
        self._signature: Any = None
        self._folder = PipelineFolder()
        self.reread()
        self.tokens = Cached(self._read_tokens, pool)

    def reread(self) -> None:
        """Read the pipeline files again if one changed; a broken one leaves what it said before."""
        settings = self.platform.settings
        signature = _signature(settings.pipelines)
        if signature == self._signature:
            return
        folder = read_folder(settings.pipelines, settings.yaml_env)
        kept = {name: old for name, old in self._folder.found.items() if name in folder.broken}
        self._folder = PipelineFolder({**folder.found, **kept}, folder.broken)
        self._signature = signature

    def warm(self) -> None:
        """Read and prove now what the first requests would wait for; what fails, fails then."""
        for name in self._folder.found:
            with suppress(MlControlError):
                for served in self.look(name).fill().variants.values():
                    self.platform.endpoints.describe(served.endpoint)

    @property
    def folder(self) -> PipelineFolder:
        """Every pipeline, usable and broken."""
        return self._folder

    def pipeline(self, name: str) -> Pipeline:
        """A pipeline. Raises ``Refusal``: 404 for an unknown one, 503 for a broken one."""
        found = self._folder.found.get(name)
        if found is not None:
            return found
        if name in self._folder.broken:
            raise Refusal(503, self._folder.broken[name])
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        error = InvalidSpec(f"pipeline {shown}", "there is no such pipeline", "see GET /pipelines")
        raise Refusal(404, error)

    def look(self, name: str) -> Cached[Snapshot]:
        """The routing of a pipeline. Raises as :meth:`pipeline` does."""
        found = self._routing.get(name)
        if found is None or name not in self._folder.found:
            self.pipeline(name)
            found = Cached(lambda: self._snapshots.read(self.pipeline(name)), self._pool)
            self._routing[name] = found
        return found

    def _read_tokens(self) -> dict[str, Token]:
        return {token.name: token for token in self.platform.registry.tokens.all()}


def _signature(root: Path) -> Any:
    found = []
    for path in sorted([*root.glob("*/*.yaml"), *root.glob("*/*.json")]):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return found
