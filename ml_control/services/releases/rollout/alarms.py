"""The platform's alarms that a pipeline names as guardrails, as observations of its rollout."""

from __future__ import annotations

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Rollout
from ml_control.core.rollout import Alarmed
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.ports import Alarm


def read_alarms(platform: Platform, pipeline: Pipeline) -> list[Alarm]:
    """The alarms that the pipeline names, in order of name; none where nobody watches any."""
    names = pipeline.spec.rollout.guardrails.alarms
    return platform.alarms.read(names) if names and platform.alarms is not None else []


def alarmed(platform: Platform, pipeline: Pipeline, rollout: Rollout) -> Alarmed:
    """What they say of a challenger that takes traffic. What cannot be read is not healthy."""
    try:
        found = read_alarms(platform, pipeline)
    except MlControlError as error:
        return Alarmed(unclear=f"the alarms cannot be read: {error.reason}")
    firing = [one for one in found if one.state == "firing"]
    before = [one for one in firing if 0 < one.since < rollout.started_at]
    fresh = [one for one in firing if one not in before]
    unclear = [f"alarm {one.name} fires since before this rollout" for one in before]
    unclear += [f"alarm {one.name} has no data" for one in found if one.state == "missing"]
    return Alarmed("; ".join(map(_said, fresh)), "; ".join(unclear))


def _said(alarm: Alarm) -> str:
    return f"alarm {alarm.name} fires" + (f": {alarm.reason[:200]}" if alarm.reason else "")
