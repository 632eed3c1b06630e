"""The lake: raw and processed data, artifacts and logs, in a local folder or in buckets.

A lake key is ``<area>/<key in that area>``; each area is its own store (a folder here, a bucket
on AWS), so that permissions and lifecycles can differ.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError

from ml_control.errors import BadObject, Conflict, PlatformFailed, Retryable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Area = Literal["raw", "processed", "artifacts", "logs"]
AREAS: tuple[Area, ...] = ("raw", "processed", "artifacts", "logs")
_CHUNK = 4 * 1024 * 1024
# Control characters, and the suffix that the store keeps for uploads that are not finished.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f]|#\d+$")
# Keys that the store gives to files of exactly their name: those are read without the store.
_PLAIN = re.compile(r"[A-Za-z0-9._=/-]+")


@contextmanager
def _reading(key: str) -> Iterator[None]:
    """The store's errors of reading an object, as ours."""
    try:
        yield
    except (NotFoundError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise Retryable(
            key, "is not in the lake", "restore it, or land the object again"
        ) from error
    except (OSError, obstore.exceptions.BaseError) as error:
        raise PlatformFailed(
            key, f"could not be read: {error}", "check disk and permissions, then retry"
        ) from error


class Lake:
    """Objects by key over one store per area: puts are atomic, conditional where asked."""

    def __init__(self, stores: Mapping[Area, ObjectStore], root: Path | None = None) -> None:
        self._stores = stores
        self._root = root

    @classmethod
    def local(cls, root: Path) -> Lake:
        """A lake in folders below ``root``, which is made if it is absent."""
        from obstore.store import LocalStore

        stores: dict[Area, ObjectStore] = {}
        for area in AREAS:
            stores[area] = LocalStore(root / area, mkdir=True)
        return cls(stores, root)

    def _at(self, key: str) -> tuple[ObjectStore, str]:
        area, _, rest = key.partition("/")
        if area not in AREAS or not rest:
            raise BadObject(key, f"not a lake key: it must begin with one of {', '.join(AREAS)}")
        for part in rest.split("/"):
            if part in ("", ".", "..") or _UNUSABLE.search(part):
                raise BadObject(key, f"not a lake key: {part!r} cannot be a part of one")
        return self._stores[area], rest

    def put(self, key: str, data: bytes | memoryview) -> str:
        """Write an object whole or not at all; gives the SHA-256 of its bytes."""
        store, path = self._at(key)
        try:
            obstore.put(store, path, data)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise PlatformFailed(
                key, f"could not be written: {error}", "free space or check permissions, then retry"
            ) from error
        return hashlib.sha256(data).hexdigest()

    def put_stream(self, key: str, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Write an object from chunks, whole or not at all; SHA-256 and size of its bytes.

        At most a few chunks are held. What the chunks' source raises comes through, and then
        the object is as it was.
        """
        store, path = self._at(key)
        digest = hashlib.sha256()
        size = 0

        def watched() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                yield chunk

        try:
            obstore.put(store, path, watched(), max_concurrency=2)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise PlatformFailed(
                key, f"could not be written: {error}", "free space or check permissions, then retry"
            ) from error
        return digest.hexdigest(), size

    def create(self, key: str, data: bytes) -> None:
        """Write an object that must not exist yet. Raises ``Conflict`` if it does."""
        store, path = self._at(key)
        try:
            obstore.put(store, path, data, mode="create")
        except AlreadyExistsError as error:
            raise Conflict(key, "exists already", "read it instead of writing it") from error
        except (OSError, obstore.exceptions.BaseError) as error:
            raise PlatformFailed(
                key, f"could not be written: {error}", "free space or check permissions, then retry"
            ) from error

    def get(self, key: str) -> bytes:
        """The bytes of an object. Raises ``Retryable`` when it is not there (yet)."""
        store, path = self._at(key)
        with _reading(key):
            if (file := self._file(key)) is not None:
                return file.read_bytes()
            return bytes(obstore.get(store, path).bytes())

    def stream(self, key: str) -> Iterator[bytes]:
        """The bytes of an object in chunks of some megabytes. Raises as :meth:`get` does."""
        store, path = self._at(key)
        with _reading(key):
            if (file := self._file(key)) is None:
                for chunk in obstore.get(store, path).stream(min_chunk_size=_CHUNK):
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
        store, path = self._at(key)
        try:
            obstore.head(store, path)
        except (NotFoundError, FileNotFoundError):
            return False
        except (OSError, obstore.exceptions.BaseError) as error:
            raise PlatformFailed(
                key, f"could not be looked up: {error}", "check disk and permissions, then retry"
            ) from error
        return True

    def delete(self, key: str) -> None:
        """Remove an object; removing an absent one is harmless."""
        store, path = self._at(key)
        try:
            obstore.delete(store, path)
        except (NotFoundError, FileNotFoundError):
            return
        except (OSError, obstore.exceptions.BaseError) as error:
            raise PlatformFailed(
                key, f"could not be removed: {error}", "check disk and permissions, then retry"
            ) from error

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below a prefix (whole path segments), sorted."""
        store, path = self._at(prefix.rstrip("/"))
        area = prefix.partition("/")[0]
        found = [meta["path"] for page in obstore.list(store, path) for meta in page]
        yield from (f"{area}/{item}" for item in sorted(found))

    def dated(self, prefix: str) -> dict[str, float]:
        """Keys below a prefix, and when the store last wrote each (seconds, by its own clock).

        Raises ``PlatformFailed``.
        """
        store, path = self._at(prefix.rstrip("/"))
        area = prefix.partition("/")[0]
        try:
            return {
                f"{area}/{meta['path']}": meta["last_modified"].timestamp()
                for page in obstore.list(store, path)
                for meta in page
            }
        except (OSError, obstore.exceptions.BaseError) as error:
            raise PlatformFailed(
                prefix, f"could not be listed: {error}", "check disk and permissions, then retry"
            ) from error

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
        return str(self._root / key) if self._root is not None else key


def file_digest(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - thousands of small files
        # The whole of a small file and, in a second go, that it ends there.
        size = min(_CHUNK, os.fstat(stream.fileno()).st_size + 1)
        while chunk := stream.read(size):
            digest.update(chunk)
    return digest.hexdigest()
