"""The curve that people look at: bounded, covering the whole time, its ends exact."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ml_control.core.series import Point, added


def point(offset: int) -> Point:
    """A look after so many outcomes."""
    return Point(
        offset=offset,
        at=float(offset),
        samples=(offset, offset),
        estimate=0.1,
        low=-0.1,
        high=0.3,
        decision="continue",
    )


@given(looks=st.integers(1, 400), most=st.integers(4, 40))
def test_a_curve_stays_bounded_and_keeps_its_first_and_last_look(looks, most):
    """However many looks there are, memory is bounded and both ends are exact."""
    points: tuple[Point, ...] = ()

    for offset in range(1, looks + 1):
        points = added(points, point(offset), most)

    assert len(points) <= most
    assert (1, looks) == (points[0].offset, points[-1].offset)
    assert sorted({p.offset for p in points}) == [p.offset for p in points]


def test_the_same_look_again_changes_nothing():
    """A crash between deciding and noting it leaves no point twice."""
    points = added((), point(5))

    assert points == added(points, point(5))
    assert points == added(points, point(4))
