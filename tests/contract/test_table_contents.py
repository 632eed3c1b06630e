"""What items may hold on every adapter of ``ports.Tables``: any text, long keys, large bodies."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_control.errors import Conflict, InvalidSpec
from ml_control.ports import Check, Item, Put

T = "control-ledger"


def item(sk="s", pk="p", index=None, **body):
    return Item(pk, sk, body, index)


def keys(items):
    return [found.sk for found in items]


@pytest.mark.parametrize(
    "many", ["a hundred and one", "twice", "checked as well", "empty", "nameless"]
)
def test_what_no_platform_can_write_is_refused(two, many):
    """More than 100 writes, an item twice, or an empty key: refused whole, on every platform."""
    one, other = two
    one.transact([Put(T, item("there"), 0)])
    writes = {
        "a hundred and one": [Put(T, item(f"{i}"), 0) for i in range(101)],
        "twice": [Put(T, item(), 0), Put(T, item(), 1)],
        "checked as well": [Put(T, item("there"), 1), Check(T, "p", "there", {})],
        "empty": [Put(T, item(), 0), Put(T, item(""), 0)],
        "nameless": [Put(T, item(), 0), Put(T, item(pk=""), 0)],
    }[many]

    with pytest.raises(InvalidSpec):
        one.transact(writes)
    assert ["there"] == keys(other.query(T, "p"))
    assert 1 == other.get(T, "p", "there").version
    assert (None, None) == (other.get(T, "p", ""), other.get(T, "", "s"))


def test_a_hundred_writes_are_one_transaction(two):
    """The most that is promised is written whole, or not at all."""
    one, other = two
    writes = [Put(T, item(f"{i:02d}"), 0) for i in range(100)]
    one.transact(writes)

    with pytest.raises(Conflict, match="p 99"):
        other.transact([*(Put(T, item(f"{i:02d}"), 1) for i in range(99)), Put(T, item("99"), 2)])
    assert {1} == {found.version for found in other.query(T, "p")}
    assert 100 == len(keys(one.query(T, "p")))


def test_long_keys_are_kept_whole(two):
    """A sort key as long as the longest object's name is found, listed by prefix and counted."""
    one, other = two
    long = [f"2026-01-01#{'x' * 1100}{end}#v" for end in ("a", "b", "é")]
    short = ["2026-01-01#x", "2026-01-02#x"]
    assert [True] * 5 == one.write_each(
        [Put(T, item(sk, index="i", k=sk), 0) for sk in [*long, *short]]
    )
    assert [True] == one.write_each([Put(T, item(long[1], index="j", k=1), 1)])

    for sk in [*long[::2], *short]:
        assert ({"k": sk}, "i") == (other.get(T, "p", sk).body, other.get(T, "p", sk).index)
    assert sorted([*long, *short]) == sorted(keys(other.query(T, "p")))
    assert [long[1]] == keys(other.query(T, "p", prefix=long[1][:-1]))
    assert [long[0]] == keys(other.query_index(T, "i", prefix=long[0][:-1]))
    assert {*long[::2], short[0]} == set(keys(other.query_index(T, "i", prefix="2026-01-01#x")))
    assert long[1:2] == keys(other.query_index(T, "j"))
    assert 4 == other.count_index(T, "i")


@pytest.mark.parametrize("size", [3_000, 500_000])
def test_large_bodies_come_back_in_every_read(two, size):
    """A body of any size is read, listed, checked, replaced and moved between index values."""
    one, other = two
    body = {"n": 1, "text": random.Random(1).randbytes(size).hex()}
    one.transact([Put(T, Item("p", "s", body, "i"), 0), Put(T, item("t", index="i"), 0)])

    assert body == other.get(T, "p", "s").body
    assert [body, {}] == [found.body for found in other.query(T, "p")]
    assert [body, {}] == [found.body for found in other.query_index(T, "i")]
    other.transact([Check(T, "p", "s", {"text": body["text"]}), Put(T, item("u"), 0)])
    other.transact([Put(T, Item("p", "s", {**body, "n": 2}, "j"), 1)])
    assert [(1, 2)] == [(1, found.body["n"]) for found in one.query_index(T, "j")]
    assert ["t"] == keys(one.query_index(T, "i"))
    assert [True] == one.write_each([Put(T, item(), None)])
    assert {} == other.get(T, "p", "s").body


def test_key_text_beyond_letters_keeps_its_order(two):
    """Control characters, the highest letters and the index's own prefix sort as text does."""
    one, other = two
    odd = [
        "\0",
        "\0\0",
        "\1",
        "\1\1a",
        "\1\2",
        "a",
        "a\0",
        "a\0b",
        "a\1",
        "ab",
        "\ud7ff",
        "\uffff",
        "\U0010fffe",
    ]
    pks = ["index#i", "\\index#i", "\\", "p"]
    one.write_each([Put(T, item(sk, pk, "i"), 0) for pk in pks for sk in odd])

    for pk in pks:
        assert sorted(odd) == keys(other.query(T, pk))
    pairs = [(found.sk, found.pk) for found in other.query_index(T, "i")]
    assert sorted((sk, pk) for sk in odd for pk in pks) == pairs
    assert 4 * len([sk for sk in odd if sk.startswith("a\0")]) == len(
        keys(other.query_index(T, "i", prefix="a\0"))
    )


def test_a_prefix_is_taken_literally(two):
    """Wildcards, quotes and letters beyond ASCII mean themselves in keys and prefixes."""
    odd = [
        "%",
        "%a",
        "_",
        "_a",
        "*",
        "a",
        "ab",
        "a'b",
        'a"b',
        "é",
        "éa",
        "日本",
        "日本語",
        "😀",
        "😀x",
    ]
    one, other = two
    one.write_each([Put(T, item(sk, index="i"), 0) for sk in odd])

    for prefix in odd:
        expected = sorted(sk for sk in odd if sk.startswith(prefix))
        assert expected == keys(other.query(T, "p", prefix=prefix))
        assert expected == keys(other.query_index(T, "i", prefix=prefix))


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | names | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pk=names, sk=names, index=st.none() | names, body=st.dictionaries(names, values, max_size=4))
def test_any_key_and_body_come_back_as_they_were(two, pk, sk, index, body):
    """Whatever text keys and JSON bodies hold, another client reads exactly that."""
    one, other = two
    one.transact([Put(T, Item(pk, sk, body, index), None)])

    found = other.get(T, pk, sk)
    assert (pk, sk, body, index) == (found.pk, found.sk, found.body, found.index)
    assert found in list(other.query(T, pk, prefix=sk[:1]))
