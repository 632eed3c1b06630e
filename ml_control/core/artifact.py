"""What a model archive must be, and every way in which one is not.

An archive is a gzip tar with exactly one regular top-level file ``xgboost-model``: the container
loads *every* top-level file as a model, averages several, and tries to unpickle each one first.
Nothing is written to disk or executed here, and no archive expands past its bound. Standard
library only: the isolated container environments import this module too.
"""

from __future__ import annotations

import io
import posixpath
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from ml_control.core.boosters import Booster, compatible, pickle_names, sniff
from ml_control.core.containers import Container
from ml_control.core.digests import digest_of
from ml_control.errors import InvalidSpec, NotProven

__all__ = [
    "MODEL_FILE",
    "Booster",
    "Finding",
    "Inspection",
    "compatible",
    "inspect_archive",
    "pack",
    "sniff",
    "unpack",
    "version_of",
]

MODEL_FILE = "xgboost-model"
MAX_BYTES = 1 << 30
MAX_MEMBERS = 100
MAX_RATIO = 200
_RATIO_FROM = 16 << 20  # small archives of one repeated value compress well and do no harm
_CHUNK = 1 << 20
_COPY = "copy the archive again from where it was made"
_REPACK = "pack the model again with exactly one file, xgboost-model"
# After one of these, what is missing from an archive may only be unread.
_PARTIAL = ("truncated", "damaged", "not_tar", "too_many")


@dataclass(frozen=True)
class Finding:
    """One reason against an archive: which rule, about what, why, and what to do next."""

    rule: str
    object: str
    reason: str
    next: str


@dataclass(frozen=True)
class Inspection:
    """Everything found in an archive; ``model`` is the bytes of its model file, if it has one."""

    findings: list[Finding] = field(default_factory=list)
    booster: Booster | None = None
    model: bytes | None = None


def inspect_archive(
    data: bytes,
    container: Container,
    *,
    name: str = "model.tar.gz",
    exact_version: bool = True,
    max_bytes: int = MAX_BYTES,
) -> Inspection:
    """All that speaks against serving this archive in this container, without loading it.

    Never raises for a bad archive: an empty ``findings`` is the only good answer.
    ``exact_version=False`` accepts other XGBoost versions that are not known to go wrong.
    """
    findings: list[Finding] = []
    tar = _expand(data, name, max_bytes, findings)
    if tar is None:
        return Inspection(findings)
    where, model = _model(_members(tar, name, findings), name, findings)
    if model is None:
        return Inspection(findings)
    booster = sniff(model)
    findings += _judge(booster, model, container, where, exact=exact_version)
    return Inspection(findings, booster, model)


def pack(model: bytes) -> bytes:
    """A model as the archive the container loads. The same bytes always give the same archive.

    Raises ``InvalidSpec`` when the model is empty or larger than an archive may be.
    """
    if not 0 < len(model) <= MAX_BYTES - (1 << 20):
        raise InvalidSpec(
            MODEL_FILE,
            f"{len(model)} bytes cannot be packed: an archive holds 1 byte to 1 GiB",
            "save the trained model again",
        )
    entry = tarfile.TarInfo(MODEL_FILE)
    entry.size, entry.mode, entry.mtime = len(model), 0o644, 0
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(entry, io.BytesIO(model))
    body = tar.getvalue()
    # gzip.compress writes a header that differs between Python versions and systems.
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    trailer = struct.pack("<II", zlib.crc32(body), len(body) & 0xFFFFFFFF)
    return header + packer.compress(body) + packer.flush() + trailer


def unpack(data: bytes, container: Container, name: str = "model.tar.gz") -> bytes:
    """The model bytes of an archive that nothing speaks against.

    Raises ``NotProven`` from the first finding; ``detail["findings"]`` has all of them.
    """
    inspection = inspect_archive(data, container, name=name)
    if inspection.findings or inspection.model is None:
        first = inspection.findings[0]
        raise NotProven(
            first.object,
            first.reason,
            first.next,
            rule=first.rule,
            findings=[asdict(finding) for finding in inspection.findings],
        )
    return inspection.model


def version_of(files: Mapping[str, str]) -> str:
    """The model version: the digest of the manifest that maps file names to SHA-256 digests."""
    return digest_of(dict(files))


