"""A first pipeline file from a sample: types, ranges, missing marks, task, and why.

Everything here is a proposal that a person reads: each choice that the sample does not force
comes with a note, which ``init`` writes beside it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from ml_control.core.tabular import read_cells
from ml_control.errors import BadObject, InvalidSpec

if TYPE_CHECKING:
    import polars as pl

MARKS = ("", "NA", "N/A", "n/a", "?", "null", "NULL", "None", "nan", "NaN", "-")
_POSITIVE = frozenset(
    {"1", "yes", "y", "true", "t", "positive", "pos", "malignant", "fraud", "churn", "churned"}
    | {"default", "bad", "fail", "failed", "spam"}
)
_SIGNED = re.compile(
    r"(^|_)(temp|temperature|delta|diff|difference|change|balance|profit|return|score|lat|lon|lng)"
)
_IDENTIFIER = re.compile(r"(^|[_\s.-])(id|uuid|guid|key|index|rownum|row)($|[_\s.-])|^unnamed")
_DATE = r"^\d{4}-\d{2}-\d{2}([T ].*)?$|^\d{1,2}[/.]\d{1,2}[/.]\d{2,4}$"
# Where nature sets both ends; taken only when the whole sample lies inside.
_RANGES = (
    (re.compile(r"(^|_)lat(itude)?$"), -90.0, 90.0),
    (re.compile(r"(^|_)(lon|lng|long|longitude)$"), -180.0, 180.0),
    (re.compile(r"^age(_years)?$"), 0.0, 120.0),
    (re.compile(r"(^|_)(pct|percent|percentage)$"), 0.0, 100.0),
)
_MOST_CLASSES = 50
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


@dataclass(frozen=True)
class _Column:
    """What the sample shows of one column."""

    name: str
    present: int
    distinct: int
    numbers: pl.Series | None  # the values, when all of them are numbers
    dates: bool

    @property
    def whole(self) -> bool:
        """All values are whole numbers."""
        return self.numbers is not None and bool((self.numbers == self.numbers.round()).all())


def infer(
    sample: pl.DataFrame | bytes, target: str, *, start: date, partitions: int = 1
) -> Inference:
    """Attributes of a CSV pipeline from a table of texts (or CSV bytes) and its target.

    *partitions* is how many partitions the sample's rows come from.

    Raises ``InvalidSpec`` when the target is not there, has one value, or cannot be a target;
    ``BadObject`` when a row has no target or the bytes are not CSV.
    """
    cells = read_cells(sample, "sample") if isinstance(sample, bytes) else sample
    if target not in cells.columns:
        raise InvalidSpec(
            target or "target",
            "is no column of the sample" if target else "is needed for a CSV sample",
            f"choose --target from: {', '.join(cells.columns)}",
        )
    missing, notes = _missing(cells, target)
    columns = {name: _look(cells[name], missing) for name in cells.columns}
    aim = _target(columns[target], cells[target], missing)
    notes.update(aim.notes)
    features: list[dict[str, Any]] = []
    ignore: list[str] = []
    for name, column in columns.items():
        if name == target:
            continue
        if reason := _useless(column, cells.height):
            ignore.append(name)
            notes[f"columns.ignore.{name}"] = reason
            continue
        feature, note = _feature(column)
        features.append(feature)
        if note:
            notes[f"columns.features.{name}"] = note
    if not features:
        raise InvalidSpec(
            "sample",
            "no column can be a feature: " + ", ".join(ignore),
            "give a sample with columns that describe the row",
        )
    attributes = {
        "source": {
            "format": "csv",
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


def _missing(cells: pl.DataFrame, target: str) -> tuple[list[str], dict[str, str]]:
    """The empty text and the marks that the sample has; the target's own texts are no marks."""
    others = cells.drop(target)
    found = [
        mark for mark in MARKS[1:] if any((others[name] == mark).any() for name in others.columns)
    ]
    seen = (", ".join(map(repr, found)) + " occur") if found else "no other mark occurs"
    return ["", *found], {"source.missing": f"in the sample, {seen}"}


def _look(cells: pl.Series, missing: list[str]) -> _Column:
    import polars as pl

    present = cells.filter(~cells.is_in(missing))
    numbers = present.cast(pl.Float64, strict=False)
    usable = len(present) > 0 and bool(numbers.is_finite().fill_null(value=False).all())
    return _Column(
        name=cells.name,
        present=len(present),
        distinct=present.n_unique(),
        numbers=numbers if usable else None,
        dates=len(present) > 0 and bool(present.str.contains(_DATE).all()),
    )


def _useless(column: _Column, rows: int) -> str | None:
    """Why a column cannot help a model, if so."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", column.name).lower()
    if column.present == 0:
        return "has no value in the sample"
    if column.dates:
        return "a date or time; derive a number from it before it arrives if it matters"
    every = column.distinct == column.present
    if (
        every
        and rows > 1
        and _IDENTIFIER.search(words)
        and (column.whole or column.numbers is None)
    ):
        return "looks like an identifier: a different value in every row"
    if column.numbers is None and every and rows >= 10:
        return "a different text in every row"
    if column.numbers is None and column.distinct > max(100, column.present // 2):
        return f"looks like free text: {column.distinct} different values"
    return None


def _feature(column: _Column) -> tuple[dict[str, Any], str]:
    if column.numbers is None:
        return {"name": column.name, "type": "category"}, ""
    feature: dict[str, Any] = {"name": column.name, "type": "number"}
    low, high = _extent(column.numbers)
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", column.name).lower()
    for pattern, least, most in _RANGES:
        if pattern.search(words) and least <= low and high <= most:
            return {**feature, "min": least, "max": most}, ""
    if low >= 0 and not _SIGNED.search(words):
        return {**feature, "min": 0.0}, ""
    if column.whole and column.distinct == 2:
        return feature, "two numbers; make it a category if they are codes"
    return feature, ""


def _extent(numbers: pl.Series) -> tuple[float, float]:
    """Smallest and largest value of a non-empty column of numbers."""
    values = numbers.to_numpy()
    return float(values.min()), float(values.max())


def _target(column: _Column, cells: pl.Series, missing: list[str]) -> _Aim:
    gaps = cells.is_in(missing).arg_true()
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
            low, high = _extent(column.numbers)
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
    notes = {"columns.positive": f"its probability is the score; the other class is {other!r}"}
    why = "0.5 is what a coin reaches"
    return _Aim({"task": "binary", "positive": positive}, notes, "auc", 0.6, why)
