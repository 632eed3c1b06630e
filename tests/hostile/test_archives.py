"""Bad archives, each with the rule that must refuse it and the object that must be named."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ml_control.core.artifact import inspect_archive, pack, unpack
from ml_control.core.containers import container
from ml_control.errors import NotProven

TARGET = container("3.2-0")
LEARNER = {
    "learner_model_param": {"num_class": "0", "num_feature": "3"},
    "objective": {"name": "reg:squarederror"},
}
GOOD = json.dumps({"learner": LEARNER, "version": [3, 2, 0]}).encode()


class Attack:
    """What a pickle of this would run."""

    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/ml-control-was-here",)


def entry(name: str, **fields) -> tarfile.TarInfo:
    """A tar header with any fields."""
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def tar(*members: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    """An uncompressed tar of these members, whatever their names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for header, content in members:
            member = header if isinstance(header, tarfile.TarInfo) else tarfile.TarInfo(header)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def archive(*members: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    """A gzip tar of these members."""
    return gzip.compress(tar(*members), mtime=0)


MODEL = ("xgboost-model", GOOD)


def link(kind: bytes, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A link called xgboost-model."""
    return entry("xgboost-model", type=kind, linkname=target), b""


def zipped() -> bytes:
    """A zip with the right file in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("xgboost-model", GOOD)
    return buffer.getvalue()


def bomb(megabytes: int) -> bytes:
    """Zeros that compress a thousandfold, made without holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join([*pieces, packer.flush()])


def sparse() -> bytes:
    """A sparse member that says it expands to a terabyte."""
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    headers |= {"GNU.sparse.name": "xgboost-model", "GNU.sparse.realsize": str(1 << 40)}
    content = b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)
    return archive((entry("hole", pax_headers=headers), content))


def hidden_behind_garbage() -> bytes:
    """A second member behind a damaged block: GNU tar finds it, Python's tarfile stops before."""
    first = tar(MODEL)[: 512 + -(-len(GOOD) // 512) * 512]
    return gzip.compress(first + b"\xff" * 512 + tar(("evil", b"x")), mtime=0)


def binary() -> bytes:
    """A model in the legacy binary format of XGBoost 1.7."""
    return b"binf" + struct.pack("<fIiiiII", 0.5, 3, 0, 0, 0, 1, 7) + bytes(64)


def saved(version: list[int]) -> bytes:
    """The good model, saying that this XGBoost saved it."""
    return json.dumps({"learner": LEARNER, "version": version}).encode()


def ubj(version: tuple[int, int, int]) -> bytes:
    """A small UBJ model, saying that this XGBoost saved it."""

    def text(value: str) -> bytes:
        return b"L" + struct.pack(">q", len(value)) + value.encode()

    numbers = b"[#L" + struct.pack(">q", 3) + b"".join(b"i" + bytes([n]) for n in version)
    parameters = b"{" + b"".join(
        text(key) + b"S" + text(value) for key, value in LEARNER["learner_model_param"].items()
    )
    learner = b"{" + text("learner_model_param") + parameters + b"}}"
    return b"{" + text("learner") + learner + text("version") + numbers + b"}"


def model(data: bytes) -> Callable[[], bytes]:
    """An archive that is right but for the model in it."""
    return lambda: archive(("xgboost-model", data))


@dataclass(frozen=True)
class Row:
    """One reviewed line of the table; the container is 3.2-0 unless it says otherwise."""

    what: str
    build: Callable[[], bytes]
    rule: str
    object: str
    word: str = ""
    tag: str = "3.2-0"


A = "model.tar.gz"
M = f"{A}:xgboost-model"
TABLE = [
    Row("empty", lambda: b"", "not_gzip", A, "empty"),
    Row("zip", zipped, "not_gzip", A, "zip"),
    Row("plain tar", lambda: tar(MODEL), "not_gzip", A, "tar without gzip"),
    Row("bare model", lambda: GOOD, "not_gzip", A, "bare json booster"),
    Row("gzip of no tar", lambda: gzip.compress(b"a" * 2048), "not_tar", A),
    Row("gzip of nothing", lambda: gzip.compress(b""), "not_tar", A),
    Row("no members", archive, "missing_model", A),
    Row("cut gzip", lambda: archive(MODEL)[:-30], "truncated", A),
    Row("cut tar", lambda: gzip.compress(tar(MODEL)[:600]), "truncated", A, "tar ends early"),
    Row("flipped bit", lambda: pack(GOOD)[:-8] + b"\0" * 8, "damaged", A),
    Row("bytes after gzip", lambda: pack(GOOD) + b"more", "trailing_data", A, "4 bytes"),
    Row("bytes after tar", hidden_behind_garbage, "trailing_data", A),
    Row("traversal", lambda: archive(MODEL, ("../evil", b"x")), "traversal", f"{A}:../evil"),
    Row("hidden traversal", lambda: archive(("a/../xgboost-model", GOOD)), "traversal",
        f"{A}:a/../xgboost-model"),
    Row("absolute", lambda: archive(MODEL, ("/etc/evil", b"x")), "absolute_name", f"{A}:/etc/evil"),
    Row("symbolic link", lambda: archive(link(tarfile.SYMTYPE, "/etc/passwd")), "link", M,
        "/etc/passwd"),
    Row("hard link", lambda: archive(link(tarfile.LNKTYPE, "other")), "link", M),
    Row("device", lambda: archive((entry("xgboost-model", type=tarfile.CHRTYPE), b"")), "device",
        M),
    Row("pipe", lambda: archive((entry("xgboost-model", type=tarfile.FIFOTYPE), b"")), "device", M),
    Row("sparse", sparse, "sparse", M),
    Row("twice", lambda: archive(MODEL, MODEL), "duplicate", M),
    Row("twice by another name", lambda: archive(MODEL, ("./xgboost-model", b"x")), "duplicate",
        f"{A}:./xgboost-model"),
    Row("hidden file", lambda: archive(MODEL, ("._xgboost-model", b"x")), "dotfile",
        f"{A}:._xgboost-model"),
    Row("only a hidden file", lambda: archive((".xgboost-model", GOOD)), "dotfile",
        f"{A}:.xgboost-model"),
    Row("nested", lambda: archive(("model/xgboost-model", GOOD)), "nested",
        f"{A}:model/xgboost-model"),
    Row("folder", lambda: archive(MODEL, (entry("code", type=tarfile.DIRTYPE), b"")), "nested",
        f"{A}:code"),
    Row("stray file", lambda: archive(MODEL, ("metrics.json", b"{}")), "extra_file",
        f"{A}:metrics.json"),
    Row("wrong name", lambda: archive(("model.xgb", GOOD)), "wrong_name", f"{A}:model.xgb"),
    Row("control characters", lambda: archive(MODEL, ("\x1b[2J", b"x")), "extra_file",
        f"{A}:\\x1b[2J"),
    Row("empty model", model(b""), "unknown_format", M),
    Row("pickle", model(pickle.dumps(Attack())), "pickle", M, "system"),
    Row("old pickle", model(pickle.dumps(Attack(), 0)), "pickle", M, "system"),
    Row("text", model(b"hello"), "unknown_format", M),
    Row("no version", model(b'{"learner":{}}'), "unreadable", M),
    Row("cut model", model(GOOD[:-5]), "unreadable", M),
    Row("old binary", model(binary()), "version", M, "legacy binary"),
    Row("other saver", model(GOOD.replace(b"[3, 2, 0]", b"[3, 1, 3]")), "version", M, "3.1.3"),
    Row("3.1+ JSON in 1.7", model(saved([3, 1, 0])), "version", M, "answer wrongly", "1.7-1"),
    Row("3.1+ UBJ in 1.7", model(ubj((3, 2, 0))), "version", M, "answer wrongly", "1.7-1"),
    Row("3.1+ JSON in 3.0", model(GOOD), "version", M, "answer wrongly", "3.0-5"),
    Row("3.1+ UBJ in 3.0", model(ubj((3, 1, 0))), "version", M, "answer wrongly", "3.0-5"),
    Row("1.6 JSON in 1.5", model(saved([1, 6, 0])), "version", M, "does not load", "1.5-1"),
    Row("1.7 UBJ in 1.5", model(ubj((1, 7, 4))), "version", M, "does not load", "1.5-1"),
    Row("legacy binary in 3.2", model(binary()), "version", M, "does not load in XGBoost 3.2.0"),
    Row("many members", lambda: archive(*((f"f{i}", b"") for i in range(200))), "too_many", A),
    Row("ratio bomb", lambda: bomb(64), "bomb", A, "times its size"),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
def test_bad_archives_are_refused_by_rule_and_object(row: Row):
    """Each bad archive is refused by its own rule, naming what is wrong and the next step."""
    data = row.build()

    target = container(row.tag)
    matching = [f for f in inspect_archive(data, target).findings if f.rule == row.rule]

    assert row.object in [finding.object for finding in matching]
    assert any(row.word in finding.reason and finding.next for finding in matching)
    with pytest.raises(NotProven):
        unpack(data, target)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_any_protocol_is_named_by_its_class(protocol, booster):
    """The first bytes tell a pickle, and the refusal names the class that it would make."""
    data = pickle.dumps(booster, protocol)

    (finding,) = inspect_archive(archive(("xgboost-model", data)), TARGET).findings

    assert bytes([0x80, protocol]) == data[:2]
    assert ("pickle", M) == (finding.rule, finding.object)
    assert "xgboost.core.Booster" in finding.reason


def test_a_model_of_the_same_make_is_accepted_in_its_own_container():
    """The rows about other savers refuse for the saver alone: its own container takes the model."""
    for tag, data in (
        ("3.2-0", ubj((3, 2, 0))),
        ("1.7-1", ubj((1, 7, 4))),
        ("3.0-5", ubj((3, 0, 5))),
    ):
        assert [] == inspect_archive(pack(data), container(tag)).findings


def test_the_good_archive_is_accepted():
    """What the table damages is accepted when nothing is damaged, also with a leading ./"""
    folder = entry("./", type=tarfile.DIRTYPE)

    assert inspect_archive(pack(GOOD), TARGET).findings == []
    assert inspect_archive(archive((folder, b""), ("./xgboost-model", GOOD)), TARGET).findings == []


def test_all_findings_are_collected():
    """One pass tells everything that has to be put right."""
    data = archive(("/a", b"1"), ("../b", b"2"), (".c", b"3"), ("d/e", b"4"), ("f", b"5"))

    rules = {finding.rule for finding in inspect_archive(data, TARGET).findings}

    expected = {"absolute_name", "traversal", "dotfile", "nested", "extra_file", "missing_model"}
    assert expected <= rules


def test_a_bomb_is_refused_by_size_without_expanding_it():
    """Past the limit nothing more is expanded: a gigabyte of zeros is refused at once."""
    import resource

    data = bomb(1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()

    findings = inspect_archive(data, TARGET, max_bytes=8 << 20).findings

    assert [finding.rule for finding in findings] == ["bomb"]
    assert time.perf_counter() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024


def test_a_pickle_is_named_and_not_run(tmp_path):
    """The function that the pickle would call is in the refusal, and it was not called."""
    marker = tmp_path / "ran"

    class Writes:
        def __reduce__(self):
            return open, (str(marker), "w")

    (finding,) = inspect_archive(
        archive(("xgboost-model", pickle.dumps(Writes()))), TARGET
    ).findings

    assert "io.open" in finding.reason
    assert not marker.exists()
