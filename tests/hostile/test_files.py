"""Bad files, each with the refusal it must get: kind, object, row, column and reason."""

from collections.abc import Callable

import pytest
from bad_files import GOOD, IMAGES, PNG, SPEC, TABLES, jpeg

from ml_control.core.images import decode
from ml_control.core.tabular import read_csv
from ml_control.errors import BadObject
from ml_control.spec import ImageShape


def test_the_good_file_is_read():
    """The file that the bad ones are made from is good, so each defect is its own."""
    assert [(31.0, "Rome", "yes")] == read_csv(GOOD, SPEC, "dt=2026-01-01/x.csv").rows()
    assert (8, 8) == decode(PNG, ImageShape(height=8, width=8), "x.png").shape
    assert (8, 8) == decode(jpeg(), ImageShape(height=8, width=8), "x.jpg").shape


@pytest.mark.parametrize(
    ("build", "row", "column", "reason"), [case[1:] for case in TABLES], ids=[c[0] for c in TABLES]
)
def test_a_bad_table_is_refused(build: Callable, row: int | None, column: str | None, reason: str):
    """Each bad table is refused whole, naming the file, the place, the reason and a next step."""
    with pytest.raises(BadObject) as refused:
        read_csv(build(), SPEC, "dt=2026-01-01/x.csv")

    error = refused.value
    assert ("BadObject", "dt=2026-01-01/x.csv") == (error.kind, error.object)
    assert reason in error.reason
    assert (row, column) == (error.detail.get("row"), error.detail.get("column"))
    assert error.next


@pytest.mark.parametrize(
    ("build", "reason"), [case[1:] for case in IMAGES], ids=[c[0] for c in IMAGES]
)
def test_a_bad_image_is_refused(build: Callable, reason: str):
    """Each bad image is refused, naming the file, the reason and a next step."""
    with pytest.raises(BadObject) as refused:
        decode(build(), ImageShape(height=8, width=8), "cats/1.png")

    assert "cats/1.png" == refused.value.object
    assert reason in refused.value.reason
    assert refused.value.next
