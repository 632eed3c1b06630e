"""Two models beside each other: metrics, slices, data, hyperparameters, features."""

from __future__ import annotations

from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import ModelVersion, Verdict
from ml_control.errors import MlControlError, NotProven
from ml_control.platform import Platform
from ml_control.services.models.evidence import FEATURES
from ml_control.spec.gates import LOWER_IS_BETTER


def compare(platform: Platform, pipeline: Pipeline, a: str, b: str) -> dict[str, Any]:
    """What differs between two versions, ``champion`` and ``candidate`` among them.

    Metrics are of each model's own test rows; ``same_test`` says whether those are the same.
    Raises ``NotProven`` for an unknown version.
    """
    first, second = (_version(platform, pipeline, name) for name in (a, b))
    verdicts = [_verdict(platform, pipeline, model) for model in (first, second)]
    return {
        "pipeline": pipeline.name,
        "a": _about(first, verdicts[0]),
        "b": _about(second, verdicts[1]),
        "same_test": first.test_set == second.test_set,
        "metrics": _metrics(first, second, verdicts),
        "slices": _slices(verdicts),
        "data": _data(first, second),
        "hyperparameters": _different(first.hyperparameters, second.hyperparameters),
        "rounds": {"a": first.best_iteration + 1, "b": second.best_iteration + 1},
        "container": _different({"tag": first.container}, {"tag": second.container}),
        "features": _features(platform, first, second),
    }


def _version(platform: Platform, pipeline: Pipeline, name: str) -> ModelVersion:
    registry = platform.registry
    if name == "champion":
        champion = registry.rollouts.get(pipeline.name).champion
        if champion is None:
            raise NotProven(pipeline.name, "no model is live", "name a version instead")
        return registry.models.get(pipeline.name, champion)
    if name == "candidate":
        candidate = registry.models.candidate(pipeline.name)
        if candidate is None:
            raise NotProven(pipeline.name, "no model was trained yet", "train one first")
        return candidate
    return registry.models.get(pipeline.name, name)


def _verdict(platform: Platform, pipeline: Pipeline, model: ModelVersion) -> Verdict | None:
    return next(iter(platform.registry.models.verdicts(pipeline.name, model.version)), None)


def _about(model: ModelVersion, verdict: Verdict | None) -> dict[str, Any]:
    return {
        "version": model.version,
        "created_at": model.created_at,
        "rows": model.dataset.rows,
        "partitions": len(model.dataset.parts),
        "dataset": model.dataset.digest,
        "training_job": model.training_job,
        "run": model.run,
        "passed": verdict.passed if verdict else None,
        "failed": verdict.failed if verdict else [],
    }


def _metrics(
    first: ModelVersion, second: ModelVersion, verdicts: list[Verdict | None]
) -> dict[str, Any]:
    one, two = (
        dict(verdict.metrics if verdict else model.metrics)
        for verdict, model in zip(verdicts, (first, second), strict=True)
    )
    found: dict[str, Any] = {}
    for name in sorted({*one, *two}):
        old, new = one.get(name), two.get(name)
        both = old is not None and new is not None
        difference = new - old if old is not None and new is not None else None
        better = None
        if both and difference:
            better = "b" if (difference > 0) != (name in LOWER_IS_BETTER) else "a"
        found[name] = {"a": old, "b": new, "difference": difference, "better": better}
    return found


def _slices(verdicts: list[Verdict | None]) -> dict[str, Any]:
    """Each slice gate's groups, beside each other by level."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for side, verdict in zip("ab", verdicts, strict=True):
        for gate in verdict.gates if verdict else ():
            if not gate.name.startswith("slice:"):
                continue
            for group in gate.evidence.get("groups", ()):
                level = found.setdefault(gate.name, {}).setdefault(str(group["level"]), {})
                level[side] = {"value": group["value"], "rows": group["rows"]}
    return found


def _data(first: ModelVersion, second: ModelVersion) -> dict[str, Any]:
    one = {part.partition: part for part in first.dataset.parts}
    two = {part.partition: part for part in second.dataset.parts}
    return {
        "only_a": sorted(set(one) - set(two)),
        "only_b": sorted(set(two) - set(one)),
        "changed": sorted(k for k in set(one) & set(two) if one[k].digest != two[k].digest),
        "same": sum(one[k].digest == two[k].digest for k in set(one) & set(two)),
        "rows": {"a": first.dataset.rows, "b": second.dataset.rows},
    }


def _different(one: dict[str, str], two: dict[str, str]) -> dict[str, Any]:
    return {
        name: {"a": one.get(name), "b": two.get(name)}
        for name in sorted({*one, *two})
        if one.get(name) != two.get(name)
    }


def _features(platform: Platform, first: ModelVersion, second: ModelVersion) -> dict[str, Any]:
    """Which features each has alone, and which both have and read differently."""
    from ml_control.core.features import FeatureSpec

    if first.features_digest == second.features_digest:
        return {"same": True, "only_a": [], "only_b": [], "changed": {}}
    try:
        one, two = (
            FeatureSpec.model_validate_json(
                platform.lake.verified(f"{model.prefix}/{FEATURES}", model.files[FEATURES])
            )
            for model in (first, second)
        )
    except MlControlError as error:
        return {"same": False, "unreadable": f"{error.object} {error.reason}"}
    a = {feature.name: feature for feature in one.features}
    b = {feature.name: feature for feature in two.features}
    changed = {}
    for name in sorted(set(a) & set(b)):
        old, new = a[name].model_dump(mode="json"), b[name].model_dump(mode="json")
        if old != new:
            changed[name] = _change(old, new)
    found = {
        "same": False,
        "only_a": sorted(set(a) - set(b)),
        "only_b": sorted(set(b) - set(a)),
        "changed": changed,
    }
    if one.labels != two.labels:
        found["labels"] = {"a": list(one.labels), "b": list(two.labels)}
    return found


def _change(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The fields that differ; of lists, such as levels, what came and what went."""
    found: dict[str, Any] = {}
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list):
            found[name] = {
                "gone": [item for item in before if item not in after],
                "new": [item for item in after if item not in before],
            }
        else:
            found[name] = {"a": before, "b": after}
    return found
