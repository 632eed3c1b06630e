"""From whatever an endpoint is, step by step to what is wanted; what SageMaker's reasons mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_control.aws.endpoint_failures import failure
from ml_control.core.endpoint_steps import BROKEN, UNDER_WAY, Attempt, Look, next_step, seen
from ml_control.core.rows import bodies
from ml_control.errors import PlatformFailed, Retryable

WANTED = "wanted"
CONFIGS = st.sampled_from([WANTED, "old", "by-hand"])
STATUSES = st.sampled_from([*sorted(UNDER_WAY), *sorted(BROKEN), "InService"])


class World:
    """An endpoint as SageMaker has it; what is under way ends at ``settle``."""

    def __init__(self, look):
        self.look = look

    def settle(self):
        """What is under way comes to its end."""
        look = self.look
        if look is None or look.status not in UNDER_WAY:
            return
        if look.status == "Deleting":
            self.look = None
            return
        config = look.pending if look.status == "Updating" and look.pending else look.config
        self.look = Look("InService", config)

    def act(self, step):
        """What SageMaker does when it is asked; it refuses what it really refuses."""
        if step == "create":
            assert self.look is None
            self.look = Look("Creating", WANTED)
        elif step == "update":
            assert self.look.status == "InService"
            self.look = Look("Updating", self.look.config, WANTED)
        elif step == "delete":
            assert self.look.status in BROKEN
            self.look = Look("Deleting", self.look.config)


@given(st.one_of(st.none(), st.builds(Look, STATUSES, CONFIGS, CONFIGS)), st.data())
def test_every_state_leads_to_what_is_wanted(look, data):
    """Wherever a deployer begins, however often it dies and another begins anew, and whatever
    answers are lost, what is wanted serves in the end, and SageMaker is asked for nothing that it
    refuses.
    """
    world, attempt = World(look), Attempt(WANTED)
    for _ in range(12):
        if data.draw(st.booleans(), label="the deployer dies"):
            attempt = Attempt(WANTED)
        attempt = seen(attempt, world.look)
        step = next_step(attempt, world.look)
        if step == "done":
            break
        if step == "failed":  # of an attempt that was found under way, and is tried anew
            attempt = Attempt(WANTED)
            continue
        world.act(step)
        lost = data.draw(st.booleans(), label="the answer is lost")
        if step in ("create", "update") and not lost:
            attempt = replace(attempt, asked=True)
        world.settle()

    assert ("InService", WANTED) == (world.look.status, world.look.config)


def test_what_was_asked_for_and_goes_back_has_failed():
    """An update that ends with what ran before was rolled back; it is not tried for ever."""
    attempt = seen(Attempt(WANTED), Look("Updating", "old", WANTED))
    attempt = seen(attempt, Look("RollingBack", "old", WANTED))

    assert "failed" == next_step(attempt, Look("InService", "old", reason="alarm"))
    assert "update" == next_step(attempt, Look("InService", "by-hand"))


def test_an_update_that_is_shown_late_has_not_failed():
    """Right after it was accepted, the endpoint may still be shown as it was: it is waited for."""
    attempt = Attempt(WANTED, asked=True, before="old", at=5.0)

    assert "wait" == next_step(attempt, Look("InService", "old", at=5.0))
    assert "failed" == next_step(attempt, Look("InService", "old", reason="alarm", at=6.0))
    moving = seen(attempt, Look("Updating", "old", WANTED, at=5.0))
    assert "failed" == next_step(moving, Look("InService", "old", at=5.0))


def test_a_failure_that_nobody_asked_for_is_a_leftover():
    """The next deployment removes it; its own failure it tells."""
    look = Look("Failed", WANTED)

    assert "delete" == next_step(Attempt(WANTED), look)
    assert "failed" == next_step(Attempt(WANTED, asked=True), look)


@pytest.mark.parametrize(
    ("reason", "kind", "step"),
    [
        ("CapacityError: Unable to provision requested ML compute capacity", Retryable, "wait"),
        ("InsufficientInstanceCapacity: no ml.m5.large", Retryable, "instances.type"),
        (
            "ResourceLimitExceeded: The account-level service limit 'ml.m5.large' is 0",
            PlatformFailed,
            "quota",
        ),
        (
            "The primary container for production variant X did not pass the ping health check.",
            PlatformFailed,
            "ml-control verify",
        ),
        ('Failed to extract model data archive from URL "s3://b/k".', PlatformFailed, "gzip tar"),
        (
            "Unable to successfully stand up your model within the allotted 180 second timeout",
            PlatformFailed,
            "memory_mb",
        ),
        ("The following alarms are in ALARM state: [late].", PlatformFailed, "alarms"),
        ("Something new.", PlatformFailed, "log group"),
        ("", PlatformFailed, "log group"),
    ],
)
def test_each_reason_of_sagemakers_has_its_kind_and_next_step(reason, kind, step):
    """Its own words stay in the error, with the end of the log and a step that helps."""
    error = failure("endpoint e", reason, what="removed", log="Traceback", model_version="v1")

    assert kind is type(error)
    assert (reason or "gives no reason") in error.reason
    assert "its log ends: Traceback" in error.reason
    assert step in error.next


@given(st.lists(st.text("0123456789,.", min_size=1, max_size=40), max_size=60), st.integers(1, 200))
def test_rows_are_cut_into_requests_of_whole_lines(rows, most):
    """Every row is asked once, in order, and no request is larger than may be unless one row is."""
    found = list(bodies(rows, most))

    assert "".join(f"{row}\n" for row in rows).encode() == b"".join(found)
    assert all(body.endswith(b"\n") for body in found)
    assert all(len(body) <= most or body.count(b"\n") == 1 for body in found)
