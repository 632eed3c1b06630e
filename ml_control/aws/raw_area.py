"""The lake's raw area in a bucket that keeps versions: each put is one, and is read for ever."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from functools import cmp_to_key
from pathlib import Path
from typing import Any

from ml_control.aws.client import Clients, code_of, translated
from ml_control.aws.messages import MANIFESTS, MAX_KEY, Word, counts, unusable
from ml_control.lake import Lake, pinned, unpinned
from ml_control.ports import Notice, Stored

_PAGE = 1000
_CHUNK = 4 << 20
_ABANDONED_SECONDS = 7 * 86400.0  # an upload that was begun so long ago has lost its writer
_GONE = frozenset({"404", "NoSuchKey", "NoSuchVersion", "405", "MethodNotAllowed"})


class RawArea:
    """Finds, lists and writes the versions of objects below ``<pipeline>/``."""

    def __init__(self, clients: Clients, lake: Lake) -> None:
        self._clients = clients
        self._lake = lake
        self.bucket = clients.settings.bucket("raw")

    def notice(self, word: Word, handle: str) -> Notice:
        """The notice of an object that a message tells of. Asks S3 only for what it does not say.

        An object without a version that is not there any more is refused: nothing could be read.
        """
        key, version, size, at = word.key, word.version, word.size, word.at
        if word.raw and word.raw != key:
            key = self._decided(word)
        refused = unusable(key)
        if not refused and version in ("", "null"):
            found = self._found(key, word)
            if found is None:
                version, refused = f"gone-{word.etag or word.id}", "was removed before it was read"
            else:
                version, size = _version(found), int(found["Size"])
        return self._notice(key, version or word.id, size, at, handle, refused, word)

    def _notice(
        self,
        key: str,
        version: str,
        size: int,
        at: float,
        handle: str = "",
        refused: str = "",
        word: Word | None = None,
    ) -> Notice:
        path = pinned(f"raw/{key}", _asked(version)) if not refused else ""
        if len(key.encode("utf-8", "replace")) > MAX_KEY:
            short = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16]
            key = f"{key[:200]}...{short}"
        return Notice(
            self.bucket,
            key.encode("utf-8", "backslashreplace").decode(),
            version,
            size,
            path,
            at,
            handle,
            refused,
            fresh=True,
            put=version,
            order=word.order if word else "",
            parked=word.parked if word else "",
        )

    def _decided(self, word: Word) -> str:
        """Which of two readings of a key is an object's; the encoded one when neither is there."""
        for key in (word.key, word.raw):
            if self._head(key, word.version) is not None:
                return key
        return word.key

    def _found(self, key: str, word: Word) -> dict[str, Any] | None:
        """The version that an event means which does not name it: the one with its ETag."""
        same = [
            item
            for item in self._versions(key)
            if not word.etag or item["ETag"].strip('"') == word.etag
        ]
        return min(same, key=lambda i: abs(i["LastModified"].timestamp() - word.at), default=None)

    def _versions(self, key: str) -> Iterator[dict[str, Any]]:
        """All versions of an object, the newest first."""
        after: dict[str, str] = {}
        while True:
            page = self._page(Prefix=key, MaxKeys=_PAGE, **after)
            for item in page.get("Versions", ()):
                if item["Key"] != key:
                    return  # sorted: a longer key that begins so
                yield item
            if not page.get("IsTruncated"):
                return
            after = _next(page)

    def _page(self, **more: Any) -> dict[str, Any]:
        with translated(f"bucket {self.bucket}"):
            page: dict[str, Any] = self._clients.client("s3").list_object_versions(
                Bucket=self.bucket, **more
            )
        return page

    def _head(self, key: str, version: str) -> dict[str, Any] | None:
        """What S3 says of a version without its bytes; None when it is not there."""
        more = {"VersionId": _asked(version)} if version else {}
        with translated(f"raw/{key}"):
            try:
                found: dict[str, Any] = self._clients.client("s3").head_object(
                    Bucket=self.bucket, Key=key, **more
                )
            except Exception as error:
                if code_of(error) in _GONE:
                    return None
                raise
        return found

    def in_order(self, notices: Sequence[Notice]) -> list[Notice]:
        """Notices by time, and those of one key in the order in which they were put."""
        by_key: dict[str, list[Notice]] = {}
        for notice in notices:
            by_key.setdefault(notice.key, []).append(notice)
        place: dict[int, tuple[float, int]] = {}
        for same in by_key.values():
            if len(same) > 1:
                same.sort(key=cmp_to_key(self._compared))
            latest = 0.0
            for number, notice in enumerate(same):
                latest = max(latest, notice.at)
                place[id(notice)] = (latest, number)
        return sorted(notices, key=lambda notice: place[id(notice)])

    def _compared(self, one: Notice, other: Notice) -> int:
        if one.version == other.version:
            return 0
        if one.order != other.order and one.order.strip("0") and other.order.strip("0"):
            return -1 if one.order < other.order else 1
        later = self.later(one.path, other.path) if one.path and other.path else None
        if later is None:
            return (one.at > other.at) - (one.at < other.at)
        return 1 if later else -1

    def later(self, path: str, than: str) -> bool | None:
        """See ``ports.Notifications``. S3 lists the versions of a key newest first."""
        (key, one), (_, other) = unpinned(path), unpinned(than)
        for item in self._versions(key.removeprefix("raw/")):
            if item["VersionId"] == one:
                return True
            if item["VersionId"] == other:
                return False
        return None

    def stored(self, pipeline: str, after: str, limit: int) -> list[Stored]:
        """See ``ports.Notifications``. Older versions count too: each was a put of its own."""
        prefix = f"{pipeline}/"
        start = _start(prefix, after)
        found: list[tuple[dict[str, Any], str]] = []
        while start is not None and len(found) < limit:
            # Our manifests lie in between: many at once, for none of them counts.
            among = start.get("KeyMarker", "").startswith(f"{prefix}{MANIFESTS}/")
            most = _PAGE if among else min(_PAGE, limit - len(found))
            page = self._page(Prefix=prefix, MaxKeys=most, **start)
            for item in page.get("Versions", ()):
                key = item["Key"]
                if counts(key.removeprefix(prefix), item["Size"]) and not unusable(key):
                    found.append((item, key))
            start = _next(page) if page.get("IsTruncated") else None
        del found[limit:]
        listed: list[Stored] = []
        newer, named = 0.0, ""
        for item, key in found:
            at = item["LastModified"].timestamp()
            if key == named:  # its times are whole seconds; what is listed later was put earlier
                at = min(at, newer - 1e-3)
            newer, named = at, key
            listed.append(Stored(pinned(f"raw/{key}", item["VersionId"]), at, key))
        return listed

    def identify(self, stored: Stored, key: str) -> Notice | None:
        """See ``ports.Notifications``. Nothing is read: the version says what the bytes are."""
        name, version = unpinned(stored.path)
        found = self._head(name.removeprefix("raw/"), version)
        if found is None:
            return None
        named = _version({"VersionId": version, "ETag": found["ETag"]})
        at = found["LastModified"].timestamp()
        return self._notice(key, named, int(found["ContentLength"]), at)

    def arrived(self, path: str) -> float | None:
        """See ``ports.Notifications``."""
        name, version = unpinned(path)
        found = self._head(name.removeprefix("raw/"), version)
        return None if found is None else float(found["LastModified"].timestamp())

    def put(self, key: str, file: Path, at: float) -> Notice:
        """Upload a file whole, as a version of its own."""

        def chunks() -> Iterator[bytes]:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk

        digest, size, version = self._lake.put_version(f"raw/{key}", chunks())
        path = pinned(f"raw/{key}", version)
        return Notice(
            self.bucket, key, version, size, path, at, "", fresh=True, put=version, digest=digest
        )

    def tidy(self, pipeline: str) -> int:
        """End uploads below the pipeline's prefix that were begun a week ago; gives how many."""
        s3, gone = self._clients.client("s3"), 0
        with translated(f"bucket {self.bucket}"):
            page = s3.list_multipart_uploads(Bucket=self.bucket, Prefix=f"{pipeline}/")
            for upload in page.get("Uploads", ()):
                if time.time() - upload["Initiated"].timestamp() > _ABANDONED_SECONDS:
                    s3.abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    gone += 1
        return gone


def _version(item: dict[str, Any]) -> str:
    """The id of a version. What was put before the bucket kept any has none of its own."""
    version = str(item["VersionId"])
    return version if version != "null" else f"null-{item['ETag'].strip(chr(34))}"


def _asked(version: str) -> str:
    return "null" if version.startswith("null-") else version


def _next(page: dict[str, Any]) -> dict[str, str]:
    marks = {"KeyMarker": page["NextKeyMarker"]}
    if version := page.get("NextVersionIdMarker"):
        marks["VersionIdMarker"] = version
    return marks


def _start(prefix: str, after: str) -> dict[str, str] | None:
    """The markers after a path; None when all keys of the prefix lie before it."""
    key, version = unpinned(after)
    key = key.removeprefix("raw/")
    if not key or key < prefix:
        return {}
    if not key.startswith(prefix):
        return None
    return {"KeyMarker": key, "VersionIdMarker": version} if version else {"KeyMarker": key}
