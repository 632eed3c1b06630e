"""CloudWatch's alarms as guardrails of a rollout, from the sensor's tick to the record."""

from __future__ import annotations

import pytest
from test_rollouts import P, Pipeline, with_rollout

from ml_control.errors import Retryable
from ml_control.ports import Alarm
from ml_control.services.reading.views import status

RULES = "{strategy: ab_test, min_samples: 5, guardrails: {alarms: [errors-high]}}"


class Alarms:
    """What is watched, by name; or why it cannot be read."""

    def __init__(self):
        self.states, self.error = {}, None

    def read(self, names):
        if self.error:
            raise self.error
        return [self.states.get(name, Alarm(name, "missing")) for name in sorted(names)]


@pytest.fixture
def pipeline(trained, instance):
    """A challenger takes half of the traffic; the pipeline names an alarm."""
    found = Pipeline(trained, instance)
    with_rollout(trained, RULES)
    found.run(f"{P}__train")
    found.train_anew(rows=150)
    found.run(f"{P}__train")
    assert ("experiment", 0.5) == (found.rollout.phase, found.rollout.share)
    found.alarms = Alarms()
    object.__setattr__(found.platform, "alarms", found.alarms)  # as another platform has them
    yield found
    object.__setattr__(found.platform, "alarms", None)


def test_an_alarm_that_fires_rolls_back_once(pipeline):
    """No data and no answer hold; an alarm from before the rollout is not the challenger's doing;
    one that goes off takes it back, once, however long it fires; people are told.
    """
    began, champion = pipeline.rollout.started_at, pipeline.rollout.champion
    assert pipeline.tick()[0] is None
    assert [("errors-high", "missing")] == [
        (one["name"], one["state"])
        for one in status(pipeline.platform, pipeline.home.pipeline())["alarms"]
    ]
    pipeline.alarms.error = Retryable("alarms", "throttled", "later")
    assert pipeline.tick()[0] is None
    shown = status(pipeline.platform, pipeline.home.pipeline())["alarms"]
    assert [("missing", "throttled")] == [(one["state"], one["reason"]) for one in shown]
    pipeline.alarms.error = None
    pipeline.alarms.states["errors-high"] = Alarm("errors-high", "firing", began - 60)
    assert pipeline.tick()[0] is None

    pipeline.alarms.states["errors-high"] = Alarm("errors-high", "firing", began + 1, "7 > 1")
    request, _ = pipeline.tick()
    assert ("roll_back", "alarm errors-high fires: 7 > 1") == (
        request.tags["ml_control/step"],
        request.tags["ml_control/because"],
    )
    pipeline.run(f"{P}__rollout")
    assert pipeline.tick()[0] is None
    assert [] == pipeline.run(f"{P}__rollout")

    rollout = pipeline.rollout
    assert ("idle", "rolled_back", champion, 1) == (
        rollout.state,
        rollout.ended,
        rollout.champion,
        len(rollout.rolled_back),
    )
    told = [one.action for one in pipeline.platform.registry.history.decisions(P)]
    assert 1 == told.count("rolled_back")
    assert ["rolled-back"] == [a.kind for a in pipeline.platform.registry.alerts.open(P)]
