"""Content hashes, splits and row ids: stable by content."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.dataset import assign_split, content_hash, hash_bytes, row_ids
from ml_control.spec import Split

FRAME = pl.DataFrame(
    {"n": [1.5, None, -2.0], "c": ["x", None, "é"], "b": [b"\x00\x01", b"", b"\xff"]}
)

PINNED = [10751945693715003974, 10489072445895170429, 15996658931746246679]
PINNED_BYTES = [13020603013274838756, 17553608836900287035]


def test_hashes_are_these_numbers_for_ever():
    """The hash of known rows never changes: a change would move every row between splits."""
    assert PINNED == content_hash(FRAME, ["n", "c", "b"]).tolist()
    assert PINNED_BYTES == hash_bytes([b"", b"pixels"]).tolist()


def test_equal_values_hash_alike():
    """Zero and minus zero, 5 and 5.0, null and NaN are equal; column order does not matter."""
    floats = pl.DataFrame({"n": [0.0, 5.0, float("nan")], "m": ["a", "b", "c"]})
    others = pl.DataFrame({"n": [-0.0, 5.0, None], "m": ["a", "b", "c"]})
    whole = pl.DataFrame({"n": [0, 5, None], "m": ["a", "b", "c"]})

    expected = content_hash(floats, ["n", "m"]).tolist()
    assert expected == content_hash(others, ["m", "n"]).tolist()
    assert expected == content_hash(whole, ["n", "m"]).tolist()


def test_different_values_hash_apart():
    """Swapped columns, missing against empty, and neighbouring numbers all differ."""
    frame = pl.DataFrame(
        {
            "a": ["x", "y", "", None, "1", "x"],
            "b": ["y", "x", "", "", "2", None],
            "n": [1.0, 1.0, 1.0, 1.0, np.nextafter(1.0, 2), None],
        }
    )

    assert 6 == len(set(content_hash(frame, ["a", "b", "n"]).tolist()))


@pytest.mark.parametrize("levels", [2, 4, 10])
@pytest.mark.parametrize("scale", [1.0, 0.5, 0.1, 1000.0])
def test_small_numbers_do_not_collide(levels: int, scale: float):
    """Rows of few small numbers in many columns, as counts and flags are, hash apart."""
    rng = np.random.default_rng(levels)
    table = rng.integers(0, levels, (200_000, 30)) * scale
    frame = pl.DataFrame(table, schema=[f"c{i}" for i in range(30)])

    hashes = content_hash(frame, frame.columns)

    assert frame.unique().height == len(np.unique(hashes))


def test_one_hot_rows_do_not_collide():
    """Rows with one or two flags of many set hash apart, and into even splits."""
    flags = 300
    pairs = [(i, j) for i in range(flags) for j in range(i, flags)]
    table = np.zeros((len(pairs), flags))
    table[np.arange(len(pairs)), [i for i, _ in pairs]] = 1.0
    table[np.arange(len(pairs)), [j for _, j in pairs]] = 1.0
    frame = pl.DataFrame(table, schema=[f"flag={i}" for i in range(flags)])

    hashes = content_hash(frame, frame.columns)

    assert len(pairs) == len(np.unique(hashes))
    share = (assign_split(hashes, Split(validation=0.1, test=0.2)) == "test").mean()
    assert pytest.approx(0.2, abs=0.01) == share


ROW = st.tuples(st.floats(allow_nan=False) | st.none(), st.text(max_size=4) | st.none())


@settings(max_examples=40, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_rows_hash_does_not_depend_on_its_neighbours(rows: list, random):
    """In any order and any partition, a row has the hash it has alone."""
    schema = {"n": pl.Float64, "c": pl.String}
    alone = {
        row: int(content_hash(pl.DataFrame([row], schema, orient="row"), ["n", "c"])[0])
        for row in rows
    }
    random.shuffle(rows)

    together = content_hash(pl.DataFrame(rows, schema, orient="row"), ["n", "c"]).tolist()

    assert [alone[row] for row in rows] == together


def test_shares_are_as_declared():
    """Over many different rows each split has its share, within sampling error."""
    hashes = content_hash(pl.DataFrame({"n": np.arange(40_000.0)}), ["n"])

    counts = assign_split(hashes, Split(validation=0.1, test=0.2)).value_counts()

    shares = {name: count / 40_000 for name, count in counts.rows()}
    assert {"train", "validation", "test"} == set(shares)
    # Five standard deviations of a binomial share.
    assert pytest.approx(0.1, abs=0.0075) == shares["validation"]
    assert pytest.approx(0.2, abs=0.01) == shares["test"]


def test_growing_the_validation_share_keeps_the_test_rows():
    """Changing one share does not move rows in or out of the test split."""
    hashes = hash_bytes([bytes([i, j]) for i in range(40) for j in range(40)])

    before = assign_split(hashes, Split(validation=0.1, test=0.2)) == "test"
    after = assign_split(hashes, Split(validation=0.3, test=0.2)) == "test"

    np.testing.assert_array_equal(before, after)


def test_row_ids_are_stable_and_distinct():
    """An id names (object version, row), and a longer file keeps its first rows' ids."""
    assert row_ids("v1", 3).to_list() == row_ids("v1", 5)[:3].to_list()
    assert row_ids("v1", 5)[3:].to_list() == row_ids("v1", 2, first=4).to_list()
    assert 8 == len({*row_ids("v1", 4), *row_ids("v2", 4)})
    many = row_ids("v1", 1000)
    assert many[:7].to_list() == row_ids("v1", 7).to_list()
    assert many[990:].to_list() == row_ids("v1", 10, first=991).to_list()
    assert ["1", "2", "3"] == [name.rsplit("-", 1)[1] for name in row_ids("v1", 3)]


def test_a_list_column_has_no_hash():
    """A type without a defined hash is refused rather than hashed by chance."""
    with pytest.raises(TypeError, match="no content hash"):
        content_hash(pl.DataFrame({"l": [[1]]}), ["l"])
