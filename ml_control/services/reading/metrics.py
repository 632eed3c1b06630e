"""What Prometheus scrapes: read from counters that are kept as things happen, never a rescan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ml_control.core.live_quality import recent
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Rollout
from ml_control.platform import Platform
from ml_control.ports import LATENCY_BOUNDS, Traffic
from ml_control.services.models.measures import measure

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

TICKS_FILE = "ticks.json"  # when each sensor ticked last, as `up` saw it
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STATES = ("Creating", "InService", "Failed", "Missing")
_PHASES = ("shadow", "canary", "experiment")
_ROLLOUT_STATES = ("idle", "in_progress", "halted")


def exposition(
    platform: Platform, pipelines: Iterable[Pipeline], ticks: Mapping[str, float]
) -> bytes:
    """The text exposition of every pipeline's metrics (Prometheus text format 0.0.4).

    ``ticks``: when each sensor ticked last, by its name, in UTC seconds.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    metrics = list(collect(platform, list(pipelines), ticks))

    class Collector:
        def collect(self) -> list[Metric]:
            return metrics

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    found: bytes = generate_latest(registry)
    return found


def collect(
    platform: Platform, pipelines: list[Pipeline], ticks: Mapping[str, float]
) -> Iterator[Metric]:
    """Metric families, each with a sample for every pipeline."""
    rollouts = {p.name: platform.registry.rollouts.get(p.name) for p in pipelines}
    yield from _ledger(platform, pipelines)
    yield from _rollouts(platform, rollouts)
    yield from _requests(platform, rollouts)
    yield from _experiments(platform, rollouts)
    yield from _quality(platform, pipelines, rollouts)
    yield from _sensors(ticks, platform.registry.clock())


