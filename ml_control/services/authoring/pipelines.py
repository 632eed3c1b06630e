"""Pipeline files from disk, without Dagster: what the CLI and ``check`` read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ml_control.core.containers import container
from ml_control.core.pipeline import Pipeline
from ml_control.core.unsupported import instead_of
from ml_control.errors import InvalidSpec, MlControlError
from ml_control.services.arrivals.screening import (
    LOADER,
    MAX_BYTES,
    did_you_mean,
    known_at,
    require_known_keys,
    require_plain_keys,
    screen,
)
from ml_control.services.data.suites import validate_suite
from ml_control.services.models.tuning import check_ranges
from ml_control.spec import PipelineSpec

FILE = "defs.yaml"
COMPONENT = "ml_control.components.ModelPipeline"
_TEMPLATE = re.compile(r"\{\{(.*?)\}\}")
_STATEMENT = re.compile(r"\{[%#]")  # Jinja's other brackets, which Dagster would act on
_ENV = re.compile(r"^\s*env\.([A-Za-z_][A-Za-z0-9_]*)\s*$")
_AUDIT_COLUMNS = ("width", "height", "brightness", "contrast")


class _Loader(LOADER):  # type: ignore[misc]
    """Names the line also of a value that only looks like a date or a number, as 2024-13-01."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        """The value of a node, as PyYAML makes it."""
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            where = node.start_mark
            raise yaml.constructor.ConstructorError(None, None, str(error), where) from error


@dataclass(frozen=True)
class PipelineFolder:
    """Every pipeline below a folder: the usable ones, and why the others are not."""

    found: dict[str, Pipeline] = field(default_factory=dict)
    broken: dict[str, MlControlError] = field(default_factory=dict)

    def get(self, name: str) -> Pipeline:
        """A pipeline by name. Raises its own error if it is broken, ``InvalidSpec`` if unknown."""
        if name in self.found:
            return self.found[name]
        if name in self.broken:
            raise self.broken[name]
        known = ", ".join(sorted({*self.found, *self.broken})) or "none"
        raise InvalidSpec(
            f"pipeline {name}",
            f"there is no such pipeline (known: {known})",
            "see 'ml-control check'",
        )


def read_folder(root: Path, allowed_env: tuple[str, ...] = ()) -> PipelineFolder:
    """Read every ``<root>/<name>/defs.yaml``; a broken one does not hide the others."""
    folder = PipelineFolder()
    for file in sorted(root.glob(f"*/{FILE}")) if root.is_dir() else []:
        try:
            pipeline = read_pipeline(file, allowed_env)
        except MlControlError as error:
            folder.broken[file.parent.name] = error
            continue
        if pipeline is None:
            continue
        if pipeline.name in folder.found:
            folder.broken[file.parent.name] = InvalidSpec(
                str(file), f"the name {pipeline.name!r} is used twice", "rename one of them"
            )
            continue
        folder.found[pipeline.name] = pipeline
    return folder


def read_pipeline(file: Path, allowed_env: tuple[str, ...] = ()) -> Pipeline | None:
    """One pipeline file; None if it defines another component.

    Raises ``InvalidSpec`` naming file, line, field, value and allowed range.
    """
    text = _text(file)
    try:
        screen(text, file)
        node = yaml.compose(text, Loader=LOADER)
        require_plain_keys(node, file)
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except RecursionError as error:
        raise InvalidSpec(str(file), "nests too deeply", "correct the file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        reason = getattr(error, "problem", None) or str(error)
        raise InvalidSpec(where, f"is not valid YAML: {reason}", "correct the file") from error
    if not isinstance(document, dict) or "type" not in document:
        raise InvalidSpec(str(file), "has no type", f"begin with 'type: {COMPONENT}'")
    if document["type"] != COMPONENT:
        return None
    require_known_keys(document, node, file)
    try:
        spec = PipelineSpec.model_validate(document.get("attributes") or {})
    except ValidationError as error:
        raise _explained(error, file, node) from error
    return assemble(spec, file.parent, allowed_env)


def assemble(spec: PipelineSpec, folder: Path, allowed_env: tuple[str, ...] = ()) -> Pipeline:
    """A pipeline from its validated attributes and the folder that holds its other files."""
    source = folder / FILE
    resolved = _resolve(spec.model_dump(mode="json", exclude_unset=True), allowed_env, source)
    try:
        spec = PipelineSpec.model_validate(
            {**resolved, "name": resolved.get("name") or folder.name}
        )
    except ValidationError as error:
        raise _explained(error, source, None) from error
    container(spec.training.container)
    check_ranges(spec.training, str(source))
    suite: Mapping[str, Any] | None = None
    if spec.quality.expectations is not None:
        suite = _suite(spec, folder)
    return Pipeline(spec=spec, suite=suite, folder=folder)


def _suite(spec: PipelineSpec, folder: Path) -> Mapping[str, Any]:
    name = spec.quality.expectations or ""
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise InvalidSpec(
            f"{folder / FILE} quality.expectations",
            f"{name!r} lies outside the pipeline's folder",
            "put the suite beside defs.yaml",
        )
    try:
        suite: Mapping[str, Any] = json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise InvalidSpec(
            f"{file}:{error.lineno}", f"is not valid JSON: {error.msg}", "correct the file"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, endless nesting
        raise InvalidSpec(str(file), f"is not usable JSON: {error}", "correct the file") from error
    validate_suite(suite, audit_columns(spec))
    return suite


def audit_columns(spec: PipelineSpec) -> list[str]:
    """The columns that a suite may name: those that both raw and processed rows have."""
    columns = [spec.columns.target, *(feature.name for feature in spec.columns.features)]
    return [*columns, *_AUDIT_COLUMNS] if spec.source.format == "images" else columns


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidSpec(str(file), f"is larger than {MAX_BYTES:,} bytes", "make it smaller")
        return file.read_text("utf-8")
    except OSError as error:
        raise InvalidSpec(
            str(file), f"cannot be read: {error.strerror}", "correct the path or its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidSpec(str(file), "is not UTF-8 text", "save it as UTF-8") from error


def _resolve(value: Any, allowed: tuple[str, ...], file: Path) -> Any:
    """Replace ``{{ env.NAME }}`` in texts, for allow-listed names only."""
    if isinstance(value, dict):
        return {key: _resolve(item, allowed, file) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, allowed, file) for item in value]
    if not isinstance(value, str):
        return value
    if found := _STATEMENT.search(value):
        raise InvalidSpec(
            str(file),
            f"the template {found[0]} is not allowed",
            "write the value: a pipeline file computes nothing",
        )

    def look_up(match: re.Match[str]) -> str:
        name = _ENV.match(match[1])
        if name is None or name[1] not in allowed:
            raise InvalidSpec(
                str(file),
                f"the template {match[0]} is not allowed",
                "add the variable to yaml_env in ml-control.toml, or write the value",
            )
        found = os.environ.get(name[1])
        if found is None:
            raise InvalidSpec(str(file), f"{name[1]} is not set", f"set {name[1]}")
        return found

    return _TEMPLATE.sub(look_up, value)


def _explained(error: ValidationError, file: Path, node: yaml.Node | None) -> InvalidSpec:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    line = _line(node, ["attributes", *path])
    where = f"{file}:{line}" if line else str(file)
    more = len(error.errors()) - 1
    given = "" if first["type"] in ("missing", "value_error") else f" (got {first['input']!r})"
    if first["type"] == "extra_forbidden" and (known := instead_of(first["loc"])):
        return InvalidSpec(
            f"{where} {'.'.join(['attributes', *path])}", f"{known[0]}{given}", known[1]
        )
    if first["type"] == "extra_forbidden":
        given += did_you_mean(path[-1], known_at(PipelineSpec, first["loc"][:-1]))
    also = f"; {more} more problems in this file" if more else ""
    return InvalidSpec(
        f"{where} {'.'.join(['attributes', *path])}",
        f"{first['msg'].removeprefix('Value error, ')}{given}{also}",
        "see the field in 'ml-control schema'",
    )


def _line(node: yaml.Node | None, path: list[str]) -> int | None:
    """The line of the deepest part of a field's path that is in the file."""
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == part), None)
            if entry is None:
                return line
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            return line
    return line
