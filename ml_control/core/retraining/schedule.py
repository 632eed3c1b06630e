"""The times of ``retrain.every``: so long after the last training, or those of a cron expression.

Missed times collapse into one: what counts is the first time after the last training, and whether
it has come.
"""

from __future__ import annotations

from ml_control.spec import parse_duration


def next_time(every: str | None, since: float | None) -> float | None:
    """The first scheduled time after *since* (UTC seconds); None without one."""
    if every is None or since is None:
        return None
    if len(every.split()) != 5:
        return since + parse_duration(every)
    from croniter import CroniterBadDateError, croniter

    try:
        return float(croniter(every, since).get_next(float))
    except CroniterBadDateError:  # such as a 30th of February
        return None
