"""Partitions: where an object belongs, in Dagster's own keys."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.partitions import (
    first_key,
    is_future,
    is_known,
    moment_of,
    partition_key,
    place,
)
from ml_control.errors import BadObject
from ml_control.resources.naming import partitions_of
from ml_control.spec import Partitioning

CADENCES = ["hour", "day", "week", "month"]
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds of a strategy are naive
days = st.dates(date(2000, 1, 1), date(2100, 1, 1))


def dagster_key(partitioning, moment):
    """The key that Dagster gives the partition of a moment."""
    pipeline = SimpleNamespace(spec=SimpleNamespace(source=SimpleNamespace(partition=partitioning)))
    definition = partitions_of(pipeline)
    key = definition.get_partition_keys(current_time=moment)[-1]
    window = definition.time_window_for_partition_key(key)
    assert window.start <= moment < window.end
    return key


@pytest.mark.parametrize("by", CADENCES)
@settings(max_examples=30, deadline=None)
@given(start=days, ahead=st.timedeltas(timedelta(0), timedelta(days=40)))
def test_an_object_is_placed_where_dagster_has_a_partition(by, start, ahead):
    """From the very first day on, whatever weekday it is, Dagster knows the object's key."""
    moment = datetime(start.year, start.month, start.day, tzinfo=UTC) + ahead
    partitioning = Partitioning(by=by, start=start)

    expected = dagster_key(partitioning, moment)
    assert expected == place("p/a.csv", moment.timestamp(), partitioning)


@pytest.mark.parametrize("by", CADENCES)
@given(earlier=moments, later=moments)
def test_keys_sort_as_their_time_does(by, earlier, later):
    """A later moment never has a smaller key, so that newest first is a matter of sorting."""
    first, second = sorted([earlier, later])

    assert partition_key(first, by) <= partition_key(second, by)


@pytest.mark.parametrize(
    ("key", "moment"),
    [
        ("p/dt=2026-11-22/a.csv", datetime(2026, 11, 22, tzinfo=UTC)),
        ("dt=2026-11-22/a.csv", datetime(2026, 11, 22, tzinfo=UTC)),
        ("p/dt=2026-11-22T13/a.csv", datetime(2026, 11, 22, 13, tzinfo=UTC)),
        ("p/dt=2026-11-22-13:00/cat/a.png", datetime(2026, 11, 22, 13, tzinfo=UTC)),
        ("p/cat/dt=2026-11-22/a.png", datetime(2026, 11, 22, tzinfo=UTC)),
        ("p/a.csv", datetime(1970, 1, 1, tzinfo=UTC)),
        ("p/dt=2026-11-22", datetime(1970, 1, 1, tzinfo=UTC)),
        ("p/xdt=2026-11-22/a.csv", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_the_folder_says_when_else_the_event_does(key, moment):
    """A ``dt=`` folder anywhere above the file is its time; without one, the event's is."""
    assert moment == moment_of(key, 0.0)


@pytest.mark.parametrize(
    "text", ["", "today", "2026-13-01", "2026-02-30", "22.11.2026", "2026-11-22 "]
)
def test_a_folder_that_is_no_date_is_refused(text):
    """An object under a ``dt=`` that is no date is not guessed into some partition."""
    with pytest.raises(BadObject, match="is no date") as refusal:
        moment_of(f"p/dt={text}/a.csv", 0.0)

    assert f"p/dt={text}/a.csv" == refusal.value.object
    assert "dt=YYYY-MM-DD" in refusal.value.next


@pytest.mark.parametrize("by", CADENCES)
def test_an_object_before_the_start_is_refused(by):
    """The day before the start is too early, the start itself is not, whatever the cadence."""
    partitioning = Partitioning(by=by, start=date(2026, 1, 15))

    with pytest.raises(BadObject, match="before the first partition 2026-01-15"):
        place("p/dt=2026-01-14/a.csv", 0.0, partitioning)
    assert first_key(partitioning) == place("p/dt=2026-01-15/a.csv", 0.0, partitioning)


@pytest.mark.parametrize(
    ("by", "key"),
    [
        ("hour", "2026-11-22-23:00"),
        ("day", "2026-11-22"),
        ("week", "2026-11-22"),
        ("month", "2026-11-01"),
    ],
)
def test_an_object_waits_until_its_partition_begins(by, key):
    """The partition of this moment has begun; the next one is the future until its first second."""
    now = datetime(2026, 11, 22, 23, 30, tzinfo=UTC).timestamp()
    after = {"hour": 0.5, "day": 0.5, "week": 24 * 6 + 0.5, "month": 24 * 8 + 0.5}[by] * 3600
    following = partition_key(datetime.fromtimestamp(now + after, UTC), by)

    assert key == partition_key(datetime.fromtimestamp(now, UTC), by)
    assert not is_future(key, by, now)
    assert is_future(following, by, now)
    assert is_future(following, by, now + after - 1)
    assert not is_future(following, by, now + after)


def test_a_time_that_no_calendar_has_is_refused():
    """A file dated after the year 9999 is quarantined, unless its folder names the day."""
    cadence = Partitioning.model_validate({"by": "day", "start": "2026-01-01"})

    with pytest.raises(BadObject, match="is no date"):
        place("p/a.csv", 3e11, cadence)
    assert "2026-03-04" == place("p/dt=2026-03-04/a.csv", 3e11, cadence)


@pytest.mark.parametrize(
    ("key", "by", "known"),
    [
        ("2026-03-04", "day", True),
        ("2025-12-31", "day", False),
        ("2026-03-04", "month", False),
        ("2026-03-01", "month", True),
        ("2026-03-04", "week", False),
        ("2026-03-01", "week", True),
        ("2026-03-04-10:00", "hour", True),
        ("2026-03-04-10:00", "day", False),
        ("unplaced", "day", False),
    ],
)
def test_keys_of_another_cadence_are_not_known(key, by, known):
    """After the pipeline file changed, keys that Dagster would not know are told apart."""
    assert known == is_known(key, Partitioning.model_validate({"by": by, "start": "2026-01-01"}))
