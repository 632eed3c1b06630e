"""Homes for drills: prepared once, copied for each drill."""

from __future__ import annotations

import pytest
from drilling import ALL, DATA, DAYS, NAME, NURSERY, Home, write_pipeline
from hosted import booster

from ml_control.core.artifact import pack
from ml_control.testing.samples import write_tumours


@pytest.fixture(scope="session", autouse=True)
def nursery():
    """The process that forks victims ends with the session."""
    yield NURSERY
    NURSERY.close()


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """CSV bytes of each day; each case is on one day."""
    folder = tmp_path_factory.mktemp("tables")
    paths = write_tumours(folder, DAYS)
    return {day: path.read_bytes() for day, path in zip(DAYS, paths, strict=True)}


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory):
    """The folder of the drills' pipeline."""
    folder = tmp_path_factory.mktemp("pipelines")
    write_pipeline(folder)
    return folder


@pytest.fixture(scope="session")
def published_template(tmp_path_factory, pipelines, tables):
    """A home with one published day and no model."""
    home = Home(tmp_path_factory.mktemp("template") / "home", pipelines)
    home.land(f"dt={DAYS[0]}/tumours.csv", tables[DAYS[0]])
    home.do(DATA)
    return home


@pytest.fixture(scope="session")
def served_template(tmp_path_factory, published_template, tables):
    """A home whose first model is live, with two more proven against it; nothing runs."""
    home = published_template.copy(tmp_path_factory.mktemp("served") / "home")
    for day in DAYS[1:]:
        home.land(f"dt={day}/tumours.csv", tables[day])
    newer = [[["ingest", day], ["train"]] for day in DAYS[1:]]
    try:
        first, *_ = home.do([*ALL[2:], ["take_in"], *newer[0], *newer[1]])
        home.first = first[0]
        for name in home.endpoints.names():
            home.endpoints.stop(name)
        assert 3 == len(home.registry.models.all(NAME))
    finally:
        home.end()
    return home


@pytest.fixture
def empty(tmp_path, pipelines):
    """A fresh home."""
    home = Home(tmp_path / "home", pipelines)
    yield home
    home.end()


@pytest.fixture
def published(tmp_path, published_template):
    """A home with one published day and no model."""
    home = published_template.copy(tmp_path / "home")
    yield home
    home.end()


@pytest.fixture
def served(tmp_path, served_template, monkeypatch):
    """A home with a live model on variant a, its server running, and two proven newer ones."""
    home = served_template.copy(tmp_path / "home")
    monkeypatch.setenv("ML_CONTROL_HOME", str(home.folder))  # what its servers are known by
    home.do([["serve"]])
    yield home
    home.end()


@pytest.fixture(scope="session")
def one():
    """A model's archive."""
    return pack(booster(3))


@pytest.fixture(scope="session")
def another():
    """Another model's."""
    return pack(booster(5))
