"""The lake: raw and processed data, artifacts and logs, in a local folder or in buckets.

A lake key is ``<area>/<key in that area>``; each area is its own store (a folder here, a bucket
on AWS), so that permissions and lifecycles can differ. In buckets a key may name one version of
its object, as ``<key>#v=<version id>``: that is read for ever, whatever is put under the key later.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from ml_control.errors import BadObject, Conflict, MlControlError, PlatformFailed, Retryable

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

Area = Literal["raw", "processed", "artifacts", "logs"]
AREAS: tuple[Area, ...] = ("raw", "processed", "artifacts", "logs")
_CHUNK = 4 * 1024 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRAFT = re.compile(r"#\d+$")  # the store's suffix for uploads that are not finished
# Keys that the store gives to files of exactly their name: those are read without the store.
_PLAIN = re.compile(r"[A-Za-z0-9._=/-]+")


_PIN = "#v="
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>\s*(?:<Message>([^<]{1,500})</Message>)?")
# What a bucket's store says when the same request may work a moment later.
_BUSY = re.compile(
    r"\b(429|500|502|503|504) [A-Z]|SlowDown|Throttl|RequestTimeout|InternalError|TooManyRequests"
    r"|RequestLimitExceeded|[Tt]imed? ?out|HTTP error|error sending request|connection"
    r"|OperationAborted"
)
# Of the request and how it was tried, which every error of the store tells: the words of a key,
# or of a timeout that was only allowed, are no reason.
_REQUEST = re.compile(r"(?<=Error performing )[A-Z]+ \S+|max_retries: \d+, retry_timeout: \S+")
_EXPIRED = re.compile(r"ExpiredToken|RequestExpired|TokenRefreshRequired")
_DENIED = re.compile(
    r"AccessDenied|\b40[13] [A-Z]|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch"
)
# Of a conditional put that met another one on its way: the object may be there later, or never.
_CONTENDED = re.compile(r"status code: 409|<Code>ConditionalRequestConflict")
_CREATES, _CONTENDED_SECONDS = 6, 0.1
_STEPS = {
    "InvalidObjectState": "restore it from its archive (aws s3api restore-object), then retry",
    "RequestTimeTooSkewed": "set this machine's clock, then do it again",
}
_ABSENT = (NotFoundError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
_FAILED = (OSError, obstore.exceptions.BaseError)


def pinned(key: str, version: str) -> str:
    """The key of one version of an object in a bucket."""
    return f"{key}{_PIN}{version}"


def unpinned(key: str) -> tuple[str, str]:
    """(key, version) of a pinned key; without a version, (key, nothing)."""
    name, found, version = key.rpartition(_PIN)
    return (name, version) if found and "/" not in version else (key, "")


def _refusal(key: str, error: Exception, what: str, next: str) -> MlControlError:
    """The store's error as ours. Only the code and the words of an answer are told, not its rest,
    which may show how the request was signed.
    """
    text = _REQUEST.sub("", _without_dump(error))
    code = _CODE.search(text)
    said = ": ".join(filter(None, code.groups())) if code else _without_dump(error)
    told = f"could not be {what}: {said}"
    if _EXPIRED.search(text):
        return Retryable(key, told, "renew the credentials, then do it again")
    if "NoSuchBucket" in text:
        return PlatformFailed(key, told, "check the names under [aws] in ml-control.toml")
    if code is not None and (step := _STEPS.get(code[1])):
        return PlatformFailed(key, told, step)
    if isinstance(error, PreconditionError):
        return Conflict(key, told, "read it again, then decide anew")
    if isinstance(error, _NOT_ALLOWED) or (_from_afar(text) and _DENIED.search(text)):
        step = "allow it to this role (docs/aws.md lists what each part needs), or give others"
        return PlatformFailed(key, told, step if _from_afar(text) else next)
    if _from_afar(text) and _BUSY.search(text):
        return Retryable(key, told, "wait, then do it again")
    return PlatformFailed(key, told, next)


_NOT_ALLOWED = (PermissionDeniedError, UnauthenticatedError)


def _without_dump(error: Exception) -> str:
    """The store's error without its own structures."""
    return str(error).partition("\n\n")[0]


def _from_afar(text: str) -> bool:
    """Whether a store in buckets speaks, and not the disk."""
    return "Error performing" in text or "S3" in text


@contextmanager
def _doing(key: str, what: str, next: str) -> Iterator[None]:
    """The store's errors of this block as ours."""
    try:
        yield
    except _FAILED as error:
        raise _refusal(key, error, what, next) from error


