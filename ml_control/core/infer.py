"""A first pipeline file from a sample: types, ranges, missing marks, task, and why.

Everything here is a proposal that a person reads: each choice that the sample does not force
comes with a note, which ``init`` writes beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from ml_control.core.columns import Column, feature, look, missing_marks, useless
from ml_control.core.tabular import read_cells
from ml_control.errors import BadObject, InvalidSpec

if TYPE_CHECKING:
    import polars as pl

_POSITIVE = frozenset(
    {"1", "yes", "y", "true", "t", "positive", "pos", "malignant", "fraud", "churn", "churned"}
    | {"default", "bad", "fail", "failed", "spam"}
)
_MOST_CLASSES = 50
_RARE = 10  # percent
_MOST_INTEGER_CLASSES = 20


@dataclass(frozen=True)
class Inference:
    """The proposed ``attributes``, and a note for some of their paths (``columns.task``)."""

    attributes: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Aim:
    """What is predicted: part of ``columns``, why, and the gate to begin with."""

    attributes: dict[str, Any]
    notes: dict[str, str]
    metric: str
    bound: float
    bound_note: str


def infer(
    sample: pl.DataFrame | bytes,
    target: str,
    *,
    start: date,
    partitions: int = 1,
    format: str = "csv",
    unusable: Mapping[str, str] | None = None,
    decimals: Iterable[str] = (),
) -> Inference:
    """Attributes of a pipeline of tables from a table of texts (or CSV bytes) and its target.

    *partitions* is how many partitions the sample's rows come from, *unusable* the columns that
    cannot be read as numbers or categories, with the reason. The numbers of *decimals* have a
    decimal point in a format that has types, so they name no classes.

    Raises ``InvalidSpec`` when the target is not there, has one value, or cannot be a target;
    ``BadObject`` when a row has no target or the bytes are not CSV.
    """
    cells = read_cells(sample, "sample") if isinstance(sample, bytes) else sample
    unusable, decimals = unusable or {}, frozenset(decimals)
    known = [*cells.columns, *unusable]
    if target not in known:
        raise InvalidSpec(
            target or "target",
            "is no column of the sample" if target else "is needed for a sample of tables",
            f"choose --target from: {', '.join(known)}",
        )
    if target in unusable:
        raise InvalidSpec(target, f"cannot be a target: {unusable[target]}", "choose another")
    missing, note = missing_marks(cells, target)
    notes = {"source.missing": note}
    columns = {name: look(cells[name], missing) for name in cells.columns}
    aim = _target(columns[target], cells[target], missing)
    if target in decimals and aim.attributes["task"] != "regression":
        raise InvalidSpec(
            target,
            "has few values with a decimal point, so it is neither an amount nor a class",
            "write classes as whole numbers or texts",
        )
    notes.update(aim.notes)
    features: list[dict[str, Any]] = []
    ignore: list[str] = []
    for name, column in columns.items():
        if name == target:
            continue
        if reason := useless(column):
            ignore.append(name)
            notes[f"columns.ignore.{name}"] = reason
            continue
        found, note = feature(column, decimals=name in decimals)
        features.append(found)
        if note:
            notes[f"columns.features.{name}"] = note
    for name, reason in unusable.items():
        ignore.append(name)
        notes[f"columns.ignore.{name}"] = reason
    if not features:
        raise InvalidSpec(
            "sample",
            "no column can be a feature: " + ", ".join(ignore),
            "give a sample with columns that describe the row",
        )
    attributes = {
        "source": {
            "format": format,
            "partition": {"by": "day", "start": start.isoformat()},
            "missing": missing,
        },
        "columns": {
            "target": target,
            **aim.attributes,
            "features": features,
            **({"ignore": ignore} if ignore else {}),
        },
        **_rest(aim, cells.height // partitions, notes),
    }
    return Inference(attributes, notes)


def without_leaks(found: Inference, scores: Mapping[str, float], bound: float) -> Inference:
    """The proposal with the columns under ``ignore`` that alone score above *bound*.

    Raises ``InvalidSpec`` when that leaves no feature.
    """
    leaks = [name for name, score in scores.items() if score > bound]
    if not leaks:
        return found
    columns = found.attributes["columns"]
    features = [one for one in columns["features"] if one["name"] not in leaks]
    if not features:
        raise InvalidSpec(
            "sample",
            f"each column alone tells the target: {', '.join(leaks)}",
            "give a sample with columns that are known when predicting",
        )
    notes = dict(found.notes)
    for name in leaks:
        notes[f"columns.ignore.{name}"] = (
            f"alone it tells the target (score {scores[name]:.4g}); is it known when predicting?"
        )
    changed = {**columns, "features": features, "ignore": [*columns.get("ignore", ()), *leaks]}
    return Inference({**found.attributes, "columns": changed}, notes)


def infer_images(
    samples: Mapping[str, Sequence[bytes]], *, start: date, partitions: int = 1
) -> Inference:
    """Attributes of an image pipeline from PNG or JPEG bytes by label.

    Raises ``InvalidSpec`` for fewer than two labels, ``BadObject`` for an unusable image.
    """
    from ml_control.core.images import decode, probe
    from ml_control.spec import ImageShape

    if len(samples) < 2:
        raise InvalidSpec(
            "sample",
            f"images under {len(samples)} label folder(s): {', '.join(samples) or 'none'}",
            "put images into one folder for each label, such as cats/ and dogs/",
        )
    sizes: Counter[tuple[int, int]] = Counter()
    colour = False
    for label, blobs in samples.items():
        for place, data in enumerate(blobs):
            name = f"{label}, image {place + 1}"
            _, width, height = probe(data, name)
            sizes[height, width] += 1
            if not colour:
                shape = ImageShape(height=min(height, 64), width=min(width, 64), mode="colour")
                pixels = decode(data, shape, name)
                colour = bool((pixels.max(axis=2) != pixels.min(axis=2)).any())
    (height, width), _ = sizes.most_common(1)[0]
    notes = {"source.image": f"every image of the sample is {height} x {width}"}
    if len(sizes) > 1 or max(height, width) > 64:
        height = width = 32
        notes["source.image"] = f"images of {len(sizes)} size(s) are brought to 32 x 32"
    counts = {label: len(blobs) for label, blobs in samples.items()}
    aim = _classes(counts)
    notes.update(aim.notes)
    image = {"height": height, "width": width, "mode": "colour" if colour else "grey"}
    attributes = {
        "source": {
            "format": "images",
            "partition": {"by": "day", "start": start.isoformat()},
            "image": image,
        },
        "columns": {"target": "label", **aim.attributes},
        **_rest(aim, sum(counts.values()) // partitions, notes),
    }
    return Inference(attributes, notes)


def _rest(aim: _Aim, partition_rows: int, notes: dict[str, str]) -> dict[str, Any]:
    """Quality, training and gates, with the values that most pipelines start from."""
    notes["gates.metrics"] = f"a modest bound: {aim.bound_note}; raise it to what you need"
    notes["quality.min_rows"] = "a partition with fewer rows is not published"
    least = min(100, max(1, partition_rows // 10))
    return {
        "quality": {"expectations": "expectations.json", "min_rows": least},
        "training": {
            "hyperparameters": {"num_round": 200, "max_depth": 6, "eta": 0.1},
            "early_stopping_rounds": 20,
        },
        "gates": {"metrics": {aim.metric: {"min": aim.bound}}},
    }


def _target(column: Column, cells: pl.Series, missing: list[str]) -> _Aim:
    gaps = (cells.is_null() | cells.is_in(missing)).arg_true()
    if len(gaps):
        row = int(gaps[0]) + 1
        raise BadObject(
            "sample",
            f"row {row} has no {column.name!r}, the target ({len(gaps)} such rows)",
            "leave out rows whose outcome is not known yet",
            row=row,
            column=column.name,
        )
    if column.numbers is not None and column.distinct > 2:
        few = column.whole and column.distinct <= _MOST_INTEGER_CLASSES
        if not few:
            low, high = column.extent
            note = f"{column.distinct} different numbers from {low:g} to {high:g}"
            why = "0 is what the mean of the target reaches"
            return _Aim({"task": "regression"}, {"columns.task": note}, "r2", 0.1, why)
    elif column.distinct > _MOST_CLASSES:
        raise InvalidSpec(
            column.name,
            f"{column.distinct} different texts are too many classes for a target",
            "choose another --target",
        )
    counts = Counter(cells.to_list())
    if len(counts) < 2:
        raise InvalidSpec(
            column.name,
            f"the target has one value in the sample: {next(iter(counts))!r}",
            "give a sample with at least two classes",
        )
    found = _classes(counts)
    if column.numbers is not None and len(counts) > 2:
        found.notes["columns.task"] += "; write regression if they are amounts"
    return found


def _classes(counts: Mapping[str, int]) -> _Aim:
    """The aim for a target of classes, from the rows of each."""
    ranked = sorted(counts, key=lambda label: (counts[label], label))
    if len(counts) > 2:
        # Cut, not rounded, so that the commonest class alone still reaches it.
        share = int(100 * counts[ranked[-1]] / sum(counts.values())) / 100
        notes = {"columns.task": f"{len(counts)} classes in the sample"}
        why = f"always answering {ranked[-1]!r} reaches it"
        return _Aim({"task": "multiclass"}, notes, "accuracy", share, why)
    positive = next(
        (label for label in ranked if label.lower() in _POSITIVE),
        next((label for label in ranked if label.startswith(">")), ranked[0]),
    )
    other = next(label for label in ranked if label != positive)
    share = 100 * counts[positive] / sum(counts.values())
    notes = {
        "columns.positive": f"its probability is the score; {share:.2g} % of the sample's rows, "
        f"the others are {other!r}"
    }
    if share < _RARE or share > 100 - _RARE:
        notes["columns.positive"] += "; training.class_weights: balanced weighs both the same"
    why = "0.5 is what a coin reaches"
    return _Aim({"task": "binary", "positive": positive}, notes, "auc", 0.6, why)
