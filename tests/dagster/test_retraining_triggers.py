"""What makes the retraining sensor ask: once for each trigger, whatever dies, and told."""

from __future__ import annotations

import pytest

from ml_control.core.drift import LEAST_ROWS
from ml_control.core.retraining import begun, ended
from ml_control.errors import Retryable
from ml_control.ports import Joined
from ml_control.services.views import status

LAST = "2024-03-06"
P = "tumours"


class Log:
    """A prediction log with these joined outcomes; it remembers what was read of it."""

    def __init__(self, *values, model):
        self.joins = [joined(i + 1, value, model) for i, value in enumerate(values)]
        self.read = []
        self.broken = False

    def joined(self, pipeline, after, limit):
        if self.broken:
            raise Retryable("log", "is locked", "try again")
        self.read.append(after)
        return [one for one in self.joins if one.offset > after][:limit]


def joined(offset, right, model):
    outcome = "malignant" if right else "benign"
    return Joined(
        offset, P, f"r{offset}", 0, "", "x", False, 0.0, "a", model, "malignant", 0.9, outcome,
        1.0, NOW, True,
    )  # fmt: skip


class Live:
    """Live histograms: those of the training data, or with one feature's values in one bin."""

    def __init__(self, profile, moved=""):
        self.profile, self.moved = profile, moved

    def merged(self, pipeline, model_version, since):
        features = {}
        for name, one in self.profile["features"].items():
            counts = [0.0] * len(one["bins"]["counts"])
            counts[-1] = float(one["count"])
            bins = {"edges": one["bins"]["edges"], "counts": counts}
            features[name] = {**one, "bins": bins} if name == self.moved else one
        return {"rows": self.profile["rows"], "features": features, "prediction": None}


NOW = 1_780_000_000.0


@pytest.fixture
def live(fast, trained, sensors_of, monkeypatch):
    """A home whose model is live, retrains on drift, and has new data that is too little."""
    from ml_control.services.drift import training_profile

    trained.edit("  gates:", "  retrain: {on_drift: true, min_new_rows: 100000}\n  gates:")
    platform = trained.platform
    promote(trained)
    trained.land(LAST, rows=LEAST_ROWS - 1)  # too few rows to drift themselves
    trained.publish(LAST)
    monkeypatch.setattr(platform.registry, "clock", lambda: NOW)
    model = platform.registry.models.candidate(P)
    platform.registry.live = Live(training_profile(platform, model.dataset))
    found = sensors_of(trained)
    found.registry, found.model = platform.registry, model
    return found


def promote(home):
    """Write the Rollout that a deployment of the candidate ends with."""
    registry = home.platform.registry
    version = registry.models.candidate(P).version
    before = registry.rollouts.get(P)
    with registry.leases.hold(P, "deploy", "by hand") as lease:
        registry.rollouts.write(
            before,
            before.model_copy(update={"champion": version}),
            registry.leases.fence(lease),
            action="promoted",
            because="a test",
            actor="by hand",
        )


def drifted(registry):
    return [alert for alert in registry.alerts.open(P) if alert.kind == "drift"]


def test_new_data_during_a_training_gives_exactly_one_follow_up(fast, audited, sensors_of):
    """However often it is looked at during and after, one training follows, and then none."""
    from ml_control.services.training import train

    sensors, during = sensors_of(audited), []

    def meanwhile(said):
        if not during:
            audited.land(LAST)
            audited.publish(LAST)
            during.extend(sensors.tick("retraining") for _ in range(2))

    first, _ = sensors.tick("retraining")
    train(audited.platform, audited.pipeline(), first[0].run_key, meanwhile)
    follow_up, _ = sensors.tick("retraining")
    nothing, _ = sensors.tick("retraining")
    registry = audited.platform.registry
    state = begun(registry.models.training(P), follow_up_dataset(registry), "r", registry.clock())
    state = ended(state, "refused", "", registry.clock(), dataset=state.dataset)
    registry.models.set_training(state)  # as a second training would leave it
    after, reason = sensors.tick("retraining")

    said = "not now, because a training run is in flight; once more after it: {}"
    assert [([], said.format("new data was published"))] * 2 == during
    assert [1, 1, 0, 0] == [len(found) for found in (first, follow_up, nothing, after)]
    assert "not now, because this data was trained on: refused" == reason


def follow_up_dataset(registry):
    """What the request on record is about."""
    return registry.models.training(P).dataset


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_killed_tick_loses_nothing(fast, audited, sensors_of, monkeypatch, dies):
    """Killed before its request is on record the next tick asks; killed after, a later attempt."""
    sensors, registry = sensors_of(audited), audited.platform.registry
    began = registry.clock()
    whole = type(registry.models).move_training

    def killed(self, before, after):
        if dies == "after":
            whole(self, before, after)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(registry.models), "move_training", killed)
        with pytest.raises(KeyboardInterrupt):
            sensors.tick("retraining")
    found = []
    for after in (1, 100):
        monkeypatch.setattr(registry, "clock", lambda after=after: began + after)
        found += [request.tags["ml_control/because"] for request in sensors.tick("retraining")[0]]

    expected = "new data was published" if dies == "before" else "attempt 2: after a failed run"
    assert [expected] == found[:1]


