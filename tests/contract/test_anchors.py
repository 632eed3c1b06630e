"""Anchors on each platform: added to, read whole, and never replaced."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from ml_control.aws.anchors import LakeAnchors
from ml_control.errors import Conflict, PlatformFailed, Unknown
from ml_control.lake import Lake
from ml_control.local.anchors import LocalAnchors
from ml_control.registry.anchors import Anchor, in_force

P = "flowers"


def anchor(seq, action="promoted", pipeline=P, **more):
    return Anchor(pipeline, seq, f"{seq:064x}", action, **more)


@pytest.fixture
def lake(tmp_path):
    """The lake of the anchors on AWS."""
    return Lake.local(tmp_path / "lake")


@pytest.fixture(params=["local", "aws"])
def two(request, tmp_path, lake):
    """Two clients of one platform's anchors."""
    if request.param == "local":
        return tuple(LocalAnchors(tmp_path / "logs" / "history.anchors") for _ in range(2))
    return LakeAnchors(lake), LakeAnchors(lake)


def test_anchors_come_in_the_order_of_their_adding(two):
    """Whoever added them, also where a restore gave numbers out again; each pipeline's own."""
    one, other = two
    assert [] == one.of(P)
    added = [anchor(1), anchor(100, "note"), anchor(102), anchor(50, "restored", keeps=49)]
    added += [anchor(51), anchor(100)]
    for place, each in enumerate(added):
        two[place % 2].add(each)
    other.add(anchor(1, pipeline="other"))

    assert added == one.of(P) == other.of(P)
    assert [anchor(1, pipeline="other")] == one.of("other")
    assert [1, 50, 51, 100] == sorted(in_force(one.of(P)))


def test_many_writers_lose_none(two):
    """Eight threads of two clients add at once: every anchor is there, once."""

    def add(number):
        for i in range(10):
            two[number % 2].add(anchor(100 * number + i))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))

    found = [each.seq for each in two[0].of(P)]
    assert sorted(100 * number + i for number in range(8) for i in range(10)) == sorted(found)


def test_an_anchor_that_was_removed_or_changed_is_found(lake):
    """On AWS a gap in the numbers, or what is no anchor, is named; one overwritten is not read."""
    anchors = LakeAnchors(lake)
    for seq in range(1, 5):
        anchors.add(anchor(seq))
    key = f"logs/history.anchors/{P}/000000002.json"
    data = lake.get(key)
    lake.put(key, b"{}")
    with pytest.raises(Unknown, match="000000002"):
        LakeAnchors(lake).of(P)
    lake.delete(key)
    with pytest.raises(Unknown, match="000000002"):
        LakeAnchors(lake).of(P)
    with pytest.raises(Unknown, match="000000002"):
        anchors.of(P)

    lake.create(key, data)
    assert [1, 2, 3, 4] == [each.seq for each in LakeAnchors(lake).of(P)]


def test_an_answer_that_was_lost_adds_no_second_anchor(lake, monkeypatch):
    """A create that was done and is told as a conflict is ours when the bytes are ours."""
    create, tries = lake.create, count()

    def told_twice(key, data):
        create(key, data)
        if not next(tries):
            raise Conflict(key, "exists already")

    monkeypatch.setattr(lake, "create", told_twice)
    anchors = LakeAnchors(lake)
    anchors.add(anchor(1))
    anchors.add(anchor(2))

    assert [1, 2] == [each.seq for each in LakeAnchors(lake).of(P)]


def test_a_lake_that_cannot_be_written_is_told(lake, monkeypatch):
    """What could not be kept is an error, and the next one gets its number."""
    anchors = LakeAnchors(lake)
    anchors.add(anchor(1))
    with monkeypatch.context() as broken:

        def refuse(key, data):
            raise PlatformFailed(key, "could not be written")

        broken.setattr(lake, "create", refuse)
        with pytest.raises(PlatformFailed):
            anchors.add(anchor(2))

    anchors.add(anchor(3))
    assert [1, 3] == [each.seq for each in anchors.of(P)]
