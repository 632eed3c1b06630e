"""What an event or a manifest's object says of its bytes, and that other bytes are refused."""

from __future__ import annotations

import pytest

from ml_control.core.digests import sha256
from ml_control.core.records import Event, ObjectRef
from ml_control.errors import BadObject
from ml_control.lake import Lake
from ml_control.services.arrivals.objects import verify

DATA = b"a,b\n1,2\n"


def ref(version, **fields):
    told = {"key": "p/a.csv", "path": "raw/p/a.csv", "size": len(DATA), "rows": 1, "seq": 1}
    return ObjectRef(version=version, **told, **fields)


def test_records_of_older_homes_have_the_digest_as_their_version():
    """Written before there were version ids, they are read and mean what they meant."""
    digest = sha256(DATA)
    event = {"pipeline": "p", "partition": "2026-05-01", "bucket": "raw", "key": "p/a.csv",
             "version": digest, "size": 8, "path": "raw/p/a.csv"}  # fmt: skip

    assert digest == Event.model_validate(event).content == ref(digest).content


@pytest.mark.parametrize("version", ["3HL4kqtJvjVBH40Nrjfkd", "null-0cc175b9", "0CC1" * 16])
def test_a_version_id_says_nothing_of_the_bytes(version):
    """Until they were read once: then the digest is kept beside it."""
    digest = sha256(DATA)

    assert ("", digest) == (ref(version).content, ref(version, digest=digest).content)


@pytest.mark.parametrize("version", ["v1", sha256(DATA)])
def test_bytes_that_are_others_than_were_read_first_are_refused(tmp_path, version):
    """Whatever names the version, a later reading must find the digest of the first one."""
    lake = Lake.local(tmp_path)
    lake.put("raw/p/a.csv", DATA)
    verify(lake, [ref(version, digest=sha256(DATA))])
    lake.put("raw/p/a.csv", DATA[::-1])

    with pytest.raises(BadObject, match="bytes changed after they were recorded"):
        verify(lake, [ref(version, digest=sha256(DATA))])
