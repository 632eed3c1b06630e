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
from ml_control.core.infer import Inference, infer, infer_images
from ml_control.core.suggest import suggest
from ml_control.core.tabular import read_cells, read_csv
from ml_control.errors import InvalidSpec
from ml_control.spec import NAME, PipelineSpec

if TYPE_CHECKING:
    import polars as pl

_IMAGES = frozenset({".png", ".jpg", ".jpeg"})
_IMAGES_READ = 50  # of each label: enough for shape and colours
_DAY = re.compile(r"^dt=(\d{4}-\d{2}-\d{2})")
_PLAIN = re.compile(r"^[A-Za-z_][A-Za-z0-9_. -]*$")
_RESERVED = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def scaffold(
    folder: Path, source: Path, target: str | None, *, start: date | None = None
) -> list[Path]:
    """Write ``defs.yaml`` and ``expectations.json`` into *folder*; the paths written.

    *source* is a CSV file, a folder of CSV files with the same columns, or a folder of images
    under one folder for each label; ``dt=YYYY-MM-DD`` folders may lie between. *target* is
    needed for CSV. *start* defaults to the earliest ``dt=``, else a year before today.

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
    tables = [path for path in files if path.suffix.lower() == ".csv" or path == source]
    if pictures and source.is_dir():
        found, spec, frame = _from_images(folder.name, source, pictures, target, when)
    elif tables:
        found, spec, frame = _from_tables(folder.name, tables, target or "", when)
    else:
        raise InvalidSpec(
            str(source),
            "has neither CSV files nor PNG or JPEG images",
            "give a CSV file, or a folder of images by label",
        )
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
        raise InvalidSpec(str(source), "does not exist", "give a CSV file or a folder of images")
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


def _from_tables(
    name: str, tables: list[Path], target: str, when: _When
) -> tuple[Inference, PipelineSpec, pl.DataFrame]:
    import polars as pl

    blobs = {path: _read(path) for path in tables}
    cells = [read_cells(data, path.name) for path, data in blobs.items()]
    for path, table in zip(tables, cells, strict=True):
        if set(table.columns) != set(cells[0].columns):
            raise InvalidSpec(
                str(path), f"has other columns than {tables[0].name}", "give one CSV file"
            )
    found = infer(
        pl.concat([table.select(cells[0].columns) for table in cells]), target, **when._asdict()
    )
    spec = _validated(found, name)
    frame = pl.concat([read_csv(data, spec, path.name) for path, data in blobs.items()])
    return found, spec, frame


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
