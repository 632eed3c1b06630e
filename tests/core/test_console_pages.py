"""The console's pages: escaped, self-contained, and their forms sealed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_control.gateway.console.chart import Look, confidence_sequence, ticks
from ml_control.gateway.console.render import FORMS, pipeline_page, render
from ml_control.gateway.console.session import COOKIE, Sessions, cookie

EVIL = "<script>alert(1)</script>"


def page(**changed: Any) -> dict[str, Any]:
    """What the page of a pipeline in mid-experiment shows."""
    return {
        "name": "digits",
        "unknown": [],
        "record": {
            "state": "in_progress",
            "paused": False,
            "phase": "experiment",
            "strategy": "ab_test",
            "started_at": 1.0,
            "halted_because": "",
        },
        "live": {"variant": "a"},
        "split": [
            {"variant": "a", "role": "champion", "model_version": "a" * 64, "weight": 0.5,
             "kept": False},
            {"variant": "b", "role": "challenger", "model_version": "b" * 64, "weight": 0.5,
             "kept": False},
        ],
        "variants": {"a": {"state": "InService"}, "b": {"state": "Failed"}},
        "verdicts": {},
        "curve": (),
        "judgement": None,
        "metric": "accuracy",
        "verdict": None,
        "candidate": None,
        "alerts_open": [],
        "alarms": [],
        "timeline": [],
        "retrain": {"decision": "wait", "because": "nothing is new"},
        "ledger": {"pending": 0},
        "partitions": {"published": 1, "refused": []},
        "links": {},
        "at": 0.0,
        **changed,
    }  # fmt: skip


def test_whatever_a_value_holds_it_is_text_on_the_page():
    """A reason with markup in it is shown, not run."""
    words = dict.fromkeys(("kind", "subject", "because", "changed", "actor", "run", "url"), EVIL)
    line = {**words, "at": 0.0, "url": ""}
    html = pipeline_page(page(timeline=[line], retrain={"decision": EVIL, "because": EVIL}))

    assert b"<script" not in html
    assert b"&lt;script&gt;alert(1)" in html


def test_a_page_names_nothing_outside_itself():
    """No page, style or picture is fetched from anywhere else."""
    html = pipeline_page(page(curve=(looked(1), looked(2)))).decode()

    assert [] == re.findall(r"""(?:src|href)=["'](?!/console|#)[^"']*["']""", html)
    assert "http" not in html.replace("http-equiv", "")


def test_only_a_manager_sees_forms_and_each_carries_its_own_seal():
    """A reader sees no button; a manager's forms cannot be sent by another site."""
    sessions = Sessions(lambda: 0.0)
    manager = sessions.begin("ops", "hash", "manager")
    reader = sessions.begin("eve", "hash", "reader")

    shown = pipeline_page(page(), session=manager).decode()

    assert b'name="seal"' not in pipeline_page(page()).split(b"<main>")[1]
    assert b'name="because"' not in pipeline_page(page(), session=reader)
    seals = re.findall(
        r'action="/console/digits/(\w+)".*?name="seal" value="(\w+)"', shown, re.DOTALL
    )
    assert [one["name"] for one in FORMS] == [name for name, _ in seals]
    assert len(FORMS) == len({seal for _, seal in seals})
    for name, seal in seals:
        assert manager.sealed(f"digits/{name}", seal)
        assert not reader.sealed(f"digits/{name}", seal)
        assert not manager.sealed(f"tumours/{name}", seal)


def test_a_session_ends_by_time_and_by_logging_out():
    """Neither an old cookie nor one that was logged out opens anything."""
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.begin("ops", "hash", "manager")
    second = sessions.begin("ops", "hash", "manager")

    sessions.end(first)

    assert sessions.get(f"{COOKIE}={first.id}") is None
    assert second == sessions.get(f"other=1; {COOKIE}={second.id}")
    now[0] = second.until
    assert sessions.get(f"{COOKIE}={second.id}") is None


def test_sessions_are_bounded():
    """Logging in for ever does not fill the memory."""
    sessions = Sessions(lambda: 0.0)
    first = sessions.begin("ops", "hash", "manager")

    for _ in range(1000):
        last = sessions.begin("ops", "hash", "manager")

    assert sessions.get(f"{COOKIE}={first.id}") is None
    assert last == sessions.get(f"{COOKIE}={last.id}")


def test_the_cookie_is_for_this_site_and_no_script():
    """The session's cookie is HttpOnly and SameSite=Strict, and Secure behind TLS."""
    session = Sessions(lambda: 0.0).begin("ops", "hash", "manager")

    said = cookie(session, secure=True)

    assert all(word in said for word in ("HttpOnly", "SameSite=Strict", "Secure", session.id))
    assert "Max-Age=0" in cookie(None, secure=False)


def test_an_installation_without_pipelines_says_how_to_make_one():
    """The first page helps on the first day."""
    assert b"ml-control init" in render("index.html", lines=[])


def looked(samples: int, low: float = -0.1, high: float = 0.2) -> Look:
    """One look at an experiment."""
    return Look(0.0, samples, (low + high) / 2, low, high)


bounds = st.floats(-1e6, 1e6).flatmap(
    lambda low: st.floats(0, 1e6).map(lambda more: (low, low + more))
)


@given(looks=st.lists(bounds, min_size=1, max_size=30))
def test_every_point_of_a_chart_lies_inside_its_picture(looks):
    """However wide early bounds are, what is drawn stays within the frame."""
    points = [looked(i, low, high) for i, (low, high) in enumerate(looks)]

    svg = confidence_sequence(points, "difference")

    drawn = re.findall(r'points="([^"]*)"', svg)
    places = [tuple(map(float, p.split(","))) for line in drawn for p in line.split()]
    assert all(0 <= x <= 960 and 0 <= y <= 300 for x, y in places)


def test_no_look_no_chart():
    """Nothing is drawn when there is nothing to draw."""
    assert "" == confidence_sequence([], "difference")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-0.02, 0.07, [-0.02, 0, 0.02, 0.04, 0.06])],
)
def test_ticks_are_round_numbers(low, high, expected):
    """People read 0.2, not 0.1873."""
    assert expected == ticks(low, high)


def test_alarms_that_guard_a_rollout_are_shown():
    """Each with its state and reason, where the pipeline names any."""
    alarms = [{"name": "errors-high", "state": "firing", "since": 1.0, "reason": EVIL}]

    shown = pipeline_page(page(alarms=alarms)).decode()

    assert "errors-high" in shown
    assert "firing" in shown
    assert EVIL not in shown
