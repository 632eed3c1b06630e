"""What makes the retraining sensor ask: once for each trigger, whatever dies, and told."""

from __future__ import annotations

import pytest

from ml_control.core.drift import LEAST_ROWS
from ml_control.core.retraining import begun, ended
from ml_control.errors import Retryable
from ml_control.ports import Outcome, Prediction
from ml_control.services.reading.views import status

LAST = "2024-03-06"
P = "tumours"


class Live:
    """A home whose model is live: its sensors, its clock, and what people ask of it."""

    def __init__(self, home, sensors, monkeypatch):
        from ml_control.services.data.drift import profile_of

        self.home, self.sensors, self.platform = home, sensors, home.platform
        self.registry = self.platform.registry
        self.model = self.registry.models.candidate(P)
        self.profile = profile_of(self.platform, self.model.dataset)
        self.now = self.registry.clock() + 3600
        self.told = 0
        monkeypatch.setattr(self.registry, "clock", lambda: self.now)

    def tick(self):
        """The retraining sensor's tick, a minute after the last one."""
        self.now += 60
        return self.sensors.tick("retraining")

    def log_requests(self, moved=""):
        """An hour of live requests like the training data, or with one feature in one bin."""
        features = {}
        for name, one in self.profile["features"].items():
            counts = [0.0] * len(one["bins"]["counts"])
            counts[-1] = float(one["count"])
            bins = {"edges": one["bins"]["edges"], "counts": counts}
            features[name] = {**one, "bins": bins} if name == moved else one
        found = {"rows": self.profile["rows"], "features": features, "prediction": {}}
        book, hour = self.registry.live, int(self.now // 3600)
        book.add(*book.state(P), {(self.model.version, hour): found})

    def log_outcomes(self, *right):
        """Answered requests whose outcomes were as predicted, or not."""
        for one in right:
            self.told += 1
            request = f"r{self.told}"
            answer = b'[{"label": "malignant", "score": 0.9}]'
            prediction = Prediction(
                P, request, "", "x", "a", False, 0.0, "a", self.model.version, self.now, 0.01, 1,
                answers=answer,
            )  # fmt: skip
            self.platform.log.append([prediction], durable=False)
            outcome = Outcome(0, "malignant" if one else "benign", self.now)
            self.platform.log.tell(P, request, [outcome])


@pytest.fixture
def live(fast, trained, sensors_of, monkeypatch):
    """It retrains on drift, and has new data that is too little to ask by itself."""
    trained.edit("  gates:", "  retrain: {on_drift: true, min_new_rows: 100000}\n  gates:")
    promote(trained)
    trained.land(LAST, rows=LEAST_ROWS - 1)  # too few rows to drift themselves
    trained.publish(LAST)
    found = Live(trained, sensors_of(trained), monkeypatch)
    yield found
    found.platform.log.close()


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
    from ml_control.services.models.training import train

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
    live.log_requests()
    calm = live.tick()
    before = drifted(live.registry)
    live.log_requests(moved="mean_radius")
    (request,), _ = live.tick()
    live.tick()
    raised = drifted(live.registry)
    live.home.train()
    trained = live.tick()
    lasting = drifted(live.registry)
    live.now += 8 * 86400
    live.log_requests()
    live.tick()

    assert ([], []) == (calm[0], before)
    assert "49 of 100,000 new rows were published" in calm[1]
    because = request.tags["ml_control/because"]
    assert because.startswith("live requests: mean_radius with a PSI of ")
    (alert,) = raised
    assert because == alert.reason
    assert ([], [alert.key]) == (trained[0], [one.key for one in lasting])
    assert [] == drifted(live.registry)


def test_live_data_that_cannot_be_read_is_no_drift_and_breaks_nothing(live, monkeypatch):
    """Neither the log nor the histograms keep the tick from its other work."""

    def broken(*_):
        raise Retryable("it", "is locked", "try again")

    monkeypatch.setattr(live.registry.live, "merged", broken)
    monkeypatch.setattr(live.platform.log, "joined", broken)

    requests, reason = live.tick()

    assert [] == requests
    assert "49 of 100,000 new rows were published" in reason


def test_fallen_quality_asks_and_each_outcome_is_read_once(live, monkeypatch):
    """Outcomes are added up from where the last tick stopped; a fall beyond chance is a trigger."""
    read, whole = [], live.platform.log.joined

    def joined(pipeline, after, limit):
        found = whole(pipeline, after, limit)
        read.append(len(found))
        return found

    monkeypatch.setattr(live.platform.log, "joined", joined)
    live.log_outcomes(*[True] * 200)
    good = live.tick()
    live.log_outcomes(*[False] * 100)
    (request,), _ = live.tick()
    live.tick()

    assert [] == good[0]
    assert [200, 100, 0] == read
    because = request.tags["ml_control/because"]
    assert because.startswith("live accuracy 0.6667 of 300 outcomes, 0.")
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
    live.log_requests(moved="mean_radius")

    assert ([], "not now, because a person paused this pipeline") == live.tick()


def test_status_shows_the_triggers_with_their_values_and_writes_nothing(live):
    """What scripts and the console read: the decision, and each trigger beside its bound."""
    live.log_requests(moved="mean_radius")
    live.home.edit("on_drift: true", "on_drift: true, every: 7 d, max_per_day: 5")
    before = live.registry.models.training(P)

    shown = status(live.platform, live.home.pipeline())["retrain"]

    assert "train" == shown["decision"]
    assert (49, 4) == (shown["rows_since"], shown["budget_left"])
    assert ("mean_radius", "live drift") == (shown["worst"]["feature"], shown["worst"]["in"])
    assert shown["worst"]["psi"] > 0.2
    holding = {one["kind"]: one["holds"] for one in shown["triggers"]}
    assert {"rows": False, "live drift": True}.items() <= holding.items()
    assert {"schedule", "partition drift"} <= set(holding)
    assert before == live.registry.models.training(P)
    assert [] == live.registry.alerts.open(P)


@pytest.mark.parametrize(
    ("weight", "days", "told", "words"),
    [
        (0.5, 14, 30, None),  # 14 days of 30, a half each: 210
        (0.1, 14, 30, "min_samples of 100 on each arm cannot be reached: at 30 entities"),
        (0.5, 14, 0, "no entity with an outcome was logged"),
    ],
)
def test_check_warns_of_experiments_that_cannot_be_decided(
    live, make_shell, weight, days, told, words
):
    """At the rate that outcomes came in; it warns, and the pipeline is still right."""
    rules = (
        f"strategy: ab_test, challenger_weight: {weight}, min_samples: 100, max_duration: {days} d"
    )
    live.home.edit("  gates:", f"  rollout: {{{rules}}}\n  gates:")
    live.log_outcomes(*[True] * told)
    if not told:
        live.platform.log.append([request_of(live)])
    live.tick()

    done = make_shell(live.home.root)("check")

    assert f"ok: {P}: csv, binary" in done.stdout
    assert (words is None) == ("warning:" not in done.stderr)
    assert (words or "") in done.stderr


def request_of(live):
    """A request whose outcome nobody told."""
    return Prediction(
        P, "alone", "", "x", "a", False, 0.0, "a", live.model.version, live.now, 0.01, 1
    )  # fmt: skip
