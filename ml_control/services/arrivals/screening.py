"""What a pipeline file may not be, whatever its fields say: looked at before anything reads it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from ml_control.errors import InvalidSpec

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_PARTS = 60_000  # keys, values and brackets: as many as 10,000 features have
_KEYS = ("type", "attributes", "requirements")
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is built


def screen(text: str, file: Path) -> None:
    """Refuse text whose reading would be expensive, ambiguous or more than data.

    Raises ``InvalidSpec`` with the line: aliases, more than one document, nesting and size beyond
    any real file. Nothing is built: only the parser's events are counted.
    """
    depth = documents = 0
    for number, event in enumerate(yaml.parse(text, Loader=LOADER)):
        where = f"{file}:{event.start_mark.line + 1}" if event.start_mark else str(file)
        if isinstance(event, yaml.AliasEvent):
            raise InvalidSpec(
                where,
                f"uses the alias *{event.anchor}",
                "write the value out: aliases are how a small file becomes a huge one",
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if depth > MAX_DEPTH:
            raise InvalidSpec(
                where, f"nests too deeply (more than {MAX_DEPTH} levels)", "correct the file"
            )
        if documents > 1:
            raise InvalidSpec(
                where,
                "is not valid YAML: a second document begins here",
                "write one pipeline a file, without '---'",
            )
        if number > MAX_PARTS:
            raise InvalidSpec(
                where, f"has more than {MAX_PARTS:,} parts", "name fewer fields and features"
            )


def require_plain_keys(node: yaml.Node | None, file: Path) -> None:
    """Refuse keys that are there twice, merged in or no texts. Raises ``InvalidSpec``."""
    for key, seen in _keys(node):
        where = f"{file}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise InvalidSpec(
                where,
                "is not valid YAML here: a key is a list or a mapping",
                "put a template into quotes: '{{ env.NAME }}'",
            )
        if key.tag == "tag:yaml.org,2002:merge":
            raise InvalidSpec(where, "merges with '<<'", "write the fields out")
        if key.value in seen:
            raise InvalidSpec(
                where,
                f"has the key {key.value!r} twice (first in line {seen[key.value] + 1})",
                "keep one: which of them counts would be a guess",
            )


def require_known_keys(document: dict[str, Any], node: yaml.Node | None, file: Path) -> None:
    """Refuse what stands beside ``attributes`` and would change what the pipeline does."""
    keys = {key.value: key.start_mark.line + 1 for key, _ in _keys(node, deep=False)}
    for name in document:
        if name in _KEYS:
            continue
        line = keys.get(str(name))
        near = did_you_mean(str(name), _KEYS)
        raise InvalidSpec(
            f"{file}:{line}" if line else str(file),
            f"has the key {name!r}, which is not allowed here{near}",
            f"keep {', '.join(_KEYS)}; a pipeline file is data and loads no code",
        )


def _keys(
    node: yaml.Node | None, *, deep: bool = True
) -> Iterator[tuple[yaml.Node, dict[str, int]]]:
    """Every key with the keys before it in the same mapping, and their lines."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            yield key, seen
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = key.start_mark.line
            if deep:
                yield from _keys(value)
    elif isinstance(node, yaml.SequenceNode) and deep:
        for item in node.value:
            yield from _keys(item)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'min_rows'?`` where a known name is close, else nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def known_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The names that a section of a model may have; none where the path leads nowhere."""
    kinds: list[Any] = [model]
    for part in path:
        inside: list[Any] = []
        for kind in _models(kinds):
            field = kind.model_fields.get(str(part))
            if field is not None:
                inside.append(field.annotation)
        # A list's index, a mapping's key and the tag of a union stay in the same section.
        kinds = inside or kinds
    return sorted({name for kind in _models(kinds) for name in kind.model_fields})


def _models(kinds: Sequence[Any]) -> Iterator[type[BaseModel]]:
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind
        elif get_origin(kind) in (tuple, list, dict, Union, UnionType) or get_args(kind):
            yield from _models(get_args(kind))
