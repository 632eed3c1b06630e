"""The few values that a booster's JSON or UBJ text is asked for, found without loading it.

Arrays are skipped, nesting and work are bounded, and nothing is executed. Standard library only:
the isolated container environments import this module too.
"""

from __future__ import annotations

import re
import struct
from typing import Any

MAX_DEPTH = 64  # XGBoost's own models nest seven deep
MAX_STEPS = 5_000_000  # some 100,000 trees; bounds a hostile file to seconds

Path = tuple[str | None, ...]
_PARAM = ("learner", "learner_model_param")
_BOOSTER = ("learner", "gradient_booster")
_ATTRIBUTES = ("learner", "attributes")
VERSION: Path = ("version",)
NUM_FEATURE: Path = (*_PARAM, "num_feature")
NUM_CLASS: Path = (*_PARAM, "num_class")
NUM_TARGET: Path = (*_PARAM, "num_target")
OBJECTIVE: Path = ("learner", "objective", "name")
BOOSTER: Path = (*_BOOSTER, "name")
BEST_ITERATION: Path = (*_ATTRIBUTES, "best_iteration")
BEST_LIMIT: Path = (*_ATTRIBUTES, "best_ntree_limit")
ROUNDS: Path = (*_BOOSTER, "model", "boosted_rounds")  # of a linear model, and a bare number
#: A DART model keeps its trees one level deeper.
_TREES = (
    (*_BOOSTER, "model", "gbtree_model_param"),
    (*_BOOSTER, "gbtree", "model", "gbtree_model_param"),
)
NUM_TREES: tuple[Path, ...] = tuple((*place, "num_trees") for place in _TREES)
#: Of any column: "c" is a category, whose codes XGBoost learnt from a data frame.
COLUMN_TYPE: Path = ("learner", "feature_types", None)
PARALLEL: tuple[Path, ...] = tuple((*place, "num_parallel_tree") for place in _TREES)
_WANTED = frozenset(
    {
        VERSION,
        NUM_FEATURE,
        NUM_CLASS,
        NUM_TARGET,
        OBJECTIVE,
        BOOSTER,
        BEST_ITERATION,
        BEST_LIMIT,
        ROUNDS,
        COLUMN_TYPE,
        *NUM_TREES,
        *PARALLEL,
    }
)


def _keep(found: dict[Path, Any], path: Path, value: Any) -> None:
    """Two different answers to one question are no answer: readers disagree on which counts."""
    if path == COLUMN_TYPE:  # each column has one; that any is a category is what is asked
        if value == "c":
            found[path] = value
        return
    found[path] = value if found.get(path, value) == value else None


_TOKEN = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"(\s*:)?|[{}\[\]]', re.DOTALL)
_COUNT = re.compile(rb"\s*(\d{1,9})(?=[\s,}])")
_TRIPLE = re.compile(rb"\[\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\]")


def read_json(data: bytes) -> dict[Path, Any]:
    """Wanted values of a JSON text. Sees strings and brackets only, so number arrays cost nothing.

    ``json.loads`` would need many times the file in memory; this needs none.
    """
    found: dict[Path, Any] = {}
    path: list[str | None] = []
    for step, token in enumerate(_TOKEN.finditer(data)):
        if step > MAX_STEPS:
            raise ValueError("too many values")
        mark = data[token.start()]
        if mark == 0x22:  # a string
            if token[2] is not None:
                if path:
                    path[-1] = token[1].decode("utf-8", "replace")
                    if token[1] == b"boosted_rounds" and tuple(path) == ROUNDS:
                        number = _COUNT.match(data, token.end())
                        _keep(found, ROUNDS, int(number[1]) if number else None)
            elif tuple(path) in _WANTED:
                _keep(found, tuple(path), token[1].decode("utf-8", "replace"))
        elif mark in b"{[":
            if tuple(path) == VERSION and (triple := _TRIPLE.match(data, token.start())):
                _keep(found, VERSION, tuple(int(part) for part in triple.groups()))
            path.append(None)
            if len(path) > MAX_DEPTH:
                raise ValueError("nested too deeply")
        else:
            path.pop()
    if path:
        raise ValueError("ends early")
    return found


