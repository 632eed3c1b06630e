"""Each kind of alert: raised once while its trouble lasts, and over when it is."""

from __future__ import annotations

import pytest

from ml_control.errors import Unknown
from ml_control.ports import EndpointState
from ml_control.services.alerts import STALLED, alert_stalled, attend, clear_alert
from ml_control.services.releases import reconcile

P = "tumours"


def kinds(home):
    """The open alerts' kinds, after a tick."""
    attend(home.platform, P)
    return [alert.kind for alert in home.platform.registry.alerts.open(P)]


def judged(home, *, passed, key):
    """Another verdict of the candidate: of another question, later than those before."""
    models = home.platform.registry.models
    version = models.candidate(P).version
    newest = models.verdicts(P, version)[0]
    gate = newest.gates[0].model_copy(update={"passed": passed, "reason": f"reason {key}"})
    change = {
        "passed": passed,
        "gate_config": key,
        "at": newest.at + 1,
        "gates": (gate, *newest.gates[1:]),
    }
    models.record_verdict(newest.model_copy(update=change))


def test_a_refused_model_is_told_until_another_word_is_spoken(trained):
    """The alert names the gate's reason; a later passing verdict ends it, a refusal begins anew."""
    home = trained
    assert [] == kinds(home)
    judged(home, passed=False, key="1")

    assert ["gate-refused"] == kinds(home) == kinds(home)
    (alert,) = home.platform.registry.alerts.open(P)
    version = home.platform.registry.models.candidate(P).version
    assert "reason 1" in alert.reason
    assert version in alert.object
    judged(home, passed=True, key="2")
    assert [] == kinds(home)
    judged(home, passed=False, key="3")
    assert ["gate-refused"] == kinds(home)
    assert 2 == home.platform.registry.alerts.open(P)[0].number


def test_what_serves_without_proof_is_stopped_and_told(home, monkeypatch):
    """The alert lasts as long as the endpoint holds what nobody can tell to be proven."""
    platform, pipeline = home.platform, home.pipeline()
    held = {"tumours-a": EndpointState("tumours-a", "InService", model_version="f" * 64)}

    def describe(name):
        return held.get(name, EndpointState(name, "Missing"))

    monkeypatch.setattr(platform.endpoints, "describe", describe)
    stopped = []
    monkeypatch.setattr(platform.endpoints, "stop", stopped.append)

    assert isinstance(reconcile.halt_unproven(platform, pipeline)["a"], Unknown)
    assert ["tumours-a"] == stopped
    assert ["halt"] == kinds(home)
    held["tumours-a"] = EndpointState("tumours-a", "Missing", model_version="f" * 64)
    assert ["halt"] == kinds(home)
    held.clear()
    assert [] == kinds(home)


def test_a_sensor_that_stands_still_is_told_once(home):
    """By its name, until it ticks again; another one's alert stays."""
    platform = home.platform
    names = [f"{P}__arrivals", f"{P}__retraining"]
    assert [True, False] == [alert_stalled(platform, P, names[0], 200.0) for _ in range(2)]
    assert alert_stalled(platform, P, names[1], 200.0)

    assert [STALLED, STALLED] == kinds(home)
    clear_alert(platform, P, STALLED, names[0])
    (left,) = platform.registry.alerts.open(P)
    assert f"{P} {names[1]}" == left.object
    assert "200 s" in left.reason


@pytest.mark.parametrize("count", [3])
def test_a_refusal_is_delivered_once(trained, count):
    """However many ticks look at it, one line is written."""
    judged(trained, passed=False, key="1")
    for _ in range(count):
        attend(trained.platform, P)

    lines = (trained.path / "logs" / "alerts.jsonl").read_text("utf-8").splitlines()
    assert 1 == len(lines)
