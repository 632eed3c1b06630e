"""Waiting for a job on AWS: patient with what passes, at once with what does not."""

from __future__ import annotations

import pytest

from ml_control.aws.training.waiting import Pace, wait
from ml_control.errors import Conflict, Retryable


class Aws:
    """Answers in order; an exception is raised, the last answer is repeated."""

    def __init__(self, *answers):
        self.answers, self.pauses, self.looks = list(answers), [], 0

    def look(self):
        self.looks += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer and {"status": answer}

    def wait(self, tell=lambda: None):
        """Wait without waiting."""
        pace = Pace(first=2.0, longest=5.0, growth=2.0, sleep=self.pauses.append)
        return wait(self.look, lambda told: told["status"], tell, "job x", pace)


BUSY = Retryable("x", "Rate exceeded", "wait", code="ThrottlingException")


def test_it_asks_less_often_the_longer_it_waits():
    """And is done at the first look that shows the end."""
    aws = Aws("InProgress", "InProgress", "Stopping", "Stopped")

    assert {"status": "Stopped"} == aws.wait()
    assert [2.0, 4.0, 5.0] == aws.pauses


def test_throttling_passes():
    """A few refusals in a row are borne, as often as they come."""
    aws = Aws(*[BUSY] * 5, "InProgress", *[BUSY] * 5, "Completed")

    assert {"status": "Completed"} == aws.wait()


def test_what_does_not_pass_is_told_and_leaves_the_job():
    """After several looks in vain; the next caller adopts it."""
    aws = Aws(BUSY)
    with pytest.raises(Retryable, match="cannot be watched") as caught:
        aws.wait()

    assert 6 == aws.looks
    assert "adopted" in caught.value.next
    assert "ThrottlingException" == caught.value.detail["code"]


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "RequestExpired"])
def test_expired_credentials_are_told_at_once(code):
    """They do not come back by themselves."""
    aws = Aws(Retryable("x", "expired", "renew the credentials", code=code))
    with pytest.raises(Retryable) as caught:
        aws.wait()

    assert 1 == aws.looks
    assert "renew the credentials" in caught.value.next


def test_a_job_that_aws_does_not_show_yet_is_waited_for_a_while():
    """Just created it may be absent; one that stays so is asked for anew."""
    assert {"status": "Completed"} == Aws(None, None, "Completed").wait()
    with pytest.raises(Retryable, match="not known"):
        Aws(None).wait()


def test_what_a_listener_raises_comes_through():
    """Also when it is of a kind that AWS's refusals are."""
    for error in (Retryable("listener", "lost", "again"), Conflict("lease", "lost", "stop")):

        def raises(error=error):
            raise error

        aws = Aws("InProgress")
        with pytest.raises(type(error)) as caught:
            aws.wait(raises)
        assert error is caught.value
        assert 1 == aws.looks
