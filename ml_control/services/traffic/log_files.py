"""The log's Parquet files in the lake: their names, their columns, and reading them back.

``logs/<pipeline>/predictions/dt=2026-11-22/hour=07/<first>-<last>.parquet`` by the hour of the
request, one row for each record; ``outcomes/`` beside it by the hour in which an outcome was told.
Names are made of offsets of the log, and what is between two offsets never changes: writing a file
again writes the same, so it is not written again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import orjson

from ml_control.core.tabular import category_cell, number_cell
from ml_control.errors import Conflict
from ml_control.lake import Lake
from ml_control.platform import Platform
from ml_control.ports import Joined, Logged
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["predictions", "outcomes"]
_LATEST = datetime(9999, 12, 31, 23, tzinfo=UTC).timestamp()
_PREFIX = "record."


def hour_of(at: float) -> int:
    """The hour since 1970 of a time; one that no calendar has counts as the nearest that is."""
    return int(min(max(at, 0.0), _LATEST) // 3600)


def file_key(pipeline: str, kind: Kind, hour: int, first: int, last: int) -> str:
    """The lake key of the file with these offsets."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    return (
        f"logs/{pipeline}/{kind}/dt={moment:%Y-%m-%d}/hour={moment:%H}/"
        f"{first:014d}-{last:014d}.parquet"
    )


def predictions_frame(rows: Sequence[Logged], spec: PipelineSpec) -> pl.DataFrame:
    """One row for each record of each request; one for a request without any.

    Values of declared columns are under ``record.<column>``, typed; a record with anything else
    in it, or of an image, is kept as it came as JSON in ``record_json``.
    """
    import polars as pl

    columns: dict[str, list[Any]] = {name: [] for name in _schema(spec)}
    reader = _Reader(spec)
    for row in rows:
        for index, (record, answer) in enumerate(_pairs(row)):
            one = row.prediction
            values = (
                row.offset, one.request_id, index, one.entity_id, one.rollout_id, one.assigned,
                one.challenger, one.share, one.served, one.model_version, one.at, one.latency,
                one.rows, one.failed, one.failure, _label(answer), _score(answer),
                one.records is not None, *reader.read(record),
            )  # fmt: skip
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    frame = pl.DataFrame(columns, schema=_schema(spec))
    return frame.with_columns(_moment("at"))


def outcomes_frame(rows: Sequence[Joined]) -> pl.DataFrame:
    """One row for each joined outcome; what really happened is JSON in ``outcome``."""
    import polars as pl

    frame = pl.DataFrame(
        [
            (one.offset, one.request_id, one.index, one.entity_id, one.rollout_id, one.challenger,
             one.share, one.served, one.model_version, one.label,
             None if one.score != one.score else one.score, orjson.dumps(one.outcome).decode(),
             one.first, one.predicted_at, one.told_at)
            for one in rows
        ],
        schema=_outcome_schema(),
        orient="row",
    )  # fmt: skip
    return frame.with_columns(_moment("predicted_at"), _moment("told_at"))


