"""``raw`` and ``processed``: partitioned, audited inside the step that publishes."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import CheckOutcome
from ml_control.errors import NotProven
from ml_control.platform import Platform
from ml_control.resources import PlatformResource
from ml_control.resources.naming import (
    asset_key,
    check_metadata,
    check_name,
    common,
    partitions_of,
)
from ml_control.services.alerts import alert_refused
from ml_control.services.data.audit import CHECK_NAMES
from ml_control.services.data.dataset import admit, process

RAW_CHECKS = ("objects_readable", "expectations")
Event = dg.MaterializeResult[Any] | dg.AssetCheckResult


def dataset_assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """The two data assets of a pipeline."""
    partitions = partitions_of(pipeline)
    raw_key, processed_key = asset_key(pipeline, "raw"), asset_key(pipeline, "processed")
    place = f"{pipeline.name}/dt=<date>/"

    @dg.asset(
        **common(pipeline, "raw", {pipeline.spec.source.format}),
        description=f"Objects that were put into `{place}`, pinned by version. "
        "Unreadable ones are quarantined with their reason.",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=_specs(raw_key, RAW_CHECKS, partitions),
    )
    def raw(context: dg.AssetExecutionContext, ml_control: PlatformResource) -> Iterator[Event]:
        platform = ml_control.open()
        outcomes: dict[str, Sequence[CheckOutcome]] = {}
        totals = {"objects": 0, "rows": 0, "quarantined": 0, "taken_from_ledger": 0}
        metadata: dict[str, Any] = {}
        digests = []
        for partition in context.partition_keys:
            done = admit(platform, pipeline, partition, context.run_id)
            context.log.info(
                f"{partition}: {len(done.manifest.objects)} objects, {done.manifest.rows} rows, "
                f"{len(done.quarantined)} quarantined"
            )
            outcomes[partition] = done.checks
            digests.append(done.manifest.digest)
            totals["objects"] += len(done.manifest.objects)
            totals["rows"] += done.manifest.rows
            totals["quarantined"] += len(done.quarantined)
            totals["taken_from_ledger"] += done.claimed
            metadata["manifest"] = dg.MetadataValue.path(platform.lake.uri(done.path))
            if done.quarantined:
                metadata["quarantine"] = dg.MetadataValue.md(_list(done.quarantined))
        yield from _checks(context, raw_key, outcomes, dg.AssetCheckSeverity.WARN)
        yield dg.MaterializeResult(
            asset_key=raw_key,
            data_version=_version(digests),
            metadata={**totals, **metadata, "dagster/row_count": totals["rows"]},
        )

    @dg.asset(
        **common(pipeline, "processed", {"parquet", "polars"}),
        description="Typed rows with a stable id and split. Published only after the data checks "
        "passed on the staged files; otherwise the version before stays.",
        partitions_def=partitions,
        deps=[raw_key],
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=_specs(processed_key, CHECK_NAMES, partitions),
    )
    def processed(
        context: dg.AssetExecutionContext, ml_control: PlatformResource
    ) -> Iterator[Event]:
        platform = ml_control.open()
        outcomes: dict[str, Sequence[CheckOutcome]] = {}
        refused: dict[str, str] = {}
        totals = {"rows": 0, "train": 0, "validation": 0, "test": 0}
        metadata: dict[str, Any] = {}
        digests = []
        for partition in context.partition_keys:
            done = process(platform, pipeline, partition, context.run_id)
            outcomes[partition] = done.audit.checks
            if not done.published:
                failed = [f"{c.name}: {c.reason}" for c in done.audit.checks if c.refuses]
                refused[partition] = "; ".join(failed)
                alert_refused(platform, pipeline.name, partition, done.audit)
                continue
            digests.append(done.manifest.digest)
            totals["rows"] += done.manifest.rows
            for split, rows in done.manifest.splits.items():
                totals[split] += rows
            metadata["manifest"] = dg.MetadataValue.path(platform.lake.uri(done.path))
            metadata["profile"] = dg.MetadataValue.json(_summary(done.manifest.profile))
        yield from _checks(context, processed_key, outcomes, dg.AssetCheckSeverity.ERROR)
        if refused:
            raise not_published(platform, pipeline, refused)
        yield dg.MaterializeResult(
            asset_key=processed_key,
            data_version=_version(digests),
            metadata={**totals, **metadata, "dagster/row_count": totals["rows"]},
        )

    return [raw, processed]


def not_published(platform: Platform, pipeline: Pipeline, refused: dict[str, str]) -> NotProven:
    """The error of partitions that failed their checks; what was published before stays."""
    names = ", ".join(sorted(refused))
    reasons = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
    return NotProven(
        f"{pipeline.name} partition {names}",
        f"failed its data checks and was not published ({reasons})",
        f"correct the files and land them again in {platform.settings.door(pipeline.name)}",
    )


def _specs(
    key: dg.AssetKey, names: Sequence[str], partitions: dg.PartitionsDefinition[Any]
) -> list[dg.AssetCheckSpec]:
    # Not blocking: the gate is inside the publishing step, where no selection can leave it out.
    return [
        dg.AssetCheckSpec(name=check_name(name), asset=key, partitions_def=partitions)
        for name in names
    ]


def _checks(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    outcomes: dict[str, Sequence[CheckOutcome]],
    severity: dg.AssetCheckSeverity,
) -> Iterator[dg.AssetCheckResult]:
    """One result per check; over a range of partitions also one evaluation for each of them."""
    if len(outcomes) > 1:
        for partition, checks in outcomes.items():
            for check in checks:
                context.log_event(
                    dg.AssetCheckEvaluation(
                        asset_key=key,
                        check_name=check_name(check.name),
                        passed=check.passed,
                        metadata=check_metadata(check),
                        severity=severity if check.blocking else dg.AssetCheckSeverity.WARN,
                        description=check.reason,
                        partition=partition,
                    )
                )
    by_name: dict[str, list[tuple[str, CheckOutcome]]] = {}
    for partition, checks in outcomes.items():
        for check in checks:
            by_name.setdefault(check.name, []).append((partition, check))
    for name, found in by_name.items():
        failed = [f"{partition}: {check.reason}" for partition, check in found if not check.passed]
        only = found[0][1]
        yield dg.AssetCheckResult(
            asset_key=key,
            check_name=check_name(name),
            passed=not failed,
            severity=severity if only.blocking else dg.AssetCheckSeverity.WARN,
            description="; ".join(failed) if failed and len(found) > 1 else only.reason,
            metadata=check_metadata(only) if len(found) == 1 else {"partitions": len(found)},
        )


def _version(digests: list[str]) -> dg.DataVersion | None:
    # Over a range Dagster keeps one version for all; the manifests hold the exact ones.
    return dg.DataVersion(digests[0]) if len(digests) == 1 else None


def _list(reasons: dict[str, str]) -> str:
    lines = [f"- `{key}`: {reason}" for key, reason in list(reasons.items())[:50]]
    more = len(reasons) - len(lines)
    return "\n".join([*lines, f"- and {more} more"] if more else lines)


def _summary(profile: dict[str, Any]) -> dict[str, Any]:
    return {name: profile[name] for name in ("rows", "target") if name in profile}
