"""What a booster file says of itself, read without loading it: format, saver, shape, objective.

Nothing here trusts the bytes. Arrays are skipped, nesting and work are bounded, and nothing is
executed. Standard library only: the isolated container environments import this module too.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import re
import struct
from dataclasses import dataclass
from typing import Any, Literal

from ml_control.core.containers import Container

Format = Literal["json", "ubj", "binary", "pickle", "unknown"]
Version = tuple[int, int, int]


@dataclass(frozen=True)
class Booster:
    """A booster file's own words; ``None`` where it does not say, or cannot be read."""

    format: Format
    version: Version | None = None  # of the XGBoost that saved it; a binary's patch is always 0
    num_feature: int | None = None
    num_class: int | None = None
    objective: str | None = None


MAX_DEPTH = 64  # XGBoost's own models nest seven deep
MAX_STEPS = 5_000_000  # some 100,000 trees; bounds a hostile file to seconds
_MAX_PICKLE_STEPS = 100_000

_Path = tuple[str | None, ...]
_PARAM = ("learner", "learner_model_param")
_VERSION: _Path = ("version",)
_NUM_FEATURE: _Path = (*_PARAM, "num_feature")
_NUM_CLASS: _Path = (*_PARAM, "num_class")
_OBJECTIVE: _Path = ("learner", "objective", "name")
_WANTED = frozenset({_VERSION, _NUM_FEATURE, _NUM_CLASS, _OBJECTIVE})


def sniff(data: bytes) -> Booster:
    """The format of a booster file and what it says of itself, without loading it.

    Never raises: bytes that cannot be read as what they begin like keep that format and have no
    version; bytes of no known beginning are ``unknown``.
    """
    if re.match(rb'\{\s*"', data):
        return _described("json", data)
    if data[:1] == b"{" and data[1:2] in b"LiUIl#$" and len(data) > 1:
        return _described("ubj", data)
    if data[:4] in (b"binf", b"bs64"):
        return _binary(data)
    if pickle_names(data) is not None:
        return Booster("pickle")
    return Booster("unknown")


def compatible(
    saved: Version, loader: Container, *, format: Format = "ubj", exact: bool = True
) -> str | None:
    """Why a model saved by one XGBoost must not be served by another; None when it may.

    ``exact=False`` leaves out our own policy (the container's exact version) and keeps only the
    combinations that are known to fail or to answer wrongly.
    """
    by, to = ".".join(map(str, saved)), loader.xgboost
    if format == "binary":
        by = ".".join(map(str, saved[:2]))
        if loader.version >= (3, 1, 0):
            return f"the legacy binary format does not load in XGBoost {to}"
        same = saved[:2] == loader.version[:2]  # the format does not record the patch version
    else:
        if loader.version < (1, 6, 0) <= saved:
            return f"saved by XGBoost {by}, whose {format.upper()} does not load in XGBoost {to}"
        if loader.version < (3, 1, 0) <= saved:
            return (
                f"saved by XGBoost {by}, whose base_score XGBoost {to} silently resets: "
                "it would load and answer wrongly with status 200"
            )
        same = saved == loader.version
    if exact and not same:
        return f"saved by XGBoost {by}, but the container {loader.tag} serves XGBoost {to}"
    return None


def pickle_names(data: bytes) -> list[str] | None:
    """The classes and functions that a pickle would call, in order; None when it is no pickle.

    Protocols 0 and 1 have no magic, so those count only when they name something to import.
    """
    magic = len(data) > 1 and data[0] == 0x80 and data[1] <= 5
    names: list[str] = []
    strings: list[str] = []
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name in ("GLOBAL", "INST"):
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(strings[-2:]))
            elif isinstance(argument, str):
                strings = [*strings[-1:], argument]
            if step >= _MAX_PICKLE_STEPS or len(names) >= 8:
                break
    except Exception:  # noqa: S110 - a damaged pickle still calls what comes before the damage
        pass
    return names if magic or names else None


def _described(format: Format, data: bytes) -> Booster:
    try:
        found = _json(data) if format == "json" else _Ubj(data).walk()
    except (ValueError, IndexError, struct.error, RecursionError):
        return Booster(format)
    version = found.get(_VERSION)
    objective = found.get(_OBJECTIVE)
    return Booster(
        format,
        version if isinstance(version, tuple) and len(version) == 3 else None,
        _count(found.get(_NUM_FEATURE)),
        _count(found.get(_NUM_CLASS)),
        objective if isinstance(objective, str) else None,
    )


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else None


def _binary(data: bytes) -> Booster:
    if data[:4] == b"bs64":
        try:
            data = base64.b64decode(data[4:132].strip()[:64])
        except (binascii.Error, ValueError):
            return Booster("binary")
    try:
        _, features, classes, _, _, major, minor = struct.unpack_from("<fIiiiII", data, 4)
    except struct.error:
        return Booster("binary")
    version = (major, minor, 0) if 1 <= major < 100 and minor < 1000 else None
    return Booster("binary", version, features, max(classes, 0))


def _keep(found: dict[_Path, Any], path: _Path, value: Any) -> None:
    """Two different answers to one question are no answer: readers disagree on which counts."""
    found[path] = value if found.get(path, value) == value else None


_TOKEN = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"(\s*:)?|[{}\[\]]', re.DOTALL)
_TRIPLE = re.compile(rb"\[\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\]")


def _json(data: bytes) -> dict[_Path, Any]:
    """Wanted values of a JSON text. Sees strings and brackets only, so number arrays cost nothing.

    ``json.loads`` would need many times the file in memory; this needs none.
    """
    found: dict[_Path, Any] = {}
    path: list[str | None] = []
    for step, token in enumerate(_TOKEN.finditer(data)):
        if step > MAX_STEPS:
            raise ValueError("too many values")
        mark = data[token.start()]
        if mark == 0x22:  # a string
            if token[2] is not None:
                if path:
                    path[-1] = token[1].decode("utf-8", "replace")
            elif tuple(path) in _WANTED:
                _keep(found, tuple(path), token[1].decode("utf-8", "replace"))
        elif mark in b"{[":
            if tuple(path) == _VERSION and (triple := _TRIPLE.match(data, token.start())):
                _keep(found, _VERSION, tuple(int(part) for part in triple.groups()))
            path.append(None)
            if len(path) > MAX_DEPTH:
                raise ValueError("nested too deeply")
        else:
            path.pop()
    if path:
        raise ValueError("ends early")
    return found


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
        self.found: dict[_Path, Any] = {}

    def walk(self) -> dict[_Path, Any]:
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

    def _value(self, marker: bytes, path: _Path) -> Any:
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
            return self._integer(marker)
        if marker not in _SIZES:
            raise ValueError(f"{marker!r} is not a marker")
        self._skip(_SIZES[marker])
        return None

    def _object(self, path: _Path) -> None:
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

    def _array(self, path: _Path) -> None:
        kind, count = self._header()
        wanted = path == _VERSION and (count is None or count <= 8)
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
