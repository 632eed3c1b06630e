"""Evidence about a challenger: read from the log once, kept as sums, judged at any time."""

from __future__ import annotations

import time
from contextlib import suppress

from pydantic import ValidationError

from ml_control.core.experiment import (
    ArmCounts,
    ExperimentSettings,
    ExperimentState,
    Judgement,
    Observed,
    judge,
    update,
)
from ml_control.core.experiment.counts import guardrails
from ml_control.core.outcomes import value_of
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Rollout
from ml_control.core.rollout import Health, Judged
from ml_control.errors import Conflict, Unknown
from ml_control.platform import Platform
from ml_control.ports import LATENCY_BOUNDS, Joined, Traffic
from ml_control.registry.experiments import Evidence, damaged

BATCH = 1000
_POINTS = 200  # of the confidence sequence that are kept; thinned out when there are twice as many


def settings_of(pipeline: Pipeline) -> ExperimentSettings:
    """The experiment's question, from the pipeline file."""
    rules = pipeline.spec.rollout
    return ExperimentSettings(
        kind=rules.metric.kind,
        higher_is_better=rules.metric.higher_is_better,
        alpha=rules.alpha,
        min_samples=rules.min_samples,
        max_duration=rules.max_duration,
        error_rate=rules.guardrails.error_rate,
        latency_p99=rules.guardrails.latency_p99,
    )


def gather(platform: Platform, pipeline: Pipeline, seconds: float = 15.0) -> int:
    """Read the outcomes joined since the last look and add them up, for at most so long.

    Gives how many were read. The offset and the sums are one write, so a crash repeats or loses
    nothing; another process that was there first makes us begin again. While no rollout is in
    progress the offset moves on, so that the next rollout does not begin at the log's beginning.
    """
    book, until, read = platform.registry.experiments, time.monotonic() + seconds, 0
    while time.monotonic() < until:
        cursor = book.cursor(pipeline.name)
        newest = platform.log.state(pipeline.name).joined
        rollout = platform.registry.rollouts.get(pipeline.name)
        if rollout.state == "idle" or rollout.phase not in ("canary", "experiment"):
            return _skip(platform, pipeline, cursor, newest)
        if newest < cursor[0]:
            raise Unknown(
                f"{pipeline.name} prediction log",
                f"ends at outcome {newest}, and {cursor[0]} were read: it is not the one that was",
                "put the log back; or end the rollout with 'ml-control rollback'",
            )
        joined = platform.log.joined(pipeline.name, cursor[0], BATCH) if newest > cursor[0] else []
        # Each outcome belongs to this rollout or an earlier one, unless another began meanwhile.
        if platform.registry.rollouts.get(pipeline.name).id != rollout.id:
            continue
        evidence, version = book.evidence(pipeline.name, rollout.id)
        fresh = _counted(platform, pipeline, rollout, evidence)
        fresh = _added(pipeline, rollout, fresh, joined)
        to = joined[-1].offset if joined else cursor[0]
        try:
            if fresh != evidence or to != cursor[0]:
                book.put(fresh, version, cursor, to, pipeline.name)
        except Conflict:
            continue
        read += len(joined)
        if len(joined) < BATCH:
            break
    return read


def _skip(platform: Platform, pipeline: Pipeline, cursor: tuple[int, int], newest: int) -> int:
    """Nothing is judged: what was joined until now will never be asked for."""
    if newest != cursor[0]:
        with suppress(Conflict):  # another look moved it
            platform.registry.experiments.put(None, 0, cursor, newest, pipeline.name)
    return 0


def _added(
    pipeline: Pipeline, rollout: Rollout, evidence: Evidence, joined: list[Joined]
) -> Evidence:
    """The sums with a batch of outcomes more: the first of each entity in this rollout."""
    metric, unusable, seen = pipeline.spec.rollout.metric, evidence.unusable, []
    for one in joined:
        if one.rollout_id != rollout.id or not one.first:
            continue
        value = value_of(metric, one.label, one.score, one.outcome)
        if value is None:
            unusable += 1
        else:
            seen.append(Observed(one.offset, one.challenger, one.share, value))
    if not joined:
        return evidence
    state = _state(rollout, evidence)
    if seen:
        state = update(state, seen)
    return evidence.model_copy(
        update={
            "offset": joined[-1].offset,
            "unusable": unusable,
            "experiment": state.to_json(),
        }
    )


def _counted(
    platform: Platform, pipeline: Pipeline, rollout: Rollout, evidence: Evidence | None
) -> Evidence:
    """The sums with today's counts, and since when an alarm lasts or is over."""
    now = platform.registry.clock()
    traffic = platform.log.traffic(pipeline.name, rollout.id).get("challenger", Traffic())
    limit = pipeline.spec.rollout.guardrails.latency_p99
    counted = {
        "requests": traffic.requests,
        "errors": traffic.errors,
        "slow": slow(traffic, limit),
    }
    known = evidence or Evidence(pipeline=pipeline.name, rollout=rollout.id)
    change: dict[str, object] = {"counted": counted}
    if evidence is None or known.step_at != rollout.step_at:
        change |= {"step_at": rollout.step_at, "base": counted}
    fresh = known.model_copy(update=change)
    alarm = alarm_of(pipeline, fresh)
    if alarm and fresh.alarm_since is None:
        fresh = fresh.model_copy(update={"alarm_since": now, "clear_since": None})
    elif not alarm and fresh.alarm_since is not None:
        fresh = fresh.model_copy(update={"alarm_since": None, "clear_since": now})
    return fresh


