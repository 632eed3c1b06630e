"""Homes in temporary folders: fresh, with audited data, or with a trained model."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_control.core.pipeline import Pipeline
from ml_control.platform import Platform, open_platform
from ml_control.services.authoring.pipelines import read_folder
from ml_control.settings import Settings, load_settings

EXAMPLES = Path(__file__).parent.parent / "pipelines"
START = "2024-01-01"
TUMOURS = "tumours"
os.environ.setdefault("ML_CONTROL_GATEWAY_PORT", "0")  # several homes are up at once
VARIABLES = ("ML_CONTROL_HOME", "ML_CONTROL_PIPELINES", "DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY")


class Home:
    """An installation below one folder: ``home`` and a copy of the example ``pipelines``.

    The copies begin in 2024, so that tests name days that are past whenever they run.
    """

    days = ("2024-03-04", "2024-03-05", "2024-03-06")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "home"
        self.pipelines = root / "pipelines"

    def add_pipeline(self, name: str, as_name: str = "") -> Path:
        """Copy an example pipeline; gives its defs.yaml."""
        folder = self.pipelines / (as_name or name)
        shutil.copytree(EXAMPLES / name, folder)
        file = folder / "defs.yaml"
        text = file.read_text("utf-8")
        file.write_text(text.replace('start: "2026-01-01"', f'start: "{START}"'), "utf-8")
        return file

    def edit(self, old: str, new: str, pipeline: str = TUMOURS, file: str = "defs.yaml") -> None:
        """Replace a text that occurs in a pipeline's file."""
        path = self.pipelines / pipeline / file
        text = path.read_text("utf-8")
        assert old in text, f"{old!r} is not in {path}"
        path.write_text(text.replace(old, new), "utf-8")

    @property
    def settings(self) -> Settings:
        """The settings as every process of this home sees them now."""
        return load_settings(self.path, self.pipelines)

    @property
    def platform(self) -> Platform:
        """The platform that the assets and sensors of this process get too."""
        return open_platform(self.settings)

    def pipeline(self, name: str = TUMOURS) -> Pipeline:
        """A pipeline as its file reads now."""
        return read_folder(self.pipelines, self.settings.yaml_env).get(name)

    def definitions(self) -> Any:
        """The Dagster definitions of the pipelines as their files read now."""
        from ml_control.definitions import load_definitions

        return load_definitions()

    def land(self, *days: str, rows: int | None = None, label: str = "") -> list[Path]:
        """Drop tumours on these days; only the first rows, or all with one label, if asked."""
        from ml_control.testing.samples import write_tumours

        staging = self.root / "staging"
        written = write_tumours(staging, self.days)
        landed = []
        for day in days:
            source = written[self.days.index(day) if day in self.days else 0]
            with source.open(newline="", encoding="utf-8") as stream:
                header, *cells = list(csv.reader(stream))
            if label:
                cells = [[*row[:-1], label] for row in cells]
            target = self.settings.landing / TUMOURS / f"dt={day}" / "tumours.csv"
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows([header, *cells[:rows]])
            landed.append(target)
        shutil.rmtree(staging)
        return landed

    def take_in(self, pipeline: str = TUMOURS) -> None:
        """Record what landed, without waiting for it to settle."""
        from ml_control.services.arrivals.intake import take_in

        take_in(self.platform, self.pipeline(pipeline), settle=0.0)

    def publish(self, *days: str) -> None:
        """Take in what landed and publish these partitions, without Dagster."""
        from ml_control.services.data.dataset import admit, process

        self.take_in()
        for day in days:
            admit(self.platform, self.pipeline(), day, "setup")
            assert process(self.platform, self.pipeline(), day, "setup").published

    def train(self) -> Any:
        """Train on what is published, without Dagster; adopts a finished identical job."""
        from ml_control.services.models.training import train

        return train(self.platform, self.pipeline(), "setup", lambda _: None)

    def copy_to(self, root: Path) -> Home:
        """The same state in another folder."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return Home(root)

    def stop_endpoints(self) -> None:
        """End every server of this home."""
        endpoints = self.platform.endpoints
        for folder in sorted((self.path / "endpoints").glob("*/")):
            endpoints.stop(folder.name)


class Shell:
    """Runs commands in this process on one home."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.pipelines = root / "pipelines"
        self.options = ["--home", str(self.home), "--pipelines", str(self.pipelines)]

    def __call__(self, *arguments: Any, status: int = 0) -> Any:
        """The result of a command that must end with this status."""
        from click.testing import CliRunner

        from ml_control.cli.main import cli

        result = CliRunner().invoke(cli, [*self.options, *map(str, arguments)])
        shown = f"{result.stdout}\n{result.stderr}"
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert status == result.exit_code, shown
        return result

    def json(self, *arguments: Any, status: int = 0) -> Any:
        """What a command prints with --json."""
        return json.loads(self(*arguments, "--json", status=status).stdout)


