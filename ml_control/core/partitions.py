"""Which partition an object belongs to. Keys are Dagster's own for the same cadence, in UTC."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from ml_control.errors import BadObject
from ml_control.spec import Partitioning

_SEGMENT = re.compile(r"(?:^|/)dt=([^/]*)(?=/)")
_FORMATS = ("%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%d-%H:%M")


def moment_of(key: str, at: float) -> datetime:
    """When an object belongs to: its ``dt=`` folder, else the UTC time of its event.

    Raises ``BadObject`` for a ``dt=`` that is no date.
    """
    match = _SEGMENT.search(key)
    if match is None:
        try:
            return datetime.fromtimestamp(at, UTC)
        except (OverflowError, ValueError, OSError) as error:
            raise BadObject(
                key, f"its time {at:g} is no date", "put it into a folder dt=YYYY-MM-DD"
            ) from error
    if (moment := _read(match[1])) is not None:
        return moment
    raise BadObject(
        key, f"dt={match[1]} is no date", "name the folder dt=YYYY-MM-DD (or dt=YYYY-MM-DDTHH)"
    )


@lru_cache(maxsize=1024)  # thousands of files share a folder
def _read(text: str) -> datetime | None:
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def partition_key(moment: datetime, by: str) -> str:
    """The key of the partition that a moment falls in; weeks begin on Sunday, as Dagster's do."""
    if by == "hour":
        return moment.strftime("%Y-%m-%d-%H:00")
    day = moment.date()
    if by == "week":
        day -= timedelta(days=(day.weekday() + 1) % 7)
    elif by == "month":
        day = day.replace(day=1)
    return day.isoformat()


def place(key: str, at: float, partitioning: Partitioning) -> str:
    """The partition of an object. Raises ``BadObject`` when it lies before the first one."""
    moment = moment_of(key, at)
    if moment.date() < partitioning.start:
        raise BadObject(
            key,
            f"belongs to {moment.date()}, before the first partition {partitioning.start}",
            "correct the dt= folder, or move source.partition.start back",
        )
    return partition_key(moment, partitioning.by)


def is_future(partition: str, by: str, now: float) -> bool:
    """Whether a partition has not begun yet: its objects wait until its day."""
    return partition > partition_key(datetime.fromtimestamp(now, UTC), by)


def is_known(partition: str, partitioning: Partitioning) -> bool:
    """Whether a key is one of the pipeline's partitions; a changed file may know it no more."""
    moment = _read(partition)
    if moment is None:
        return False
    return partition == partition_key(moment, partitioning.by) >= first_key(partitioning)


def first_key(partitioning: Partitioning) -> str:
    """The key of the first partition."""
    start = date(partitioning.start.year, partitioning.start.month, partitioning.start.day)
    moment = datetime(start.year, start.month, start.day, tzinfo=UTC)
    return partition_key(moment, partitioning.by)