def _shown(text: str) -> str:
    """A member name that is safe to print: no control characters, not endless."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 120 else text[:117] + "..."


def _expand(data: bytes, name: str, limit: int, findings: list[Finding]) -> bytes | None:
    """The tar inside the gzip, or as much of it as is whole; None when there is none."""
    if data[:2] != b"\x1f\x8b":
        what, step = _instead(data)
        findings.append(Finding("not_gzip", name, f"{what}; the container needs a gzip tar", step))
        return None
    out = bytearray()
    try:
        for piece in _inflate(data):
            out += piece
            past = len(out) > limit
            if past or (len(out) > _RATIO_FROM and len(out) > MAX_RATIO * len(data)):
                bound = f"{limit} bytes" if past else f"{MAX_RATIO} times its size"
                findings.append(Finding("bomb", name, f"expands to more than {bound}", _REPACK))
                return None
    except EOFError:
        findings.append(Finding("truncated", name, "ends before its gzip data does", _COPY))
    except zlib.error as error:
        findings.append(Finding("damaged", name, f"gzip data is damaged: {error}", _COPY))
    except ValueError as error:
        findings.append(Finding("trailing_data", name, str(error), _REPACK))
    return bytes(out)


def _instead(data: bytes) -> tuple[str, str]:
    """What a file is that does not begin like gzip, and what to do with it."""
    if not data:
        return "is empty", _REPACK
    if data[:2] == b"PK":
        return "is a zip file", _REPACK
    if data[257:262] == b"ustar":
        return "is a tar without gzip", "compress it with gzip"
    bare = sniff(data)
    if bare.format == "pickle":
        return "is a bare pickle", "save the booster as UBJ or JSON, and pack that"
    if bare.version is not None:
        by = ".".join(map(str, bare.version))
        return f"is a bare {bare.format} booster of XGBoost {by}", (
            f"name it {MODEL_FILE} and pack it: tar -czf model.tar.gz {MODEL_FILE}"
        )
    return "does not begin like gzip", _REPACK


def _inflate(data: bytes) -> Iterator[bytes]:
    """Expanded pieces of at most a megabyte, so that a bomb is noticed while still small."""
    at = 0
    while at < len(data):
        if data[at : at + 2] != b"\x1f\x8b":
            if data[at:].strip(b"\0"):
                raise ValueError(f"{len(data) - at} bytes that are not gzip follow the gzip data")
            return
        reader = zlib.decompressobj(wbits=31)
        while not reader.eof:
            taken = reader.unconsumed_tail
            if not taken:
                taken = data[at : at + _CHUNK]
                at += len(taken)
            piece = reader.decompress(taken, _CHUNK)
            if not taken and not piece and not reader.eof:
                raise EOFError
            yield piece
        at -= len(reader.unused_data)


def _members(tar: bytes, name: str, findings: list[Finding]) -> dict[str, bytes]:
    """Regular files by their path in the archive, as extraction would leave them."""
    files: dict[str, bytes] = {}
    seen: set[str] = set()
    end = count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for member in archive:
                count += 1
                if count > MAX_MEMBERS:
                    findings.append(
                        Finding("too_many", name, f"has more than {MAX_MEMBERS} members", _REPACK)
                    )
                    return files
                end = max(end, member.offset_data + -(-member.size // 512) * 512)
                path = posixpath.normpath(member.name)
                if member.isdir() and path == ".":
                    continue  # `tar -C dir .` writes it; extracting it changes nothing
                findings += _placed(member, path, f"{name}:{_shown(member.name)}")
                if path in seen:
                    reason = "is in the archive twice; which one is served depends on the reader"
                    findings.append(
                        Finding("duplicate", f"{name}:{_shown(member.name)}", reason, _REPACK)
                    )
                seen.add(path)
                if member.isreg() and not member.issparse():
                    stored = archive.extractfile(member)
                    files[path] = stored.read() if stored else b""
    except Exception as error:  # tarfile raises many kinds for hostile headers
        short = isinstance(error, tarfile.ReadError) and "unexpected end" in str(error)
        rule, reason = (
            ("truncated", "its tar ends early")
            if short
            else ("not_tar", f"holds no readable tar: {error}")
        )
        if not any(finding.rule in _PARTIAL for finding in findings):
            findings.append(Finding(rule, name, reason, _COPY if short else _REPACK))
        return files
    if tar[end:].strip(b"\0") and not any(f.rule in _PARTIAL for f in findings):
        reason = "has bytes after its last member, where other readers may find more members"
        findings.append(Finding("trailing_data", name, reason, _REPACK))
    return files


def _placed(member: tarfile.TarInfo, path: str, where: str) -> Iterator[Finding]:
    """What is wrong with one member's kind and place."""
    parts = member.name.split("/")
    if member.name.startswith("/"):
        yield Finding("absolute_name", where, "has an absolute name", _REPACK)
    if ".." in parts:
        yield Finding("traversal", where, "points outside the archive's own folder", _REPACK)
    if member.issym() or member.islnk():
        reason = f"is a link to {_shown(member.linkname)}"
        yield Finding("link", where, reason, "put the file itself into the archive")
    elif member.isdir():
        yield Finding("nested", where, "is a folder; the container then never answers", _REPACK)
    elif not member.isreg():
        yield Finding("device", where, "is a device, a pipe or of an unknown kind", _REPACK)
    elif member.issparse():
        yield Finding("sparse", where, "is a sparse file, which can expand without bound", _REPACK)
    elif "/" in path.strip("/") and ".." not in parts:
        yield Finding("nested", where, "is inside a folder; the container needs it on top", _REPACK)
    if posixpath.basename(path).startswith(".") and path != ".." and ".." not in parts:
        yield Finding("dotfile", where, "is a hidden file", "leave it out of the archive")


