"""What is kept of a request's records."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ml_control.core.capture import captured
from ml_control.spec import Log

RECORDS = [{"age": 40, "name": "Ada", "image": "AA=="}, {"age": None}]


def test_masked_columns_are_never_kept():
    """Neither name nor value, whatever else is in the record; images are masked like any column."""
    kept = captured(RECORDS, Log(mask=("name", "image")), "r1")

    assert [{"age": 40}, {"age": None}] == json.loads(kept)
    assert RECORDS == json.loads(captured(RECORDS, Log(), "r1"))


def test_the_share_kept_is_the_share_wanted():
    """None at 0, all at 1, and in between about the share, always the same requests."""
    ids = [f"request-{i}" for i in range(4000)]
    kept = {share: {id for id in ids if captured(RECORDS, Log(capture=share), id) is not None}
            for share in (0.0, 0.25, 0.75, 1.0)}  # fmt: skip

    assert (0, 4000) == (len(kept[0.0]), len(kept[1.0]))
    assert 880 < len(kept[0.25]) < 1120
    assert kept[0.25] < kept[0.75]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.floats(0, 1))
def test_whether_a_request_is_kept_depends_on_its_id_alone(id, share):
    """A redelivered request is captured as it was the first time."""
    log = Log(capture=share)

    assert captured([], log, id) == captured([], log, id)
    assert (captured(RECORDS, log, id) is None) == (captured([], log, id) is None)