def write_once(lake: Lake, key: str, frame: pl.DataFrame) -> bool:
    """Write a file unless it is there already; whether it was not."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    try:
        lake.create(key, buffer.getvalue())
    except Conflict:
        return False
    return True


def read_predictions(
    platform: Platform, pipeline: str, since: float = 0.0, until: float | None = None
) -> pl.LazyFrame:
    """The flushed records of a time (UTC seconds), each once, lazily; see
    :func:`predictions_frame`.
    """
    return _scan(platform, pipeline, "predictions", "at", since, until)


def read_outcomes(
    platform: Platform, pipeline: str, since: float = 0.0, until: float | None = None
) -> pl.LazyFrame:
    """The flushed outcomes that were told in a time (UTC seconds), each once, lazily."""
    return _scan(platform, pipeline, "outcomes", "told_at", since, until)


def _scan(
    platform: Platform, pipeline: str, kind: Kind, column: str, since: float, until: float | None
) -> pl.LazyFrame:
    import polars as pl

    end = _LATEST if until is None else until
    frames, overlapping, before = [], False, ("", -1)
    for key in _keys(platform.lake, pipeline, kind, since, end):
        folder, _, name = key.rpartition("/")
        first, last = (int(part) for part in name.removesuffix(".parquet").split("-"))
        # Only after the registry went back in time were offsets flushed twice.
        overlapping |= folder == before[0] and first <= before[1]
        before = (folder, max(last, before[1]) if folder == before[0] else last)
        with platform.lake.local_file(key) as path:
            frames.append(pl.scan_parquet(path))
    if not frames:
        empty = pl.DataFrame(schema=_base_schema() if kind == "predictions" else _outcome_schema())
        moments = [column] if kind == "predictions" else ["predicted_at", "told_at"]
        return empty.with_columns(*map(_moment, moments)).lazy()
    found = pl.concat(frames, how="diagonal_relaxed")
    found = found.filter(
        (pl.col(column) >= _time(since)) & (pl.col(column) < _time(end))
        if until is not None
        else pl.col(column) >= _time(since)
    )
    if not overlapping:
        return found
    if kind == "predictions":  # whose records the log had dropped when it was flushed again
        found = found.sort("captured", descending=True)
    return found.unique(["offset", "index"], keep="first", maintain_order=True)


def _keys(lake: Lake, pipeline: str, kind: Kind, since: float, until: float) -> Iterator[str]:
    """Files of hours that overlap the time, sorted by hour and offset."""
    first, last = hour_of(since), hour_of(until)
    wanted = [_folder(pipeline, kind, hour).rpartition("/")[0] for hour in (first, last)]
    lowest, highest = (_folder(pipeline, kind, hour) for hour in (first, last))
    days = (last - first) // 24 + 1
    prefixes = [f"logs/{pipeline}/{kind}"]
    if wanted[0] == wanted[1]:
        prefixes = wanted[:1]
    elif days <= 31:
        prefixes = sorted(
            {_folder(pipeline, kind, hour).rpartition("/")[0] for hour in range(first, last + 1)}
        )
    for prefix in prefixes:
        for key in lake.list(prefix):
            if key.endswith(".parquet") and lowest <= key.rpartition("/")[0] <= highest:
                yield key


def _folder(pipeline: str, kind: Kind, hour: int) -> str:
    return file_key(pipeline, kind, hour, 0, 0).rpartition("/")[0]


class _Reader:
    """Reads a record into the declared columns."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._missing = frozenset(spec.source.missing)
        self._columns = [
            (one.name, number_cell if one.type == "number" else category_cell)
            for one in spec.columns.features
        ]
        self._names = {one.name for one in spec.columns.features}
        self._image = spec.source.format == "images"

    def read(self, record: Any) -> list[Any]:
        """The declared columns' values, and the record as JSON where they do not hold it all."""
        if record is None:
            return [None] * (len(self._columns) + 1)
        whole = isinstance(record, dict) and not self._image and self._names >= record.keys()
        values: list[Any] = []
        for name, read in self._columns:
            value = None
            try:
                value = read(record.get(name), self._missing)
            except (ValueError, AttributeError):
                whole = False
            values.append(value)
        return [*values, None if whole else orjson.dumps(record).decode()]


def _pairs(row: Logged) -> list[tuple[Any, Any]]:
    """(record, answer) of each record; None for what was not kept or not answered."""
    records, answers = json_list(row.prediction.records), json_list(row.prediction.answers)
    count = max(1, row.prediction.rows, len(records), len(answers))
    if len(records) == count == len(answers):
        return list(zip(records, answers, strict=True))
    padded = ([*one, *[None] * (count - len(one))] for one in (records, answers))
    return list(zip(*padded, strict=True))


def json_list(data: bytes | None) -> list[Any]:
    """The list in a text of JSON; empty when there is none."""
    try:
        found = orjson.loads(data or b"[]")
    except orjson.JSONDecodeError:
        return []
    return found if isinstance(found, list) else []


def _label(answer: Any) -> str | None:
    label = answer.get("label") if isinstance(answer, dict) else None
    return None if label is None else str(label)


def _score(answer: Any) -> float | None:
    score = answer.get("score") if isinstance(answer, dict) else None
    return float(score) if isinstance(score, int | float) else None


def _base_schema() -> dict[str, Any]:
    import polars as pl

    text, flag, number = pl.String(), pl.Boolean(), pl.Float64()
    return {
        "offset": pl.Int64(), "request_id": text, "index": pl.Int32(), "entity_id": text,
        "rollout_id": text, "assigned": text, "challenger": flag, "share": number,
        "served": text, "model_version": text, "at": number, "latency": number,
        "rows": pl.Int64(), "failed": flag, "failure": text, "label": text, "score": number,
        "captured": flag,
    }  # fmt: skip


def _schema(spec: PipelineSpec) -> dict[str, Any]:
    import polars as pl

    declared = {
        f"{_PREFIX}{one.name}": pl.Float64() if one.type == "number" else pl.String()
        for one in spec.columns.features
    }
    return {**_base_schema(), **declared, "record_json": pl.String()}


def _outcome_schema() -> dict[str, Any]:
    import polars as pl

    text, number = pl.String(), pl.Float64()
    return {
        "offset": pl.Int64(), "request_id": text, "index": pl.Int32(), "entity_id": text,
        "rollout_id": text, "challenger": pl.Boolean(), "share": number, "served": text,
        "model_version": text, "label": text, "score": number, "outcome": text,
        "first": pl.Boolean(), "predicted_at": number, "told_at": number,
    }  # fmt: skip


def _moment(column: str) -> pl.Expr:
    """Seconds as a moment in UTC, to the microsecond."""
    import polars as pl

    seconds = pl.col(column).clip(0.0, _LATEST)
    return (seconds * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us", "UTC")).alias(column)


def _time(at: float) -> Any:
    import polars as pl

    return pl.lit(datetime.fromtimestamp(min(max(at, 0.0), _LATEST), UTC))