def _model(files: dict[str, bytes], name: str, findings: list[Finding]) -> tuple[str, bytes | None]:
    """The model file and where it is, with findings about every other file."""
    visible = [path for path in files if not posixpath.basename(path).startswith(".")]
    for path in visible:
        if "/" in path or path == MODEL_FILE:
            continue
        if len(visible) == 1:
            rule, reason = "wrong_name", "is the only file but is not called xgboost-model"
            step = f"rename it to {MODEL_FILE}"
        else:
            rule, step = "extra_file", "leave it out of the archive"
            reason = "is a second file; the container would load it as a model too"
        findings.append(Finding(rule, f"{name}:{_shown(path)}", reason, step))
    if MODEL_FILE in files:
        return f"{name}:{MODEL_FILE}", files[MODEL_FILE]
    if not any(finding.rule in (*_PARTIAL, "wrong_name") for finding in findings):
        reason = "has no file xgboost-model at its top"
        findings.append(Finding("missing_model", name, reason, _REPACK))
    if len(visible) == 1:
        return f"{name}:{_shown(visible[0])}", files[visible[0]]
    return name, None


def _judge(
    booster: Booster, model: bytes, container: Container, where: str, *, exact: bool
) -> Iterator[Finding]:
    """What is wrong with the model file itself."""
    save = f"save the booster as UBJ or JSON with XGBoost {container.xgboost}"
    if booster.format == "pickle":
        names = ", ".join(_shown(text) for text in pickle_names(model) or []) or "nothing by name"
        yield Finding("pickle", where, f"is a pickle, which runs code on loading: {names}", save)
    elif booster.format == "unknown":
        yield Finding("unknown_format", where, "is no XGBoost model that we know", save)
    elif booster.version is None:
        reason = f"begins like {booster.format} but does not say which XGBoost saved it"
        yield Finding("unreadable", where, reason, save)
    else:
        unfit = compatible(
            booster.version, container, format=booster.format, kind=booster.kind, exact=exact
        )
        if unfit:
            step = f"train or save the model with XGBoost {container.xgboost}"
            yield Finding("version", where, unfit, step)
        yield from _stopped(booster, container, where)


def _stopped(booster: Booster, container: Container, where: str) -> Iterator[Finding]:
    """Rounds behind the one that early stopping chose, which the container would answer with."""
    best, served = booster.best_iteration, booster.served(container)
    if best is None or served is None or served <= best + 1:
        return
    reason = (
        f"early stopping chose round {best}, but the file has {booster.rounds} rounds and "
        f"container {container.tag} answers with {served} of them"
    )
    step = f"keep the best rounds only: booster[: {best + 1}], then save and pack it again"
    yield Finding("early_stopping", where, reason, step)
