"""A curve that is kept for people: bounded however long it grows, its ends exact."""

from __future__ import annotations

from ml_control.core.records import Record

MOST = 240


class Point(Record):
    """What an experiment said at one look: challenger minus champion, with its bounds."""

    offset: int  # of the last outcome that it knew
    at: float  # UTC seconds
    samples: tuple[int, int]  # entities with an outcome: champion, challenger
    estimate: float
    low: float
    high: float
    decision: str


def added(points: tuple[Point, ...], point: Point, most: int = MOST) -> tuple[Point, ...]:
    """The curve with one more point; the same or an older look again changes nothing.

    Once there are more than ``most`` points every second one inside is dropped, so that the whole
    time stays covered. The first and the last are always there.
    """
    if points and point.offset <= points[-1].offset:
        return points
    grown = (*points, point)
    if len(grown) <= most:
        return grown
    return (*grown[:-1:2], grown[-1])
