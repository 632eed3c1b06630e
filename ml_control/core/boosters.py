"""What a booster file says of itself, read without loading it: format, saver, shape, rounds.

Nothing here trusts the bytes: nothing is executed, and work is bounded. Standard library only: the
isolated container environments import this module too.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import re
import struct
from dataclasses import dataclass
from typing import Any, Literal

from ml_control.core import model_text as text
from ml_control.core.containers import Container

Format = Literal["json", "ubj", "binary", "pickle", "unknown"]
Version = tuple[int, int, int]


@dataclass(frozen=True)
class Booster:
    """A booster file's own words; ``None`` where it does not say, or cannot be read.

    ``rounds`` are the boosting rounds that are in the file, ``best_iteration`` is the index of the
    round that early stopping chose, and ``best_ntree_limit`` what 1.x containers cut it at.
    """

    format: Format
    version: Version | None = None  # of the XGBoost that saved it; a binary's patch is always 0
    num_feature: int | None = None
    num_class: int | None = None
    objective: str | None = None
    kind: str | None = None  # gbtree, dart or gblinear
    rounds: int | None = None
    best_iteration: int | None = None
    best_ntree_limit: int | None = None
    categorical: bool = False

    def served(self, container: Container) -> int | None:
        """The rounds that this container answers with; None where the file does not say.

        The 1.x containers cut a model that has ``best_ntree_limit`` at its best round.
        """
        cut = container.version < (2, 0, 0) and self.best_ntree_limit is not None
        if cut and self.best_iteration is not None and self.rounds is not None:
            return min(self.rounds, self.best_iteration + 1)
        return self.rounds


_MAX_PICKLE_STEPS = 100_000
#: The old binary format: ``LearnerModelParamLegacy``, then objective and booster by name.
_LEGACY = struct.Struct("<fIiiiII")
_LEGACY_SIZE = 136
_OLD_OBJECTIVE = re.compile(r"(binary|reg|multi|rank|count|survival):[a-z_0-9]{1,40}")
#: Wrong by DART: saved by 3.3 or later, loaded by 3.1 or 3.2, measured with 3.4.1.
_DART_CHANGED, _DART_OLD = (3, 3, 0), (3, 1, 0)


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
    if (old := _headless(data)) is not None:
        return old
    if pickle_names(data) is not None:
        return Booster("pickle")
    return Booster("unknown")


def compatible(
    saved: Version,
    loader: Container,
    *,
    format: Format = "ubj",
    kind: str | None = None,
    exact: bool = True,
) -> str | None:
    """Why a model saved by one XGBoost must not be served by another; None when it may.

    ``kind`` is the booster's: gbtree, dart or gblinear. ``exact=False`` leaves out our own policy
    (the container's exact version) and keeps only the combinations that are known to fail or to
    answer wrongly.
    """
    by, to = ".".join(map(str, saved)), loader.xgboost
    if format == "binary":
        by = ".".join(map(str, saved[:2])) if saved > (1, 0, 0) else "1.0 or earlier"
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
        if kind == "dart" and _DART_OLD <= loader.version < _DART_CHANGED <= saved:
            return (
                f"a DART model saved by XGBoost {by}, whose tree weights XGBoost {to} misreads: "
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
        found = text.read_json(data) if format == "json" else text.read_ubj(data)
    except (ValueError, IndexError, struct.error, RecursionError):
        return Booster(format)
    version = found.get(text.VERSION)
    classes = _count(found.get(text.NUM_CLASS))
    return Booster(
        format,
        version if isinstance(version, tuple) and len(version) == 3 else None,
        _count(found.get(text.NUM_FEATURE)),
        classes,
        _word(found.get(text.OBJECTIVE)),
        _word(found.get(text.BOOSTER)),
        _rounds(found, classes),
        _count(found.get(text.BEST_ITERATION)),
        _count(found.get(text.BEST_LIMIT)),
        text.COLUMN_TYPE in found,
    )


def _rounds(found: dict[text.Path, Any], classes: int | None) -> int | None:
    """Boosting rounds: trees by the trees that one round makes."""
    if found.get(text.BOOSTER) == "gblinear":
        return _count(found.get(text.ROUNDS))
    trees, parallel = (
        next((number for place in places if (number := _count(found.get(place))) is not None), None)
        for places in (text.NUM_TREES, text.PARALLEL)
    )
    targets = _count(found.get(text.NUM_TARGET))
    if trees is None or (targets or 1) > 1:  # one tree may answer for several targets
        return None
    one = max(classes or 1, 1) * max(parallel or 1, 1)
    return trees // one if trees % one == 0 else None


def _count(value: Any) -> int | None:
    if isinstance(value, int):
        return value if value >= 0 else None
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _binary(data: bytes) -> Booster:
    """The old binary format behind its magic, as it is or in base64."""
    body = data[4:]
    if data[:4] == b"bs64":
        try:
            body = base64.b64decode(data[4:516].strip()[:508], validate=True)
        except (binascii.Error, ValueError):
            return Booster("binary")
    try:
        _, features, classes, _, _, major, minor = _LEGACY.unpack_from(body)
    except struct.error:
        return Booster("binary")
    version = (major, minor, 0) if 1 <= major < 100 and minor < 1000 else None
    objective, kind = _names(body)
    return Booster("binary", version, features, max(classes, 0), objective, kind)


def _headless(data: bytes) -> Booster | None:
    """The old binary format of XGBoost 1.0.0 and earlier, which has no magic; None if it is not.

    Known by the objective's name, whose place is fixed. Its version was not recorded.
    """
    objective, kind = _names(data)
    if objective is None:
        return None
    _, features, classes, *_ = _LEGACY.unpack_from(data)
    return Booster("binary", (1, 0, 0), features, max(classes, 0), objective, kind)


def _names(body: bytes) -> tuple[str | None, str | None]:
    """Objective and booster: two texts behind the parameters, each after its length."""
    found: list[str] = []
    at = _LEGACY_SIZE
    for _ in range(2):
        if at + 8 > len(body):
            break
        (size,) = struct.unpack_from("<Q", body, at)
        if size > 64:
            break
        found.append(body[at + 8 : at + 8 + size].decode("ascii", "replace"))
        at += 8 + size
    if not found or not _OLD_OBJECTIVE.fullmatch(found[0]):
        return None, None
    kind = found[1] if len(found) > 1 and found[1] in ("gbtree", "dart", "gblinear") else None
    return found[0], kind
