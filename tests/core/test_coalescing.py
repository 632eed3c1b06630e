"""When a burst is ingested: as one, once it is over, and never later than promised."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from ml_control.core.coalescing import Waiting, decide

times = st.floats(0, 1e6, allow_nan=False)
spans = st.floats(0, 1e4, allow_nan=False)


def waiting(*arrivals):
    """The sum of events recorded at these times."""
    found = Waiting(partition="2026-11-22")
    for seq, at in enumerate(arrivals, start=1):
        found = found.joined(at, seq)
    return found


def test_the_reason_says_what_is_waited_for():
    """A person sees how many objects wait, and how long it has been quiet."""
    turn = decide(waiting(95, 97, 98), 100, quiet=5, max_wait=300)

    assert (False, 103) == (turn.due, turn.until)
    assert "waiting: 3 objects, quiet for 2 s of 5 s" == turn.because
    assert "1 object, quiet for 5 s" == decide(waiting(95), 100, quiet=5, max_wait=300).because
    assert not decide(waiting(), 100, quiet=0, max_wait=0).due


@given(st.lists(times, min_size=1), st.floats(0, 2e6), spans, spans)
@example([1.0], 1.0, 1.0, 6e-49)
def test_nothing_starves(arrivals, now, quiet, max_wait):
    """However busy a partition is, it is due at the latest max_wait after its first object."""
    turn = decide(waiting(*arrivals), now, quiet=quiet, max_wait=max_wait)

    if now - min(arrivals) >= max_wait or now - max(arrivals) >= quiet:
        assert turn.due
    if not turn.due:
        assert now < turn.until <= min(arrivals) + max_wait + 1e-6
        assert decide(waiting(*arrivals), turn.until + 1e-6, quiet=quiet, max_wait=max_wait).due


@given(st.lists(times, min_size=1), st.floats(0, 2e6), spans, st.floats(0.001, 1e4))
def test_a_burst_is_waited_for(arrivals, now, quiet, max_wait):
    """While objects keep arriving and the limit is not reached, nothing is asked for."""
    silent, waited = now - max(arrivals), now - min(arrivals)
    turn = decide(waiting(*arrivals), now, quiet=quiet, max_wait=max_wait)

    if 0 <= silent < quiet and waited < max_wait:
        assert not turn.due


@given(st.lists(times, min_size=1), st.floats(0, 2e6), spans)
def test_no_quiet_time_means_at_once(arrivals, now, max_wait):
    """With ``quiet: 0 s`` every object is due when it is recorded."""
    assert decide(waiting(*arrivals), now, quiet=0, max_wait=max_wait).due


@given(st.lists(times, min_size=1), st.floats(0.001, 1e6), spans, spans)
def test_a_clock_set_back_blocks_nothing(arrivals, back, quiet, max_wait):
    """Objects that seem to come from the future are due at once, not when the clock is there."""
    now = max(arrivals) - back

    assert (
        now >= max(arrivals) or decide(waiting(*arrivals), now, quiet=quiet, max_wait=max_wait).due
    )


@given(st.permutations([3.0, 1.0, 2.0, 2.0]))
def test_the_order_of_records_does_not_matter(arrivals):
    """The sum of the same events is the same in any order."""
    found = waiting(*arrivals)

    assert (4, 1.0, 3.0, 4) == (found.objects, found.first_at, found.last_at, found.newest)
