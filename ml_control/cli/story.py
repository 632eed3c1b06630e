"""The acts of the demo in their order."""

from __future__ import annotations

from collections.abc import Callable

from ml_control.cli import acts, releases
from ml_control.cli.acts import Story

ACTS: list[tuple[str, Callable[[Story], str]]] = [
    ("data lands, a proven model serves", acts.data_lands),
    ("predictions on held-back images", acts.predictions),
    ("a corrupted day changes nothing", acts.corrupted_day),
    ("endpoint alone, by hand, is refused", acts.by_hand),
    ("a wrong container is found out", acts.wrong_container),
    ("the daemon is killed, nothing is lost", acts.daemon_killed),
    ("a challenger wins on evidence", releases.challenger_wins),
    ("a backfill trains once", acts.backfill_once),
    ("a challenger that is worse live is rolled back", releases.challenger_loses),
    ("where to look", acts.where_to_look),
]
