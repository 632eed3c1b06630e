"""Anchors in the lake: an object each, numbered, so that none is replaced or left out unseen."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from ml_control.errors import Conflict, PlatformFailed, Unknown
from ml_control.lake import Lake
from ml_control.registry.anchors import Anchor

_AREA = "logs/history.anchors"
_READERS = 16
_TRIES = 100
_COMPARE = "compare with the object's versions in the bucket of the logs"


class LakeAnchors:
    """``registry.anchors.Anchors`` over ``logs/history.anchors/<pipeline>/<number>.json``.

    Each is created under the next free number, which gives the order in which they were added
    without a clock: after a restore the numbers of decisions are given out again. What is read is
    kept, for an anchor never changes.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._known: dict[str, Anchor] = {}
        self._next: dict[str, int] = {}

    def add(self, anchor: Anchor) -> None:
        """See ``Anchors``. One request while nobody else adds, else a look at what is there."""
        data = json.dumps(asdict(anchor), ensure_ascii=False).encode()
        number = self._next.get(anchor.pipeline) or self._free(anchor.pipeline)
        for _ in range(_TRIES):
            key = f"{_AREA}/{anchor.pipeline}/{number:09d}.json"
            try:
                self._lake.create(key, data)
            except Conflict:
                if self._lake.get(key) == data:  # ours: the answer to it was lost
                    break
                number = max(self._free(anchor.pipeline), number + 1)
                continue
            break
        else:
            raise PlatformFailed(
                f"{_AREA}/{anchor.pipeline}", "too many writers at once", "try again"
            )
        self._next[anchor.pipeline] = number + 1

    def of(self, pipeline: str) -> list[Anchor]:
        """See ``Anchors``. Raises ``Unknown`` where one is missing or is no anchor."""
        keys = list(self._lake.list(f"{_AREA}/{pipeline}"))
        wanted = [f"{_AREA}/{pipeline}/{number:09d}.json" for number in range(1, len(keys) + 1)]
        if keys != wanted:
            missing = next((key for key in wanted if key not in set(keys)), wanted[-1])
            raise Unknown(missing, "this anchor of the history is missing", _COMPARE)
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._read, keys))

    def _read(self, key: str) -> Anchor:
        if key not in self._known:
            try:
                self._known[key] = Anchor(**json.loads(self._lake.get(key)))
            except (ValueError, TypeError) as error:
                raise Unknown(key, f"is no anchor of the history: {error}", _COMPARE) from error
        return self._known[key]

    def _free(self, pipeline: str) -> int:
        last = ""
        for key in self._lake.list(f"{_AREA}/{pipeline}"):
            last = key
        name = last.rpartition("/")[2].removesuffix(".json")
        return int(name) + 1 if name.isdigit() else 1