def _built(root: Path, build: Callable[[Home], None]) -> Home:
    home = Home(root)
    home.add_pipeline(TUMOURS)
    build(home)
    home.platform.registry.tables.close()  # type: ignore[attr-defined]
    return home


@pytest.fixture(scope="session")
def audited_template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two published days of tumours. Read only: copy it."""

    def build(home: Home) -> None:
        home.land(*home.days[:2])
        home.publish(*home.days[:2])

    return _built(tmp_path_factory.mktemp("audited"), build)


@pytest.fixture(scope="session")
def trained_template(tmp_path_factory: pytest.TempPathFactory, audited_template: Home) -> Home:
    """The same with a model that passed its gates and is deployed nowhere. Read only: copy it."""
    home = audited_template.copy_to(tmp_path_factory.mktemp("trained"))
    assert home.train().verdict.passed
    home.platform.registry.tables.close()  # type: ignore[attr-defined]
    return home


@pytest.fixture(scope="session")
def two_variants_template(tmp_path_factory: pytest.TempPathFactory, trained_template: Home) -> Home:
    """The same with its model live on a, another one on b, and half the entities each.

    Nothing runs. Read only: copy it.
    """
    from gateways import two_variants

    home = trained_template.copy_to(tmp_path_factory.mktemp("variants"))
    two_variants(home)
    home.stop_endpoints()
    home.platform.registry.tables.close()  # type: ignore[attr-defined]
    return home


@pytest.fixture(scope="session")
def dagster_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a new Dagster instance: making it anew takes longer than copying it."""
    import dagster as dg

    folder = tmp_path_factory.mktemp("instance")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n", "utf-8")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        assert instance.get_runs_count() == 0
    (folder / "dagster.yaml").unlink()
    return folder


def _entered(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """This process works on the home until the test ends."""
    monkeypatch.setenv("ML_CONTROL_HOME", str(home.path))
    monkeypatch.setenv("ML_CONTROL_PIPELINES", str(home.pipelines))
    monkeypatch.setenv("DAGSTER_HOME", str(home.settings.dagster_home))
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    home.settings.dagster_home.mkdir(parents=True, exist_ok=True)
    yield home
    home.stop_endpoints()


@pytest.fixture(scope="module")
def make_shell() -> Iterator[type[Shell]]:
    """Command lines by folder; what they put into the environment is taken back."""
    with pytest.MonkeyPatch.context() as patched:
        for name in VARIABLES:
            patched.setenv(name, "")
            patched.delenv(name)
        yield Shell


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A fresh home with the tumours pipeline; nothing has landed."""
    fresh = Home(tmp_path)
    fresh.add_pipeline(TUMOURS)
    yield from _entered(fresh, monkeypatch)


@pytest.fixture
def audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audited_template: Home
) -> Iterator[Home]:
    """A home with two published days."""
    yield from _entered(audited_template.copy_to(tmp_path), monkeypatch)


@pytest.fixture
def trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_template: Home
) -> Iterator[Home]:
    """A home with a model that passed its gates and is deployed nowhere."""
    yield from _entered(trained_template.copy_to(tmp_path), monkeypatch)


@pytest.fixture
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, dagster_template: Path
) -> Iterator[Any]:
    """The Dagster instance of the test's home, in SQLite as the program's own.

    Ask for it after the home.
    """
    import dagster as dg

    from ml_control.resources.instance import prepare_dagster_home

    home = Home(tmp_path)
    shutil.copytree(dagster_template, home.settings.dagster_home, dirs_exist_ok=True)
    prepare_dagster_home(home.settings)
    with dg.DagsterInstance.get() as found:
        yield found


@pytest.fixture(scope="session")
def fake_sagemaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A SageMaker that every test of this process shares; projects tell tests apart."""
    from hosted import running_fake

    with running_fake(tmp_path_factory.mktemp("sagemaker")) as fake:
        yield fake


@pytest.fixture
def hosted(fake_sagemaker: Any, tmp_path: Path) -> Iterator[Any]:
    """A project of this test's own on it; nothing of it may be left behind."""
    from emulators import credentials
    from hosted import Hosted

    with credentials():
        project = Hosted(fake_sagemaker, tmp_path)
        yield project
        project.end()


@pytest.fixture
def account() -> Iterator[Any]:
    """Settings of an AWS account of this test's own, on moto, with all its parts made."""
    from emulators import credentials, fresh_settings

    from ml_control.testing.account import make_account

    with credentials():
        yield make_account(fresh_settings())
