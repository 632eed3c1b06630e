"""What ``/metrics`` shows, given to the platform's metrics once a minute, whoever comes first.

The sensors call it at every tick, so that it happens under ``dagster dev`` alone as under ``up``.
Counters are given as what was added since the last time: of several processes only one gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ml_control.core.pipeline import Pipeline
from ml_control.errors import Conflict, MlControlError
from ml_control.platform import Platform
from ml_control.ports import Item, Put, Sample, Table
from ml_control.ports.metrics import Unit
from ml_control.services.reading.metrics import collect

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

EVERY_SECONDS = 60.0
_TABLE: Table = "control-ledger"
_PREFIX = "ml_control_"
# Model versions, rollouts and columns come and go: each would be a metric of its own for ever.
_KEPT = ("pipeline", "variant", "state", "phase", "kind", "metric", "part")
_QUANTILES = (("P50", 0.5), ("P99", 0.99))


def emit_metrics(platform: Platform, pipeline: Pipeline) -> int:
    """Give the pipeline's samples if a minute has passed; gives how many they were.

    What could not be given is taken back, and comes with the next minute's.
    """
    if platform.metrics is None:
        return 0
    tables, now = platform.registry.tables, platform.registry.clock()
    item = tables.get(_TABLE, _pk(pipeline), "emitted")
    last = float(item.body["at"]) if item else 0.0
    if 0 <= now - last < EVERY_SECONDS:
        return 0
    families = list(collect(platform, [pipeline], {}))
    counted = dict(_counted(families))
    before: Mapping[str, float] | None = item.body["counted"] if item else None
    version = item.version if item else 0
    try:
        _write(platform, pipeline, now, counted, version)
    except Conflict:
        return 0  # another process gives them
    samples = list(_samples(families, before, now, pipeline.name))
    try:
        platform.metrics.emit(samples)
    except MlControlError:
        _write(platform, pipeline, now, dict(before or {}), version + 1)
        raise
    return len(samples)


def _write(
    platform: Platform, pipeline: Pipeline, at: float, counted: dict[str, float], version: int
) -> None:
    body = {"at": at, "counted": counted}
    item = Item(_pk(pipeline), "emitted", body)
    platform.registry.tables.transact([Put(_TABLE, item, version)])


def _pk(pipeline: Pipeline) -> str:
    return f"metrics#{pipeline.name}"


def _counted(families: list[Metric]) -> Iterator[tuple[str, float]]:
    """Every counter and bucket by its name and labels."""
    for family in families:
        if family.type in ("counter", "histogram"):
            for sample in family.samples:
                yield _key(sample.name, sample.labels), float(sample.value)


def _key(name: str, labels: Mapping[str, str]) -> str:
    return "|".join([name, *(f"{k}={v}" for k, v in sorted(labels.items()))])


def _samples(
    families: list[Metric], before: Mapping[str, float] | None, at: float, pipeline: str
) -> Iterator[Sample]:
    for family in families:
        if family.type == "gauge":
            yield from _gauges(family, at, pipeline)
        elif before is None:
            continue  # what was counted before anything was given is not of this minute
        elif family.type == "counter":
            for sample in family.samples:
                added = sample.value - before.get(_key(sample.name, sample.labels), 0.0)
                if added >= 0:
                    name = _name(family.name)
                    yield Sample(name, added, "Count", at, _dimensions(sample.labels))
        elif family.type == "histogram":
            yield from _quantiles(family, before, at)


def _gauges(family: Metric, at: float, pipeline: str) -> Iterator[Sample]:
    if family.name == f"{_PREFIX}alerts_open":
        total = sum(sample.value for sample in family.samples)
        yield Sample("AlertsOpenInAll", float(total), "Count", at, {"Pipeline": pipeline})
    unit: Unit = "Count" if family.name.endswith(("_events", "_outcomes", "_open")) else "None"
    for sample in family.samples:
        dimensions = _dimensions(sample.labels)
        if "arm" in sample.labels:
            dimensions["Arm"] = sample.labels["arm"]
        yield Sample(_name(family.name), float(sample.value), unit, at, dimensions)


def _quantiles(family: Metric, before: Mapping[str, float], at: float) -> Iterator[Sample]:
    """The bound below which half, and 99 of 100, of the interval's answers lie."""
    series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for sample in family.samples:
        bound = sample.labels.get("le")
        if bound is None:
            continue
        added = sample.value - before.get(_key(sample.name, sample.labels), 0.0)
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        series.setdefault(labels, []).append((float(bound), added))
    for labels, buckets in series.items():
        total = buckets[-1][1]
        finite = [bound for bound, _ in buckets if bound != float("inf")]
        for suffix, share in _QUANTILES:
            if total > 0 and finite:
                upper = next(one for one, count in buckets if count >= share * total)
                value = min(upper, finite[-1]) * 1000
                name = f"{_name(family.name.removesuffix('_seconds'))}Latency{suffix}"
                yield Sample(name, value, "Milliseconds", at, _dimensions(dict(labels)))


def _dimensions(labels: Mapping[str, str]) -> dict[str, str]:
    return {k.capitalize(): labels[k] for k in _KEPT if labels.get(k)}


def _name(name: str) -> str:
    """``ml_control_request_errors`` as CloudWatch's users write it: ``RequestErrors``."""
    return "".join(part.capitalize() for part in name.removeprefix(_PREFIX).split("_"))