def test_a_training_that_ended_in_mid_tick_wins(fast, audited, sensors_of, monkeypatch):
    """A tick whose state moved under it asks for nothing; the next one decides anew."""
    import ml_control.sensors.retraining as sensor

    sensors, registry = sensors_of(audited), audited.platform.registry
    whole = sensor.observe_and_decide

    def slow(*arguments, **options):
        found = whole(*arguments, **options)
        state = registry.models.training(P)
        registry.models.set_training(state.model_copy(update={"reason": "someone was faster"}))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(sensor, "observe_and_decide", slow)
        lost = sensors.tick("retraining")
    won, _ = sensors.tick("retraining")

    assert ([], "not now, because it changed meanwhile; the next tick") == lost
    assert 1 == len(won)


def test_the_schedule_trains_on_the_same_data_and_finds_nothing_new(
    fast, trained, sensors_of, monkeypatch
):
    """A run of its own is asked for; the same model comes out, which is no failure."""
    trained.edit("  gates:", "  retrain: {every: 1 h}\n  gates:")
    promote(trained)
    sensors, registry = sensors_of(trained), trained.platform.registry
    model, began = registry.models.candidate(P).version, registry.models.training(P).began
    early = sensors.tick("retraining")
    monkeypatch.setattr(registry, "clock", lambda: began + 3600)
    (request,), _ = sensors.tick("retraining")
    done = trained.train()
    after = sensors.tick("retraining")

    assert [] == early[0]
    assert "this data was trained on: passed; the next time is" in early[1]
    assert "it is due (1 h)" == request.tags["ml_control/because"]
    assert (model, False) == (done.model.version, done.is_new)
    state = registry.models.training(P)
    assert "nothing new: the same model as before; every gate passed" == state.reason
    assert ("passed", 2, 1) == (state.outcome, state.number, state.attempt)
    assert "this data was trained on: passed; the next time is" in after[1]


def test_live_drift_asks_once_and_is_told_until_it_is_over(live):
    """The trigger names the feature; one alert lasts as long as the drift, trained on or not."""
    calm = live.tick("retraining")
    before = drifted(live.registry)
    live.registry.live.moved = "mean_radius"
    (request,), _ = live.tick("retraining")
    live.tick("retraining")
    raised = drifted(live.registry)
    live.home.train()
    promoted_not = live.tick("retraining")
    lasting = drifted(live.registry)
    live.registry.live.moved = ""
    live.tick("retraining")

    assert ([], []) == (calm[0], before)
    assert "49 of 100,000 new rows were published" in calm[1]
    because = request.tags["ml_control/because"]
    assert because.startswith("live requests: mean_radius with a PSI of ")
    (alert,) = raised
    assert because == alert.reason
    assert ([], [alert.key]) == (promoted_not[0], [one.key for one in lasting])
    assert [] == drifted(live.registry)


def test_live_data_that_cannot_be_read_is_no_drift_and_breaks_nothing(live):
    """Neither the log nor the histograms keep the tick from its other work."""

    class Broken:
        def merged(self, *_):
            raise Retryable("histograms", "are locked", "try again")

    live.registry.live = Broken()
    object.__setattr__(live.home.platform, "log", log := Log(model="m"))
    log.broken = True

    requests, reason = live.tick("retraining")

    assert [] == requests
    assert "49 of 100,000 new rows were published" in reason


def test_fallen_quality_asks_and_each_outcome_is_read_once(live):
    """Outcomes are added up from where the last tick stopped; a fall beyond chance is a trigger."""
    right = [True] * 300
    log = Log(*right, model=live.model.version)
    object.__setattr__(live.home.platform, "log", log)
    good = live.tick("retraining")
    log.joins += [joined(301 + i, i % 2 == 0, live.model.version) for i in range(300)]
    (request,), _ = live.tick("retraining")
    live.tick("retraining")

    assert [] == good[0]
    assert [0, 300, 600] == log.read
    assert request.tags["ml_control/because"].startswith("live accuracy 0.75 of 600 outcomes, 0.")
    (alert,) = drifted(live.registry)
    assert alert.key.startswith("drift#quality of ")


def test_a_persons_pause_stops_it(live):
    """A paused rollout pauses training too, and the reason says that it was a person."""
    registry = live.registry
    before = registry.rollouts.get(P)
    with registry.leases.hold(P, "deploy", "by hand") as lease:
        registry.rollouts.write(
            before,
            before.model_copy(update={"paused": True}),
            registry.leases.fence(lease),
            action="paused",
            because="a test",
            actor="by hand",
        )
    live.registry.live.moved = "mean_radius"

    assert ([], "not now, because a person paused this pipeline") == live.tick("retraining")


def test_status_shows_the_triggers_with_their_values(live):
    """What scripts and the console read: the decision, and each trigger beside its bound."""
    live.registry.live.moved = "mean_radius"
    live.home.edit("on_drift: true", "on_drift: true, every: 7 d, max_per_day: 5")

    shown = status(live.home.platform, live.home.pipeline())["retrain"]

    assert "train" == shown["decision"]
    assert (49, 4) == (shown["rows_since"], shown["budget_left"])
    assert ("mean_radius", "live drift") == (shown["worst"]["feature"], shown["worst"]["in"])
    assert shown["worst"]["psi"] > 0.2
    holding = {one["kind"]: one["holds"] for one in shown["triggers"]}
    assert {"rows": False, "live drift": True}.items() <= holding.items()
    assert {"schedule", "partition drift"} <= set(holding)


def test_status_writes_nothing(live):
    """Looking is not acting: no request, no alert, no remembered trigger."""
    live.registry.live.moved = "mean_radius"
    before = live.registry.models.training(P)
    status(live.home.platform, live.home.pipeline())

    assert before == live.registry.models.training(P)
    assert [] == live.registry.alerts.open(P)
