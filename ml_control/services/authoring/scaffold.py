"""``init``: a pipeline folder from a sample, checked by the same reading that will run it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from ml_control.core.images import audit_row
from ml_control.core.infer import Inference, infer, infer_images, without_leaks
from ml_control.core.leakage import scores, unjudged
from ml_control.core.suggest import suggest
from ml_control.errors import InvalidSpec
from ml_control.services.authoring.samples import Sample, format_of, read_sample, sniffed, typed
from ml_control.spec import NAME, PipelineSpec

if TYPE_CHECKING:
    import polars as pl

_IMAGES = frozenset({".png", ".jpg", ".jpeg"})
_JUDGED = 50_000  # rows, for columns that give the target away
_IMAGES_READ = 50  # of each label: enough for shape and colours
_DAY = re.compile(r"^dt=(\d{4}-\d{2}-\d{2})")
_PLAIN = re.compile(r"^[A-Za-z_][A-Za-z0-9_. -]*$")
_RESERVED = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def scaffold(
    folder: Path, source: Path, target: str | None, *, start: date | None = None
) -> list[Path]:
    """Write ``defs.yaml`` and ``expectations.json`` into *folder*; the paths written.

    *source* is a file of a table (CSV, Parquet, JSON lines), a folder of such files of one
    format with the same columns, or a folder of images under one folder for each label;
    ``dt=YYYY-MM-DD`` folders may lie between. Of large sources a part is read. *target* is
    needed for tables. *start* defaults to the earliest ``dt=``, else a year before today.

    Raises ``InvalidSpec`` when the folder is not empty or its name is no pipeline name, or the
    sample cannot be used, and ``BadObject`` when a file of it is damaged; nothing is written.
    """
    if not NAME.match(folder.name):
        raise InvalidSpec(
            folder.name or str(folder),
            "is not a pipeline name: lower-case letters, digits and _, beginning with a letter, "
            "at most 48",
            "name the folder as the pipeline is to be called",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidSpec(
            str(folder), "exists and is not an empty folder", "choose a new folder, or empty it"
        )
    files = _files(source)
    days = _days(source, files)
    start = start or min(days, default=datetime.now(UTC).date() - timedelta(days=365))
    when = _When(start, max(1, len(days)))
    pictures = [path for path in files if path.suffix.lower() in _IMAGES]
    if pictures and source.is_dir():
        found, spec, frame = _from_images(folder.name, source, pictures, target, when)
    else:
        found, spec, frame = _from_tables(folder.name, _tables(source, files), target or "", when)
    texts = {
        "defs.yaml": render(found, source.name),
        "expectations.json": json.dumps(suggest(frame, spec), indent=2, ensure_ascii=False) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    # The pipeline file comes last: a folder without it is no pipeline yet.
    for name in sorted(texts, reverse=True):
        (folder / name).write_text(texts[name], encoding="utf-8")
        written.append(folder / name)
    return sorted(written)


def render(found: Inference, sample: str) -> str:
    """The text of ``defs.yaml``, with each note beside what it is about."""
    lines = [
        f"# Proposed by `ml-control init` from {json.dumps(sample)[1:-1]}. Read the notes,",
        "# change what you know better, then run `ml-control check`.",
        "type: ml_control.components.ModelPipeline",
        "attributes:",
    ]
    lines += _mapping(found.attributes, found.notes, "", 1)
    return "\n".join(lines) + "\n"


def _files(source: Path) -> list[Path]:
    """The sample's files in a stable order."""
    if not source.exists():
        raise InvalidSpec(str(source), "does not exist", "give a file of a table or a folder")
    if source.is_file():
        return [source]
    return sorted(
        path
        for path in source.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(source).parts)
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSpec(
            str(path), f"cannot be read: {error.strerror}", "check the file's permissions"
        ) from None


class _When(NamedTuple):
    """The first partition, and how many the sample comes from."""

    start: date
    partitions: int


def _days(source: Path, files: list[Path]) -> set[date]:
    """The days of the sample's ``dt=`` folders."""
    return {
        date.fromisoformat(match[1])
        for path in files
        for part in (path.parts if source.is_file() else path.relative_to(source.parent).parts)
        if (match := _DAY.match(part)) and _is_day(match[1])
    }


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _tables(source: Path, files: list[Path]) -> Sample:
    """A sample of the source's tables, which are of one format."""
    if source.is_file():
        return read_sample(format_of(source) or sniffed(source), [source])
    by_format: dict[str, list[Path]] = {}
    for path in files:
        if (format := format_of(path)) is not None:
            by_format.setdefault(format, []).append(path)
    if not by_format:
        raise InvalidSpec(
            str(source),
            "has neither CSV, Parquet or JSON-lines files nor PNG or JPEG images",
            "give a file of a table, or a folder of images by label",
        )
    if len(by_format) > 1:
        counts = ", ".join(f"{len(paths)} {name}" for name, paths in sorted(by_format.items()))
        raise InvalidSpec(
            str(source), f"has files of several formats ({counts})", "give a folder of one format"
        )
    ((format, paths),) = by_format.items()
    return read_sample(format, paths)


