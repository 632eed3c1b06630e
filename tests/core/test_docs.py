"""The documentation says what the code does: no field, command or error is forgotten."""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import click
import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ml_control import errors
from ml_control.cli.main import COMMANDS, cli
from ml_control.core.gates import gate_names
from ml_control.core.records import EVENT_STATES
from ml_control.settings import AwsSettings, Settings
from ml_control.spec import PipelineSpec, parse_duration

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(
    r"(?:^|`|bin/)ml-control(?: --(?:home|pipelines) \S+)* ([a-z]\w*)", re.MULTILINE
)


def page(name: str) -> str:
    """A page's text."""
    return (ROOT / name).read_text("utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without the lines under headers."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if set("".join(row)) - set("-| ")]


def sections(text: str, level: int) -> dict[str, str]:
    """Text below each heading of a level, by the heading without backticks."""
    parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return {
        title.strip("` "): re.split(rf"^#{{1,{level}}} ", body, flags=re.MULTILINE)[0]
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def fields(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    """(path, default) of every field that is written down, in the notation of the page."""
    for name, field in model.model_fields.items():
        path, below = f"{above}{name}", nested(field.annotation)
        if below is None or get_origin(field.annotation) is not None:
            default = field.get_default(call_default_factory=True)
            yield path, default
        if below is not None:
            kind = get_origin(field.annotation)
            inside = {tuple: "[].", dict: ".<metric>."}.get(kind, ".")
            yield from fields(below, path + inside)


def nested(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, itself or in a collection."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, dict, Union, types.UnionType):
        return next((found for arg in get_args(annotation) if (found := nested(arg))), None)
    return None


def as_written(default: Any) -> Any:
    """A default as YAML reads it."""
    if isinstance(default, tuple):
        return list(default)
    return default


def test_every_field_of_the_pipeline_file_is_described_with_its_default() -> None:
    """docs/pipeline-file.md has exactly the fields of PipelineSpec, with today's defaults."""
    described = {
        cells[0].strip("`"): cells[1].strip("`")
        for cells in rows(page("docs/pipeline-file.md"))
        if cells[0].startswith("`")
    }
    known = dict(fields(PipelineSpec))

    assert sorted(known) == sorted(described)
    for path, default in known.items():
        if default is PydanticUndefined:
            assert (path, "required") == (path, described[path])
            continue
        written = yaml.safe_load(described[path])
        if isinstance(default, float) and isinstance(written, str):
            written = parse_duration(written)
        assert (path, as_written(default)) == (path, written)


def test_every_example_of_a_pipeline_file_is_valid() -> None:
    """A pipeline in the README can be copied and passes validation."""
    examples = [
        document["attributes"]
        for name in ("README.md", "docs/pipeline-file.md")
        for text in re.findall(r"```yaml\n(.*?)```", page(name), flags=re.DOTALL)
        if "attributes" in (document := yaml.safe_load(text))
    ]

    assert examples
    for attributes in examples:
        spec = PipelineSpec.model_validate(attributes)
        assert date(2026, 1, 1) == spec.source.partition.start


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_described_with_its_options(name: str) -> None:
    """docs/cli.md has a section for the command that names exactly its arguments and options."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    section = sections(page("docs/cli.md"), 3)[name]
    described = {
        CODE.findall(cells[0])[0]
        for cells in rows(section)
        if cells[0].startswith("`") and not cells[0].startswith("`ml-control")
    }
    options = {p.opts[0] for p in command.params if isinstance(p, click.Option)}
    arguments = {p.human_readable_name for p in command.params if isinstance(p, click.Argument)}

    assert options | arguments == described
    assert command.help, "a command without help"


def test_no_command_is_described_that_does_not_exist() -> None:
    """The sections of docs/cli.md are exactly the commands, and every page names real ones only."""
    assert sorted(COMMANDS) == sorted(sections(page("docs/cli.md"), 3))
    named = {match[1] for path in PAGES for match in COMMAND.finditer(path.read_text("utf-8"))}
    assert named
    assert set() == named - set(COMMANDS)


def test_options_and_settings_of_the_whole_program_are_described() -> None:
    """docs/cli.md names the group's options and every setting."""
    text = page("docs/cli.md")
    named = {word for cells in rows(text) for word in CODE.findall(cells[0])}
    options = {p.opts[0] for p in cli.params if isinstance(p, click.Option)}

    assert set() == options - named
    described = [CODE.findall(cells[0]) for cells in rows(sections(text, 2)["Settings"])]
    assert sorted(Settings.model_fields) == sorted(words[0] for words in described if words)


def test_every_error_kind_has_its_section() -> None:
    """docs/errors.md has a section with messages for each kind, and for no other."""
    kinds = {kind.__name__ for kind in errors.MlControlError.__subclasses__()}
    described = sections(page("docs/errors.md"), 2)

    assert kinds == set(described)
    assert [] == [kind for kind, text in described.items() if len(rows(text)) < 2]


def test_every_direct_dependency_has_its_reason() -> None:
    """docs/dependencies.md names exactly the direct dependencies of pyproject.toml."""
    project = tomllib.loads(page("pyproject.toml"))
    wanted = {
        "Runtime": project["project"]["dependencies"],
        "Extra `aws`": project["project"]["optional-dependencies"]["aws"],
        "Development": project["dependency-groups"]["dev"],
    }
    text = page("docs/dependencies.md")
    described = sections(text, 2)

    assert sorted(title.strip("` ") for title in wanted) == sorted(described)
    for title, requirements in wanted.items():
        names = sorted(re.split(r"[\s<>=!~;\[]", line)[0] for line in requirements)
        found = [cells for cells in rows(described[title.strip("` ")]) if cells[0][0] == "`"]
        assert (title, names) == (title, sorted(cells[0].strip("`") for cells in found))
        assert [] == [cells[0] for cells in found if len(cells[1]) < 10]


def test_gates_and_event_states_are_explained() -> None:
    """The README explains every gate, the concepts every state that an event can have."""
    spec = PipelineSpec.model_validate(
        yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page("README.md"), re.DOTALL)[0])[
            "attributes"
        ]
    )
    gates = {name.replace("metric:auc", "metric:<name>") for name in gate_names(spec)}
    explained = {cells[0].strip("`") for cells in rows(page("README.md"))}

    assert set() == gates - explained
    states = sections(page("docs/concepts.md"), 2)["Event and ledger"]
    found = [cells[0].strip("`") for cells in rows(states) if cells[0].startswith("`")]
    assert list(EVENT_STATES) == found


def test_links_inside_the_documentation_lead_somewhere() -> None:
    """Every relative link of a page names an existing file and heading."""
    broken = []
    for path in PAGES:
        for target in LINK.findall(path.read_text("utf-8")):
            if "://" in target:
                continue
            file, _, anchor = target.partition("#")
            other = (path.parent / file).resolve() if file else path
            if not other.exists() or (anchor and anchor not in anchors(other)):
                broken.append(f"{path.relative_to(ROOT)}: {target}")

    assert [] == broken


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_readme_gives_the_test_command() -> None:
    """Every make target that a page names exists, and ``make test`` is among them."""
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), flags=re.MULTILINE))
    named = {
        found
        for path in PAGES
        for found in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text("utf-8"), re.MULTILINE)
    }

    assert "test" in named
    assert set() == named - targets


def test_decisions_have_their_three_parts() -> None:
    """Each decision says context, decision and consequence, under consecutive numbers."""
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [f"{i:04d}" for i in range(1, len(files) + 1)] == [file.name[:4] for file in files]
    for file in files:
        parts = re.findall(r"^\*\*(\w+)\.\*\*", file.read_text("utf-8"), flags=re.MULTILINE)
        assert (file.name, ["Context", "Decision", "Consequence"]) == (file.name, parts)


def test_every_setting_of_aws_is_described() -> None:
    """docs/aws.md names exactly the settings under [aws]."""
    described = [
        CODE.findall(cells[0]) for cells in rows(sections(page("docs/aws.md"), 2)["Settings"])
    ]

    assert sorted(AwsSettings.model_fields) == sorted(words[0] for words in described if words)
