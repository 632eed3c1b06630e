"""What messages of the arrivals queue say: of objects, of schedules, of nothing, or unreadable.

Pure: S3's events as EventBridge sends them, S3's own records, and schedule events. Emulators spell
some fields otherwise (``etag``, no version, keys that are not encoded); all of that ends here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import unquote_plus

MANIFESTS = "_manifests"
MAX_KEY = 850  # bytes of UTF-8: a key is part of the names of items, which may have 1,024
_SCHEDULES = ("ml-control.schedule", "aws.scheduler", "aws.events")
_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".swp")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Word:
    """What one record of a message says."""

    kind: Literal["object", "call", "nothing", "unreadable"]
    pipeline: str = ""
    id: str = ""  # of the event, where it has one
    key: str = ""  # the object's, decoded
    raw: str = ""  # as it was sent, where that differs: not every source encodes its keys
    version: str = ""
    size: int = 0
    etag: str = ""
    at: float = 0.0  # UTC seconds
    order: str = ""
    reason: str = ""  # of what is unreadable
    parked: str = ""  # why a person has to look first

    def to_json(self) -> dict[str, Any]:
        """What is not the default, as plain data."""
        blank = asdict(Word(self.kind))
        return {k: v for k, v in asdict(self).items() if k == "kind" or v != blank[k]}


def read(body: str, bucket: str) -> list[Word]:
    """What a message says about the raw bucket; never raises."""
    try:
        told = json.loads(body)
        if isinstance(told, dict) and told.get("Type") == "Notification" and "Message" in told:
            told = json.loads(told["Message"])  # passed on by SNS
        if not isinstance(told, dict):
            raise TypeError("it is no JSON object")
        if told.get("Event") == "s3:TestEvent":
            return [Word("nothing")]
    except (ValueError, TypeError, RecursionError) as error:
        return [_unreadable(error)]
    if isinstance(told.get("Records"), list):
        return [_word(_record, record, bucket) for record in told["Records"]]
    return [_word(_event, told, bucket)]


def _word(read: Callable[[Any, str], Word], told: Any, bucket: str) -> Word:
    """What one record says: that it is unreadable where it cannot be read, or kept as text."""
    try:
        word = read(told, bucket)
        # A lone surrogate is no text: no registry takes it.
        json.dumps(word.to_json(), ensure_ascii=False).encode()
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        return _unreadable(error)
    return word


def _unreadable(error: Exception) -> Word:
    why = f"has no {error}" if isinstance(error, KeyError) else str(error)
    said = f"no event that is known here: {why[:300]}".encode("utf-8", "backslashreplace").decode()
    return Word("unreadable", reason=said)


def _event(told: dict[str, Any], bucket: str) -> Word:
    if told.get("source") in _SCHEDULES:
        return _call(told)
    if told.get("source") != "aws.s3":
        raise ValueError(f"its source is {str(told.get('source'))[:100]!r}")
    if told.get("detail-type") != "Object Created":
        return Word("nothing")
    detail, item = told["detail"], told["detail"]["object"]
    _require(detail["bucket"]["name"], bucket)
    return _object(item, str(item["key"]), "", _seconds(told["time"]), str(told.get("id", "")))


def _record(record: dict[str, Any], bucket: str) -> Word:
    if not str(record["eventName"]).removeprefix("s3:").startswith("ObjectCreated:"):
        return Word("nothing")
    _require(record["s3"]["bucket"]["name"], bucket)
    item = record["s3"]["object"]
    raw = str(item["key"])
    key = unquote_plus(raw)
    return _object(item, key, raw if raw != key else "", _seconds(record["eventTime"]), "")


def _object(item: dict[str, Any], key: str, raw: str, at: float, id: str) -> Word:
    pipeline, below, name = key.partition("/")
    size = int(item.get("size") or 0)
    if below and not counts(name, size):
        return Word("nothing")
    return Word(
        "object",
        pipeline=pipeline,
        id=id,
        key=key,
        raw=raw,
        version=str(item.get("version-id") or item.get("versionId") or ""),
        size=size,
        etag=str(item.get("eTag") or item.get("etag") or "").strip('"'),
        at=at,
        order=str(item.get("sequencer") or "").upper().ljust(40, "0"),
    )


def _call(told: dict[str, Any]) -> Word:
    pipeline = told["detail"]["pipeline"]
    if not isinstance(pipeline, str) or not pipeline:
        raise ValueError("its detail names no pipeline")
    at = _seconds(told["time"]) if told.get("time") else 0.0
    return Word("call", pipeline=pipeline, id=str(told.get("id") or "")[:200], at=at)


def _require(found: str, bucket: str) -> None:
    if found != bucket:
        raise ValueError(f"it is about bucket {found}, not {bucket}")


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def counts(name: str, size: int) -> bool:
    """Whether an object of this name below the pipeline's prefix is meant as data.

    Our own manifests, marks of folders, and what is hidden or says that it is unfinished are not.
    """
    if name.startswith(f"{MANIFESTS}/") or name.endswith(_UNFINISHED):
        return False
    if size == 0 and (not name or name.endswith("/")):
        return False
    return not any(part.startswith(".") and part.strip(".") for part in name.split("/"))


def unusable(key: str) -> str:
    """Why an object with this key can never be taken in; nothing if it can."""
    pipeline, below, name = key.partition("/")
    if not pipeline or not below:
        return "lies in no pipeline's folder"
    if _CONTROL.search(key):
        return "its name has control characters or is not text"
    if len(key.encode("utf-8", "replace")) > MAX_KEY:
        return f"its name is longer than {MAX_KEY} bytes"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "its name has an empty part, '.' or '..'"
    return ""
