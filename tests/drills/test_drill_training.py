"""Training killed at each of its steps: one model comes of it, with one verdict."""

from __future__ import annotations

import psutil
import pytest
from drilling import ALL, NAME, Home, until, write_pipeline

from ml_control.local.files import read_json


@pytest.fixture
def slow(tmp_path, published_template):
    """A home with published data whose training takes seconds."""
    write_pipeline(
        tmp_path / "slow",
        hyperparameters={"num_round": 3000, "max_depth": 4, "eta": 0.01},
        early_stopping_rounds=None,
    )
    copied = published_template.copy(tmp_path / "home")
    home = Home(copied.folder, tmp_path / "slow", copied.puts)
    yield home
    home.end()


def frozen_training(home):
    """A parent standing at the first round that its training process told, and that process,
    frozen in mid-training.
    """
    parent = home.stopped([["train"]], "trainer.train", "inside")
    (record,) = (home.folder / "jobs").glob("*/process.json")
    child = psutil.Process(read_json(record)["pid"])
    child.suspend()
    until(lambda: child.status() == psutil.STATUS_STOPPED, "a stopped training process")
    assert not (record.parent / "model" / "xgboost-model").exists(), "training was over too soon"
    return parent, child, record


def test_a_training_process_outlives_its_parent_and_is_adopted(slow):
    """Only the parent is killed: the next run waits for the same process and takes its model."""
    parent, child, record = frozen_training(slow)
    before = record.read_bytes()

    parent.kill()

    assert child.is_running()
    slow.released()
    heir = slow.stopped([["train"]], "trainer.train", "inside", run="heir")
    child.resume()
    heir.go()
    ((version, passed, adopted),) = heir.answer()["done"]
    assert (True, True) == (passed, adopted)
    assert before == record.read_bytes()
    rounds = [line for line in (record.parent / "log.txt").read_text().splitlines() if "\t" in line]
    assert [f"[{i}]" for i in range(3000)] == [line.split("\t")[0] for line in rounds]
    assert version == slow.registry.models.candidate(NAME).version


def test_training_killed_with_its_process_starts_from_scratch(slow):
    """Parent and training process are killed: nothing half is adopted, a new process trains."""
    parent, child, record = frozen_training(slow)
    before = record.read_bytes()

    parent.kill()
    child.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "its end")

    assert slow.registry.models.candidate(NAME) is None
    ((version, passed, adopted),) = slow.do([["train"]])
    assert (True, False) == (passed, adopted)
    assert before != record.read_bytes()
    assert [version] == [model.version for model in slow.registry.models.all(NAME)]
    assert [] == slow.alive()


def test_training_killed_after_packaging_gives_the_same_model_and_one_verdict(
    published, served_template
):
    """Killed before its verdict, then before its registration, then before the history: the
    replays adopt the job, pack the same bytes and keep the first verdict that was recorded.
    """
    home = published
    lasting = home.lasting()

    home.stopped([["train"]], "registry.models.record_verdict", run="unjudged").kill()
    lasting |= home.lasting()
    assert [] == home.registry.models.verdicts(NAME)
    home.released()
    home.stopped([["train"]], "registry.models.register", run="unregistered").kill()
    assert home.registry.models.candidate(NAME) is None
    refused = home.start([["deploy"]]).answer()["error"]
    assert "NotProven" == refused["kind"]
    home.released()
    home.stopped([["train"]], "registry.history.append", run="untold").kill()
    assert served_template.first == home.registry.models.candidate(NAME).version

    (version, passed, adopted), *_ = home.do(ALL[2:])

    assert (served_template.first, True, True) == (version, passed, adopted)
    (verdict,) = [v for v in home.registry.models.verdicts(NAME) if v.champion is None]
    assert (version, "unregistered") == (verdict.model_version, verdict.run)
    home.check_intact(lasting)
    home.check_serving()