def read_ubj(data: bytes) -> dict[Path, Any]:
    """Wanted values of a UBJ text. Raises ValueError when the bytes are not whole UBJ."""
    return _Ubj(data).walk()


_INTEGERS = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q"}
_SIZES = {
    b"Z": 0,
    b"N": 0,
    b"T": 0,
    b"F": 0,
    b"i": 1,
    b"U": 1,
    b"C": 1,
    b"I": 2,
    b"l": 4,
    b"L": 8,
    b"d": 4,
    b"D": 8,
}


class _Ubj:
    """A bounded walk over Universal Binary JSON that skips what nobody asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.steps = 0
        self.found: dict[Path, Any] = {}

    def walk(self) -> dict[Path, Any]:
        """Wanted values by path. Raises ValueError when the bytes are not whole UBJ."""
        self._value(self._take(1), ())
        return self.found

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if size < 0 or end > len(self.data):
            raise ValueError("ends early")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def _skip(self, size: int) -> None:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError("ends early")
        self.at += size

    def _peek(self) -> bytes:
        return self.data[self.at : self.at + 1]

    def _integer(self, marker: bytes) -> int:
        layout = _INTEGERS.get(marker)
        if layout is None:
            raise ValueError(f"{marker!r} is not an integer marker")
        return int(struct.unpack(layout, self._take(struct.calcsize(layout)))[0])

    def _header(self) -> tuple[bytes | None, int | None]:
        """The optional ``$type`` and ``#count`` of a container."""
        kind = count = None
        if self._peek() == b"$":
            self._skip(1)
            kind = self._take(1)
        if self._peek() == b"#":
            self._skip(1)
            count = self._integer(self._take(1))
            if count < 0:
                raise ValueError("a negative count")
        elif kind is not None:
            raise ValueError("a type without a count")
        return kind, count

    def _value(self, marker: bytes, path: Path) -> Any:
        self.steps += 1
        if self.steps > MAX_STEPS or len(path) > MAX_DEPTH:
            raise ValueError("too many values, or nested too deeply")
        if marker == b"{":
            self._object(path)
            return None
        if marker == b"[":
            return self._array(path)
        if marker in (b"S", b"H"):
            size = self._integer(self._take(1))
            if path not in _WANTED or size > 1024:
                self._skip(size)
                return None
            text = self._take(size).decode("utf-8", "replace")
            _keep(self.found, path, text)
            return text
        if marker in _INTEGERS:
            number = self._integer(marker)
            if path == ROUNDS:
                _keep(self.found, path, number)
            return number
        if marker not in _SIZES:
            raise ValueError(f"{marker!r} is not a marker")
        self._skip(_SIZES[marker])
        return None

    def _object(self, path: Path) -> None:
        kind, count = self._header()
        done = 0
        while done != count:
            if count is None and self._peek() == b"}":
                self._skip(1)
                return
            size = self._integer(self._take(1))
            if size > 1 << 20:
                raise ValueError("a key of more than a megabyte")
            key = self._take(size).decode("utf-8", "replace")
            self._value(kind or self._take(1), (*path, key))
            done += 1

    def _array(self, path: Path) -> None:
        kind, count = self._header()
        wanted = path == VERSION and (count is None or count <= 8)
        if kind in _SIZES and count is not None and not wanted:
            self._skip(_SIZES[kind] * count)
            return
        values: list[Any] = []
        done = 0
        while done != count:
            if count is None and self._peek() == b"]":
                self._skip(1)
                break
            value = self._value(kind or self._take(1), (*path, None))
            if wanted and len(values) < 8:
                values.append(value)
            done += 1
        if wanted and all(isinstance(value, int) for value in values):
            _keep(self.found, path, tuple(values))