@contextmanager
def _reading(key: str) -> Iterator[None]:
    """The store's errors of reading an object, as ours."""
    with _doing(key, "read", _CHECK_DISK):
        try:
            yield
        except _ABSENT as error:
            if "NoSuchBucket" in str(error):
                raise
            raise Retryable(
                key, "is not in the lake", "restore it, or land the object again"
            ) from error


def _writing(key: str) -> AbstractContextManager[None]:
    return _doing(key, "written", "free space or check permissions, then retry")


_CHECK_DISK = "check disk and permissions, then retry"


class Lake:
    """Objects by key over one store per area: puts are atomic, conditional where asked."""

    def __init__(
        self,
        stores: Mapping[Area, ObjectStore],
        root: Path | None = None,
        buckets: Mapping[Area, str] | None = None,
    ) -> None:
        self._stores = stores
        self._root = root
        self._buckets = buckets

    @classmethod
    def local(cls, root: Path) -> Lake:
        """A lake in folders below ``root``, which is made if it is absent."""
        from obstore.store import LocalStore

        stores: dict[Area, ObjectStore] = {}
        for area in AREAS:
            stores[area] = LocalStore(root / area, mkdir=True)
        return cls(stores, root)

    def _at(self, key: str) -> tuple[ObjectStore, str]:
        return self._located(key, foreign=False)

    def _located(self, key: str, *, foreign: bool) -> tuple[ObjectStore, str]:
        """The store and its own key. A ``foreign`` object was not named by us."""
        area, _, rest = key.partition("/")
        if area not in AREAS or not rest:
            raise BadObject(key, f"not a lake key: it must begin with one of {', '.join(AREAS)}")
        for part in rest.split("/"):
            unusable = _CONTROL.search(part) or (_DRAFT.search(part) and not foreign)
            if part in ("", ".", "..") or unusable:
                raise BadObject(key, f"not a lake key: {part!r} cannot be a part of one")
        return self._stores[area], rest

    def _pin(self, key: str) -> tuple[ObjectStore, str, GetOptions]:
        """The store, its own key, and the options that name the version of a pinned key."""
        name, version = unpinned(key) if self._buckets is not None else (key, "")
        if not version:
            return *self._at(key), {}
        try:
            return *self._located(name, foreign=True), {"version": version}
        except BadObject as error:
            raise BadObject(key, error.reason, error.next) from error

    def _writable(self, key: str) -> tuple[ObjectStore, str]:
        if self._buckets is not None and unpinned(key)[1]:
            raise BadObject(key, "names a version of an object, and those are never written")
        return self._at(key)

    def put(self, key: str, data: bytes | memoryview) -> str:
        """Write an object whole or not at all; gives the SHA-256 of its bytes."""
        store, path = self._writable(key)
        with _writing(key):
            obstore.put(store, path, data)
        return hashlib.sha256(data).hexdigest()

    def put_stream(self, key: str, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Write an object from chunks, whole or not at all; SHA-256 and size of its bytes.

        At most a few chunks are held. What the chunks' source raises comes through, and then
        the object is as it was.
        """
        return self.put_version(key, chunks)[:2]

    def put_version(self, key: str, chunks: Iterable[bytes]) -> tuple[str, int, str]:
        """As :meth:`put_stream`, and the id of the version that was made; none in a folder."""
        store, path = self._writable(key)
        digest = hashlib.sha256()
        size = 0

        def watched() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                yield chunk

        with _writing(key):
            done = obstore.put(store, path, watched(), max_concurrency=2)
        return digest.hexdigest(), size, done["version"] or ""

    def create(self, key: str, data: bytes) -> None:
        """Write an object that must not exist yet. Raises ``Conflict`` if it does, which may be by
        this very call when the answer to its first try was lost; ``Retryable`` when others write
        it all the time.
        """
        store, path = self._writable(key)
        for attempt in range(_CREATES):
            time.sleep(attempt * _CONTENDED_SECONDS)
            with _writing(key):
                try:
                    obstore.put(store, path, data, mode="create")
                    return
                except AlreadyExistsError as error:
                    if not _CONTENDED.search(_without_dump(error)):
                        why = "exists already"
                        raise Conflict(key, why, "read it instead of writing it") from error
        raise Retryable(key, "others write it at the same time", "wait, then do it again")

    def get(self, key: str) -> bytes:
        """The bytes of an object. Raises ``Retryable`` when it is not there (yet)."""
        store, path, options = self._pin(key)
        with _reading(key):
            if (file := self._file(key)) is not None:
                return file.read_bytes()
            return bytes(obstore.get(store, path, options=options).bytes())

    def stream(self, key: str) -> Iterator[bytes]:
        """The bytes of an object in chunks of some megabytes. Raises as :meth:`get` does."""
        store, path, options = self._pin(key)
        with _reading(key):
            if (file := self._file(key)) is None:
                found = obstore.get(store, path, options=options)
                for chunk in found.stream(min_chunk_size=_CHUNK):
                    yield bytes(chunk)
                return
            with file.open("rb", buffering=0) as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk

    def _file(self, key: str) -> Path | None:
        """The file to read instead of asking the store, which takes several times as long."""
        plain = self._root is not None and _PLAIN.fullmatch(key)
        return self._root / key if self._root is not None and plain else None

    @contextmanager
    def local_file(self, key: str) -> Iterator[Path]:
        """The object as a file to read: the lake's own, or a copy that goes away afterwards.

        For readers that have to seek. Raises ``Retryable`` when the object is not there.
        """
        if self._root is not None:
            path = self.local_path(key)
            if not path.is_file():
                raise Retryable(key, "is not in the lake", "restore it, or land the object again")
            yield path
            return
        with tempfile.NamedTemporaryFile(prefix="ml-control-") as copy:
            for chunk in self.stream(key):
                copy.write(chunk)
            copy.flush()
            yield Path(copy.name)

    def verified(self, key: str, digest: str) -> bytes:
        """The bytes of an object that must have this SHA-256. Raises ``BadObject`` if not."""
        data = self.get(key)
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise BadObject(
                key,
                f"its bytes changed after they were recorded (sha256 {found[:12]}, "
                f"recorded {digest[:12]})",
                "restore the recorded bytes, or land the object again",
            )
        return data

    def exists(self, key: str) -> bool:
        """Whether an object is there."""
        store, path, options = self._pin(key)
        with _doing(key, "looked up", _CHECK_DISK):
            try:
                if options:
                    obstore.get(store, path, options={**options, "head": True})
                else:
                    obstore.head(store, path)
            except (NotFoundError, FileNotFoundError):
                return False
        return True

    def stamp(self, key: str) -> str:
        """What is another one whenever the object is written anew; empty when it is not there."""
        store, path = self._at(key)
        with _doing(key, "looked up", _CHECK_DISK):
            try:
                found = obstore.head(store, path)
            except (NotFoundError, FileNotFoundError):
                return ""
        return f"{found['version'] or ''} {found['e_tag'] or ''} {found['last_modified']}"

    def delete(self, key: str) -> None:
        """Remove an object; removing an absent one is harmless."""
        store, path = self._writable(key)
        with _doing(key, "removed", _CHECK_DISK), suppress(NotFoundError, FileNotFoundError):
            obstore.delete(store, path)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below a prefix (whole path segments), sorted."""
        store, path = self._at(prefix.rstrip("/"))
        area = prefix.partition("/")[0]
        with _doing(prefix, "listed", _CHECK_DISK):
            found = [meta["path"] for page in obstore.list(store, path) for meta in page]
        yield from (f"{area}/{item}" for item in sorted(found))

    def dated(self, prefix: str) -> dict[str, float]:
        """Keys below a prefix, and when the store last wrote each (seconds, by its own clock).

        Raises ``PlatformFailed``.
        """
        store, path = self._at(prefix.rstrip("/"))
        area = prefix.partition("/")[0]
        with _doing(prefix, "listed", _CHECK_DISK):
            return {
                f"{area}/{meta['path']}": meta["last_modified"].timestamp()
                for page in obstore.list(store, path)
                for meta in page
            }

    def local_path(self, key: str, *, make: bool = True) -> Path:
        """The file behind a key of a local lake; its folder is made unless told otherwise."""
        self._at(key)
        if self._root is None:
            raise PlatformFailed(key, "this lake has no local files", "fetch the object first")
        path = self._root / key
        if not make:
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlatformFailed(
                key, f"could not be written: {error}", "free space or check permissions, then retry"
            ) from error
        return path

    def uri(self, key: str) -> str:
        """Where a person finds the object: a file path or an s3 address."""
        if self._root is not None:
            return str(self._root / key)
        if self._buckets is None:
            return key
        name, version = unpinned(key)
        area, _, rest = name.partition("/")
        bucket = next(b for a, b in self._buckets.items() if a == area)
        return f"s3://{bucket}/{rest}" + (f"?versionId={version}" if version else "")


def file_digest(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - thousands of small files
        # The whole of a small file and, in a second go, that it ends there.
        size = min(_CHUNK, os.fstat(stream.fileno()).st_size + 1)
        while chunk := stream.read(size):
            digest.update(chunk)
    return digest.hexdigest()
