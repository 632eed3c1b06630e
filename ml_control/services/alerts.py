"""What people are told: once for each trouble, at least once each, until the trouble is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from ml_control.core.records import Audit
from ml_control.errors import BadObject, MlControlError
from ml_control.platform import Platform
from ml_control.registry.alerts import Raised

_logger = logging.getLogger("ml_control")
GATE_REFUSED, STALLED, HALT = "gate-refused", "stalled-sensor", "halt"
NEVER_BEGAN = 5  # requests without a run that began, after which a person is told


def raise_alert(
    platform: Platform, pipeline: str, kind: str, subject: str, reason: str, next: str
) -> bool:
    """Write an alert down; the next tick delivers it. False when this trouble is known already."""
    alert = Raised(
        pipeline=pipeline,
        key=f"{kind}#{subject}",
        kind=kind,
        object=f"{pipeline} {subject}",
        reason=reason,
        next=next,
        at=platform.registry.clock(),
    )
    return platform.registry.alerts.open_one(alert)


def alert_refused(platform: Platform, pipeline: str, partition: str, audit: Audit) -> bool:
    """A partition's data checks said no: told once for each data version."""
    failed = ", ".join(check.name for check in audit.checks if check.refuses)
    return raise_alert(
        platform,
        pipeline,
        "refused",
        f"{partition} {audit.data_digest[:12]}",
        f"failed its data checks and was not published: {failed}",
        "see the checks in Dagster; correct the files and land them again",
    )


def alert_stalled(platform: Platform, pipeline: str, sensor: str, seconds: float) -> bool:
    """A sensor has not ticked for so long: what it starts does not start until it does."""
    return raise_alert(
        platform,
        pipeline,
        STALLED,
        sensor,
        f"has not ticked for {seconds:.0f} s, though 'ml-control up' runs",
        "see the sensor's ticks in Dagster, and daemon.log and code.log in the home's logs/",
    )


def clear_alert(platform: Platform, pipeline: str, kind: str, subject: str) -> None:
    """This one trouble is over."""
    for alert in platform.registry.alerts.open(pipeline):
        if alert.key == f"{kind}#{subject}":
            platform.registry.alerts.clear(alert)


def _notice(platform: Platform, pipeline: str) -> None:
    """Raise what can be seen from the records alone, however the process that wrote them ended."""
    models = platform.registry.models
    candidate = models.candidate(pipeline)
    verdicts = models.verdicts(pipeline, candidate.version) if candidate else []
    if candidate is None or not verdicts or verdicts[0].passed:
        return
    newest = verdicts[0]
    reasons = "; ".join(f"{gate.name}: {gate.reason}" for gate in newest.gates if not gate.passed)
    raise_alert(
        platform,
        pipeline,
        GATE_REFUSED,
        f"model {candidate.version}",
        f"was trained and is not deployed: {reasons}",
        f"see 'ml-control why {pipeline} --version {candidate.version[:12]}' and its report",
    )


def unclaimed(platform: Platform, pipelines: Collection[str]) -> list[BadObject]:
    """What lies in landing folders that belong to no pipeline, such as a renamed one's."""
    return [
        BadObject(
            stray.place,
            stray.reason
            or f"{stray.objects} files wait here, and there is no pipeline {stray.name}",
            stray.next
            or f"move them to landing/<pipeline>/, or add pipelines/{stray.name}/defs.yaml",
            name=stray.name,
        )
        for stray in platform.notifications.strays(pipelines)
    ]


def raise_parked(platform: Platform, pipeline: str, partition: str, reason: str) -> None:
    """Objects of a partition wait for a person."""
    raise_alert(
        platform,
        pipeline,
        "parked",
        partition,
        reason,
        f"see 'ml-control events {pipeline} --state parked', then 'ml-control replay {pipeline}'",
    )


def clear_alerts(platform: Platform, pipeline: str, kind: str) -> None:
    """The trouble of this kind is over."""
    for alert in platform.registry.alerts.open(pipeline):
        if alert.kind == kind:
            platform.registry.alerts.clear(alert)


def attend(platform: Platform, pipeline: str) -> int:
    """Clear alerts whose trouble is over and deliver those that are due; gives how many were sent.

    What cannot be delivered now is tried again at a later tick; it never breaks this one.
    """
    book, now = platform.registry.alerts, platform.registry.clock()
    _notice(platform, pipeline)
    for alert in book.open(pipeline):
        lasts = _LASTS.get(alert.kind)
        if lasts is not None and not lasts(platform, alert):
            book.clear(alert)
    sent = 0
    for alert in book.unsent(pipeline):
        # A time far ahead was written before the clock was set back.
        if now < alert.not_before <= now + 3600:
            continue
        try:
            platform.alerts.send(alert.alert())
        except MlControlError as error:
            _logger.warning("alert %s could not be sent: %s", alert.key, error)
            book.failed(alert)
            continue
        book.delivered(alert)
        sent += 1
    return sent


def _subject(alert: Raised) -> str:
    return alert.key.partition("#")[2]


def _still_parked(platform: Platform, alert: Raised) -> bool:
    events = platform.registry.ledger.events(alert.pipeline, _subject(alert), "parked")
    return next(events, None) is not None


def _still_given_up(platform: Platform, alert: Raised) -> bool:
    state = platform.registry.partitions.get(alert.pipeline, _subject(alert))
    attempts = state.request.attempt if state.request else 0
    return state.stale and attempts >= platform.settings.max_attempts


def _still_not_beginning(platform: Platform, alert: Raised) -> bool:
    request = platform.registry.partitions.get(alert.pipeline, _subject(alert)).request
    return request is not None and request.asked >= NEVER_BEGAN


def _still_refused(platform: Platform, alert: Raised) -> bool:
    partition, _, digest = _subject(alert).partition(" ")
    refused = platform.registry.partitions.get(alert.pipeline, partition).refused
    return refused is not None and refused.data_digest.startswith(digest)


def _still_gate_refused(platform: Platform, alert: Raised) -> bool:
    """The newest model is still the one that was refused, and no later verdict let it pass."""
    models = platform.registry.models
    candidate = models.candidate(alert.pipeline)
    if candidate is None or _subject(alert) != f"model {candidate.version}":
        return False
    verdicts = models.verdicts(alert.pipeline, candidate.version)
    return bool(verdicts) and not verdicts[0].passed


def _still_stopped(platform: Platform, alert: Raised) -> bool:
    """The endpoint still holds the model that nobody can tell to be proven."""
    endpoint, _, version = _subject(alert).partition(" ")
    if platform.endpoints.describe(endpoint).model_version != version:
        return False
    return not any(v.passed for v in platform.registry.models.verdicts(alert.pipeline, version))


def _still_halted(platform: Platform, alert: Raised) -> bool:
    rollout = platform.registry.rollouts.get(alert.pipeline)
    return rollout.state == "halted" and _subject(alert) == f"rollout {rollout.id}"


def _still_rolled_back(platform: Platform, alert: Raised) -> bool:
    rollout = platform.registry.rollouts.get(alert.pipeline)
    return rollout.ended == "rolled_back" and _subject(alert) == f"rollout {rollout.id}"


# Kinds that are not here are cleared by whoever raises them.
_LASTS: dict[str, Callable[[Platform, Raised], bool]] = {
    "parked": _still_parked,
    "given-up": _still_given_up,
    "not-beginning": _still_not_beginning,
    "refused": _still_refused,
    GATE_REFUSED: _still_gate_refused,
    HALT: _still_stopped,
    "rollout-halted": _still_halted,
    "rolled-back": _still_rolled_back,
}