def _ledger(platform: Platform, pipelines: list[Pipeline]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    events = GaugeMetricFamily(
        "ml_control_events", "Events of the ledger by state.", labels=["pipeline", "state"]
    )
    alerts = GaugeMetricFamily(
        "ml_control_alerts_open", "Alerts whose trouble is not over.", labels=["pipeline", "kind"]
    )
    for pipeline in pipelines:
        for state, count in platform.registry.ledger.counts(pipeline.name).items():
            events.add_metric([pipeline.name, state], count)
        kinds: dict[str, int] = {}
        for alert in platform.registry.alerts.open(pipeline.name):
            kinds[alert.kind] = kinds.get(alert.kind, 0) + 1
        for kind, count in sorted(kinds.items()):
            alerts.add_metric([pipeline.name, kind], count)
    yield events
    yield alerts


def _rollouts(platform: Platform, rollouts: dict[str, Rollout]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    weights = GaugeMetricFamily(
        "ml_control_variant_weight",
        "Share of entities that a variant takes.",
        labels=["pipeline", "variant", "role", "model_version"],
    )
    states = GaugeMetricFamily(
        "ml_control_endpoint_state",
        "1 for the state that a variant's endpoint is in.",
        labels=["pipeline", "variant", "state"],
    )
    stages = GaugeMetricFamily(
        "ml_control_rollout_state",
        "1 for the state that the rollout is in.",
        labels=["pipeline", "state"],
    )
    phases = GaugeMetricFamily(
        "ml_control_rollout_phase",
        "1 for the phase that a challenger is judged in.",
        labels=["pipeline", "phase"],
    )
    paused = GaugeMetricFamily(
        "ml_control_paused", "1 while a person holds every automatic step.", labels=["pipeline"]
    )
    for name, rollout in rollouts.items():
        for variant, entry in sorted(rollout.variants.items()):
            role = "champion" if entry.model_version == rollout.champion else "challenger"
            weights.add_metric(
                [name, variant, role, entry.model_version], rollout.weights.get(variant, 0.0)
            )
            now = platform.endpoints.describe(entry.endpoint).state
            for state in _STATES:
                states.add_metric([name, variant, state], float(state == now))
        for state in _ROLLOUT_STATES:
            stages.add_metric([name, state], float(state == rollout.state))
        for phase in _PHASES:
            under_way = rollout.state != "idle" and phase == rollout.phase
            phases.add_metric([name, phase], float(under_way))
        paused.add_metric([name], float(rollout.paused))
    yield from (weights, states, stages, phases, paused)


def _requests(platform: Platform, rollouts: dict[str, Rollout]) -> Iterator[Metric]:
    """Counters start anew with each rollout, as Prometheus expects of a restarted counter."""
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    labels = ["pipeline", "arm", "variant", "rollout"]
    requests = CounterMetricFamily(
        "ml_control_requests", "Requests by the arm that their entity belongs to.", labels=labels
    )
    errors = CounterMetricFamily(
        "ml_control_request_errors", "Requests that the assigned variant failed.", labels=labels
    )
    entities = CounterMetricFamily(
        "ml_control_entities", "Entities that an arm met for the first time.", labels=labels
    )
    seconds = HistogramMetricFamily(
        "ml_control_request_seconds", "Time of a whole answer.", labels=labels
    )
    for name, rollout in rollouts.items():
        for arm, traffic in sorted(platform.log.traffic(name, rollout.id).items()):
            values = [name, arm, _variant(rollout, arm), rollout.id]
            requests.add_metric(values, traffic.requests)
            errors.add_metric(values, traffic.errors)
            entities.add_metric(values, traffic.entities)
            seconds.add_metric(values, _buckets(traffic), sum_value=None)
    yield from (requests, errors, entities, seconds)


def _variant(rollout: Rollout, arm: str) -> str:
    """The variant that an arm of the rollout is, or was until it ended; empty without one."""
    first = rollout.challenger or ""
    if not first and rollout.live:
        others = [name for name in rollout.variants if name != rollout.live]
        other = others[0] if others else ""
        first = rollout.live if rollout.ended == "promoted" else other
    if arm == "challenger":
        return first
    return next((name for name in rollout.variants if name != first), "")


def _buckets(traffic: Traffic) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, the last for everything."""
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip(LATENCY_BOUNDS, traffic.latencies, strict=False):
        total += count
        found.append((f"{bound:g}", total))
    return [*found, ("+Inf", sum(traffic.latencies))]


def _experiments(platform: Platform, rollouts: dict[str, Rollout]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    difference = GaugeMetricFamily(
        "ml_control_experiment_difference",
        "Challenger minus champion at the last look: estimate and valid bounds.",
        labels=["pipeline", "rollout", "part"],
    )
    samples = GaugeMetricFamily(
        "ml_control_experiment_entities",
        "Entities with an outcome at the last look.",
        labels=["pipeline", "rollout", "arm"],
    )
    for name, rollout in rollouts.items():
        evidence, _ = platform.registry.experiments.evidence(name, rollout.id)
        if evidence is None or evidence.judgement is None:
            continue
        for part in ("estimate", "low", "high"):
            if (value := evidence.judgement[part]) is not None:
                difference.add_metric([name, rollout.id, part], value)
        for arm, count in sorted(evidence.judgement["samples"].items()):
            samples.add_metric([name, rollout.id, arm], count)
    yield from (difference, samples)


__all__ = ["CONTENT_TYPE", "collect", "exposition"]


def _quality(
    platform: Platform, pipelines: list[Pipeline], rollouts: dict[str, Rollout]
) -> Iterator[Metric]:
    """What the outcomes of the last days say of each variant's model, and how far inputs moved."""
    from prometheus_client.core import GaugeMetricFamily

    live = GaugeMetricFamily(
        "ml_control_live_quality",
        "Mean of the last seven days: share right (accuracy) or absolute error (mae).",
        labels=["pipeline", "variant", "model_version", "metric"],
    )
    outcomes = GaugeMetricFamily(
        "ml_control_live_outcomes",
        "Outcomes of the last seven days.",
        labels=["pipeline", "variant", "model_version"],
    )
    drift = GaugeMetricFamily(
        "ml_control_drift_psi",
        "Largest population stability index of the champion's live requests or predictions.",
        labels=["pipeline", "kind", "column"],
    )
    for pipeline in pipelines:
        sums = platform.registry.outcomes.get(pipeline.name)
        metric = "mae" if pipeline.spec.columns.task == "regression" else "accuracy"
        for variant, entry in sorted(rollouts[pipeline.name].variants.items()):
            count, total = recent(sums, entry.model_version, platform.registry.clock())
            labels = [pipeline.name, variant, entry.model_version]
            outcomes.add_metric(labels, count)
            if count:
                live.add_metric([*labels, metric], total / count)
        for seen in measure(platform, pipeline):
            if seen.value is not None and seen.kind != "quality":
                drift.add_metric([pipeline.name, seen.kind, seen.worst], seen.value)
    yield from (live, outcomes, drift)


def _sensors(ticks: Mapping[str, float], now: float) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    ages = GaugeMetricFamily(
        "ml_control_sensor_tick_age_seconds", "Since a sensor ticked last.", labels=["sensor"]
    )
    for name, last in sorted(ticks.items()):
        ages.add_metric([name], max(0.0, now - last))
    yield ages
