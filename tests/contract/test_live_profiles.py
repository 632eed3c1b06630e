"""Profiles of live requests on each platform's registry."""

from __future__ import annotations

from ml_control.registry.live import HOURS

P = "flowers"


def test_of_two_hours_with_one_place_the_later_is_kept(registries):
    """A flush after a month without one has both: it is not refused, and the older hour goes."""
    one, other = registries
    state, version = one.live.state(P)
    profiles = {("v", hour): {"hour": hour} for hour in (5 + HOURS, 5, 6)}

    assert 1 == one.live.add(state, version, profiles)
    items = other.tables.query("control-ledger", f"live#{P}", prefix="profile#")
    assert [5 + HOURS, 6] == [item.body["hour"] for item in items]
