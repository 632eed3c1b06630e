"""Sticky assignment: who decides, who stays, and how evenly the entities are dealt."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from ml_control.core.routing import all_to_challenger, point, seed_of, threshold, to_challenger

IDS = st.text(st.characters(codec="utf-8"), max_size=60)
SHARES = st.floats(0.0, 1.0)
# Pinned: another language, another version and another machine must deal the same.
GOLDEN = {
    ("income-1", "customer-1"): (0.5, 0.11517549322366927),
    ("income-1", "customer-2"): (0.5, 0.3218922938022707),
    ("income-2", "customer-1"): (0.5, 0.9298103322615946),
    ("digits-12", "Müller ☃"): (0.05, 0.5063150821928184),
    ("", ""): (0.25, 0.2546245134153653),
}


def test_assignment_is_pinned_by_golden_values() -> None:
    """The same rollout and entity have had the same place since the first release."""
    found = {key: (share, point(*key)) for key, (share, _) in GOLDEN.items()}

    assert GOLDEN == found
    assert 0x2D06800538D394C2 == seed_of("")  # as XXH3 itself publishes it
    assert 0x2989B998A19F30E5 == seed_of("income-1")
    assert [at < share for share, at in GOLDEN.values()] == [
        to_challenger(*key, share) for key, (share, _) in GOLDEN.items()
    ]


@given(st.text(max_size=20), st.lists(IDS, max_size=30), SHARES)
def test_many_at_once_are_dealt_as_one_by_one(rollout: str, ids: list[str], share: float) -> None:
    """The batched decision is the scalar one."""
    assert [to_challenger(rollout, id, share) for id in ids] == all_to_challenger(
        rollout, ids, share
    )


@given(st.integers(0, 2**64 - 1), SHARES)
@example(2**64 - 1, math.nextafter(1.0, 0.0))
@example(0, 5e-324)
@example(1 << 63, 0.5)
@example((1 << 63) - 1, 0.5)
def test_the_threshold_is_the_comparison_of_floats(digest: int, share: float) -> None:
    """As integers or as floats, a hash lies below a share or not."""
    assert ((digest >> 11) * 2.0**-53 < share) == (digest < threshold(share))


@given(st.integers(0, 2**53 - 1), st.integers(-1, 1))
def test_the_threshold_is_exact_at_its_edge(top: int, step: int) -> None:
    """Around each representable share, the first hash beyond it is on the right side."""
    share = top * 2.0**-53
    digest = max(min((top << 11) + step, 2**64 - 1), 0)

    assert ((digest >> 11) * 2.0**-53 < share) == (digest < threshold(share))


@given(IDS, IDS, SHARES, SHARES)
def test_who_has_the_challenger_keeps_it_while_its_share_grows(
    rollout: str, entity: str, one: float, other: float
) -> None:
    """A larger share takes more entities and gives none back."""
    small, large = sorted((one, other))

    assert to_challenger(rollout, entity, small) <= to_challenger(rollout, entity, large)
    assert not to_challenger(rollout, entity, 0.0)
    assert to_challenger(rollout, entity, 1.0)


def test_the_split_is_even() -> None:
    """40,000 entities fall evenly into twenty parts, for plain, padded and hashed names."""
    names = (str, "customer-{:09d}".format, lambda i: f"{i * 2654435761 % 2**32:08x}@example.org")
    for name in names:
        counts = [0] * 20
        for i in range(40_000):
            counts[int(point("income-7", name(i)) * 20)] += 1
        chi = sum((count - 2000) ** 2 / 2000 for count in counts)

        assert chi < 55  # 19 degrees of freedom: exceeded by chance once in 50,000


def test_rollouts_deal_independently() -> None:
    """Who was in one experiment says nothing about the next one."""
    ids = [f"customer-{i}" for i in range(40_000)]
    for share in (0.5, 0.05):
        first = all_to_challenger("income-7", ids, share)
        second = all_to_challenger("income-8", ids, share)
        both = sum(map(bool.__and__, first, second))
        expected = sum(first) * sum(second) / len(ids)
        variance = expected * (1 - share) ** 2

        assert abs(both - expected) < 5 * math.sqrt(variance)
