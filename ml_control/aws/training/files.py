"""Channel files in the artifacts bucket: each once, named by its content, and listed by manifest.

    artifacts/_training/channels/<place>-<sha256>.csv   a file, or a host's share of one
    artifacts/_training/manifests/<sha256>.manifest     names exactly the files of a channel

Files are streamed; the data set is never in this process's memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_control.core.digests import canonical, sha256
from ml_control.errors import BadObject, InvalidSpec
from ml_control.lake import Lake
from ml_control.settings import AwsSettings

ROOT = "artifacts/_training"
_CHUNK = 4 << 20
_Part = tuple[Path, int, int]


def address(settings: AwsSettings, key: str) -> str:
    """The s3 address of a lake key."""
    area, _, rest = key.partition("/")
    return f"s3://{settings.bucket(area)}/{rest}"


def provide(lake: Lake, settings: AwsSettings, files: Sequence[Path], hosts: int) -> str:
    """Have a channel's files in the lake; the s3 address of their manifest.

    With several hosts, fewer files than hosts are cut into shares of whole lines, so that no host
    is without data. Raises ``InvalidSpec`` for an absent file, ``BadObject`` for one that changes
    meanwhile.
    """
    names = [_once(lake, place, part) for place, part in enumerate(_parts(files, hosts))]
    listed = canonical([{"prefix": f"{address(settings, f'{ROOT}/channels')}/"}, *names])
    key = f"{ROOT}/manifests/{sha256(listed)}.manifest"
    if not lake.exists(key):
        lake.put(key, listed)
    return address(settings, key)


def _once(lake: Lake, place: int, part: _Part) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(part):
        digest.update(chunk)
    name = f"{place:05d}-{digest.hexdigest()}.csv"
    key = f"{ROOT}/channels/{name}"
    if not lake.exists(key):
        checked, (_, start, end) = _checked(part, digest.hexdigest()), part
        if end - start <= _CHUNK:  # in one request instead of an upload's three
            lake.put(key, b"".join(checked))
        else:
            lake.put_stream(key, checked)
    return name


def _checked(part: _Part, wanted: str) -> Iterator[bytes]:
    """The bytes; raises before the end, so that nothing is written, if they are others by now."""
    digest = hashlib.sha256()
    for chunk in _chunks(part):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != wanted:
        raise BadObject(
            str(part[0]), "changes while it is read", "leave it alone, then train again"
        )


def _chunks(part: _Part) -> Iterator[bytes]:
    path, start, end = part
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < end and (chunk := file.read(min(_CHUNK, end - start))):
                start += len(chunk)
                yield chunk
    except FileNotFoundError:
        raise _missing(path) from None


def _parts(files: Sequence[Path], hosts: int) -> list[_Part]:
    each = -(-hosts // len(files)) if 0 < len(files) < hosts else 1
    return [part for path in files for part in _shares(path, each)]


def _shares(path: Path, count: int) -> Iterator[_Part]:
    """A file in at most ``count`` parts of about equal size that end with a line."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise _missing(path) from None
    edges = [0]
    if count > 1:
        with path.open("rb") as file:
            for number in range(1, count):
                file.seek(max(edges[-1], size * number // count - 1))
                file.readline()
                if edges[-1] < file.tell() < size:
                    edges.append(file.tell())
    for start, end in zip(edges, [*edges[1:], size], strict=True):
        yield path, start, end


def _missing(path: Path) -> InvalidSpec:
    return InvalidSpec(str(path), "this channel file does not exist", "write it first")
