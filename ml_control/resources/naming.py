"""Keys, partitions and common arguments of a pipeline's assets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ml_control.core.gates import folded
from ml_control.core.partitions import first_key
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import CheckOutcome, GateResult


def asset_key(pipeline: Pipeline, name: str) -> dg.AssetKey:
    """``[<pipeline>, raw|processed|model|endpoint|ab_config]``."""
    return dg.AssetKey([pipeline.name, name])


def partitions_of(pipeline: Pipeline) -> dg.TimeWindowPartitionsDefinition:
    """The pipeline's partitions in UTC, up to and including the current one."""
    partition = pipeline.spec.source.partition
    # From the beginning of the week or month that holds the start: its objects are placed there.
    start = datetime.fromisoformat(first_key(partition)[:10]).replace(tzinfo=UTC)
    if partition.by == "hour":
        return dg.HourlyPartitionsDefinition(start_date=start, timezone="UTC", end_offset=1)
    if partition.by == "week":
        return dg.WeeklyPartitionsDefinition(start_date=start, timezone="UTC", end_offset=1)
    if partition.by == "month":
        return dg.MonthlyPartitionsDefinition(start_date=start, timezone="UTC", end_offset=1)
    return dg.DailyPartitionsDefinition(start_date=start, timezone="UTC", end_offset=1)


def common(pipeline: Pipeline, name: str, kinds: set[str]) -> dict[str, Any]:
    """Arguments that every asset of a pipeline shares."""
    return {
        "key": asset_key(pipeline, name),
        "group_name": pipeline.name,
        "owners": list(pipeline.spec.owners),
        "kinds": kinds,
    }


def check_name(name: str) -> str:
    """A gate's or check's name in the characters that Dagster allows."""
    return folded(name)


def check_metadata(check: CheckOutcome | GateResult) -> dict[str, Any]:
    """A check's details as Dagster metadata: its table as one, its numbers each by name."""
    details = dict(check.details if isinstance(check, CheckOutcome) else check.evidence)
    found: dict[str, Any] = {"reason": check.reason}
    if table := details.pop("table", None):
        found["table"] = dg.MetadataValue.md(str(table))
    if isinstance(check, GateResult):
        if check.observed is not None:
            found["observed"] = float(check.observed)
        found["required"] = check.required
    else:  # numbers and marks by name: the UI plots them over the partitions
        for key, value in details.items():
            if isinstance(value, bool | int | float) and key not in found:
                found[key] = value
    found["details"] = dg.MetadataValue.json(details)
    return found