def _from_tables(
    name: str, sample: Sample, target: str, when: _When
) -> tuple[Inference, PipelineSpec, pl.DataFrame]:
    found = infer(
        sample.cells,
        target,
        **when._asdict(),
        format=sample.format,
        unusable=sample.unusable,
        decimals=sample.decimals,
    )
    spec = _validated(found, name)
    frame = _frame(sample, spec)
    judged = frame.head(_JUDGED)
    if not unjudged(judged, spec):
        # A column that the leakage check would refuse every partition for.
        found = without_leaks(found, scores(judged, spec), spec.quality.leakage.max_score)
        spec = _validated(found, name)
    if not sample.whole:
        read = f"read: {sample.cells.height:,} rows of {sample.files} file(s), not all there are"
        found = Inference(found.attributes, {**found.notes, "columns": read})
    return found, spec, frame


def _frame(sample: Sample, spec: PipelineSpec) -> pl.DataFrame:
    """The sample's rows with the types that the proposal declares."""
    columns = {feature.name: feature.type == "number" for feature in spec.columns.features}
    columns[spec.columns.target] = spec.columns.task == "regression"
    return typed(sample.cells, columns, spec.source.missing)


def _from_images(
    name: str, source: Path, pictures: list[Path], target: str | None, when: _When
) -> tuple[Inference, PipelineSpec, pl.DataFrame]:
    import polars as pl

    if target not in {None, "", "label"}:
        raise InvalidSpec(
            str(target), "cannot be the target of images", "leave out --target: it is the label"
        )
    by_label: dict[str, list[Path]] = {}
    for path in pictures:
        label = path.parent.name
        if path.parent == source or _DAY.match(label):
            raise InvalidSpec(
                str(path),
                "lies in no label folder",
                "put images into one folder for each label, such as cats/ and dogs/",
            )
        kept = by_label.setdefault(label, [])
        if len(kept) < _IMAGES_READ:
            kept.append(path)
    samples = {label: [_read(path) for path in paths] for label, paths in by_label.items()}
    found = infer_images(samples, **when._asdict())
    spec = _validated(found, name)
    rows = [
        {"label": label, **audit_row(data, spec.source.image, path.name)._asdict()}
        for label, paths in by_label.items()
        for path, data in zip(paths, samples[label], strict=True)
    ]
    return found, spec, pl.DataFrame(rows)


def _validated(found: Inference, name: str) -> PipelineSpec:
    """The proposal as the pipeline file's own reader sees it."""
    try:
        return PipelineSpec.model_validate({"name": name, **found.attributes})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "attributes"
        raise InvalidSpec(
            name,
            f"the sample gives no valid pipeline: {place}: {first['msg']}",
            "rename the column",
        ) from None


def _mapping(
    values: Mapping[str, Any], notes: Mapping[str, str], above: str, depth: int
) -> Iterator[str]:
    """Block-style lines; mappings of features and lists of texts in one line each."""
    indent = "  " * depth
    for key, value in values.items():
        path = f"{above}.{key}" if above else key
        note = f"  # {_one_line(notes[path])}" if path in notes else ""
        if isinstance(value, Mapping):
            yield f"{indent}{_scalar(key)}:{note}"
            yield from _mapping(value, notes, path, depth + 1)
        elif key in {"features", "ignore"}:
            yield f"{indent}{key}:{note}"
            for item in value:
                named = item["name"] if isinstance(item, Mapping) else item
                why = notes.get(f"{path}.{named}")
                yield f"{indent}  - {_flow(item)}" + (f"  # {_one_line(why)}" if why else "")
        else:
            yield f"{indent}{_scalar(key)}: {_flow(value)}{note}"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A YAML scalar; a text is quoted unless it can only be read as that text."""
    if isinstance(value, float):
        text = str(int(value)) if value == int(value) else repr(value)
        # YAML 1.1 reads 5e-324 as a text: a float with an exponent needs its point.
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if _PLAIN.match(text) and text.strip() == text and text.lower() not in _RESERVED:
        return text
    return json.dumps(text, ensure_ascii=False)


def _one_line(note: str) -> str:
    return " ".join(note.split())