def slow(traffic: Traffic, limit: float | None) -> int:
    """Requests that took longer than a limit, as far as the counts' bounds tell: never too few."""
    if limit is None:
        return 0
    within = sum(1 for bound in LATENCY_BOUNDS if bound <= limit)
    return sum(traffic.latencies[within:])


def since_step(evidence: Evidence) -> ArmCounts:
    """The challenger's counts since the present step began."""
    base = evidence.base
    return ArmCounts(**{k: max(n - base.get(k, 0), 0) for k, n in evidence.counted.items()})


def alarm_of(pipeline: Pipeline, evidence: Evidence) -> str:
    """What looks wrong in this step: a guardrail that is exceeded, surely or not."""
    counts = since_step(evidence)
    if not counts.requests:
        return ""
    found = guardrails(settings_of(pipeline), counts)
    wrong = [name for name, state in found.items() if state != "healthy"]
    return f"above its limit: {', '.join(wrong)} ({_said(counts)})" if wrong else ""


def read_evidence(platform: Platform, pipeline: Pipeline, rollout: Rollout) -> Evidence | None:
    """The sums of a rollout. Raises ``Unknown`` for a record that cannot be read as such."""
    evidence, _ = platform.registry.experiments.evidence(pipeline.name, rollout.id)
    if evidence is not None:
        _state(rollout, evidence)
    return evidence


def _state(rollout: Rollout, evidence: Evidence) -> ExperimentState:
    try:
        return ExperimentState.model_validate(
            evidence.experiment or {"started_at": rollout.started_at}
        )
    except ValidationError as error:
        raise damaged(rollout.pipeline, rollout.id, error) from error


def health_of(pipeline: Pipeline, rollout: Rollout, evidence: Evidence | None) -> Health | None:
    """How the challenger does since the present step began; None before anything was counted."""
    if evidence is None or evidence.step_at != rollout.step_at:
        return None
    whole = ArmCounts(**evidence.counted)
    sure = guardrails(settings_of(pipeline), whole)
    broken = [name for name, state in sure.items() if state == "breached"]
    breach = f"beyond its limit: {', '.join(broken)} ({_said(whole)})" if broken else ""
    return Health(
        requests=since_step(evidence).requests,
        breach=breach,
        alarm=alarm_of(pipeline, evidence),
        alarm_since=evidence.alarm_since,
        clear_since=evidence.clear_since,
    )


def judge_of(
    platform: Platform, pipeline: Pipeline, rollout: Rollout, evidence: Evidence | None
) -> Judged | None:
    """The experiment's decision now; None before anything was counted."""
    if evidence is None:
        return None
    found = judgement(platform, pipeline, rollout, evidence)
    return Judged(found.decision, found.because)


def judgement(
    platform: Platform, pipeline: Pipeline, rollout: Rollout, evidence: Evidence
) -> Judgement:
    """Everything that the experiment can say now."""
    state = _state(rollout, evidence)
    traffic = platform.log.traffic(pipeline.name, rollout.id)
    limit = pipeline.spec.rollout.guardrails.latency_p99
    arms = {
        name: arm_of(traffic.get(name, Traffic()), limit) for name in ("champion", "challenger")
    }
    now = platform.registry.clock()
    return judge(state, settings_of(pipeline), arms["champion"], arms["challenger"], now)


def arm_of(traffic: Traffic, limit: float | None) -> ArmCounts:
    """The counts of one arm as experiments take them."""
    return ArmCounts(
        entities=traffic.entities,
        expected_entities=traffic.expected,
        requests=traffic.requests,
        errors=traffic.errors,
        slow=slow(traffic, limit),
    )


def note_judgement(platform: Platform, pipeline: Pipeline, rollout: Rollout) -> None:
    """Keep what the experiment says now, and a point of its confidence sequence, for people."""
    book = platform.registry.experiments
    if rollout.phase != "experiment":
        return
    evidence, version = book.evidence(pipeline.name, rollout.id)
    if evidence is None:
        return
    found = judgement(platform, pipeline, rollout, evidence)
    told = found.to_json()
    points = evidence.points
    samples = sum(found.samples.values())
    bounds = (found.estimate, found.low, found.high)
    known = points and points[-1][1] == samples
    if not known and None not in bounds:
        at = platform.registry.clock()
        points = thinned((*points, (at, samples, *(float(b or 0.0) for b in bounds))))  # type: ignore[arg-type]
    if told == evidence.judgement and points == evidence.points:
        return
    cursor = book.cursor(pipeline.name)
    fresh = evidence.model_copy(update={"judgement": told, "points": points})
    try:
        book.put(fresh, version, cursor, cursor[0], pipeline.name)
    except Conflict:
        return  # another look keeps its own


def thinned(
    points: tuple[tuple[float, int, float, float, float], ...],
) -> tuple[tuple[float, int, float, float, float], ...]:
    """Every second point where there are too many; the last one always."""
    return points if len(points) < 2 * _POINTS else (*points[:-1:2], points[-1])


def _said(counts: ArmCounts) -> str:
    return f"{counts.requests} requests, {counts.errors} failed, {counts.slow} slow"
