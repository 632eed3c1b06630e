"""A search killed in mid-trial: its job is adopted, and it ends as an undisturbed one."""

from __future__ import annotations

import psutil
import pytest
from drilling import NAME, Home, until, write_pipeline

from ml_control.local.files import read_json

TRIALS = 4


@pytest.fixture
def search(tmp_path, published_template):
    """Makes homes with the same published data whose training is a search."""
    write_pipeline(
        tmp_path / "search",
        hyperparameters={"num_round": 300, "max_depth": 3, "eta": 0.1},
        early_stopping_rounds=None,
        tuning={"trials": TRIALS, "ranges": {"max_depth": [1, 4], "eta": [0.01, 0.3]}},
    )
    homes = []

    def make(name):
        copied = published_template.copy(tmp_path / name)
        homes.append(Home(copied.folder, tmp_path / "search", copied.puts))
        return homes[-1]

    yield make
    for home in homes:
        home.end()


def trials(home):
    """The recorded trials but for how long they took."""
    found = [dict(body) for body in home.registry.models.study(NAME, "")]
    return [{key: value for key, value in t.items() if key != "seconds"} for t in found]


def test_a_search_killed_in_mid_trial_goes_on_with_the_running_job(search):
    """The caller is killed at the first round of its third trial. The next one repeats no
    recorded trial, waits for the very process that was left, and packs the undisturbed model.
    """
    undisturbed = search("undisturbed")
    ((version, passed, _),) = undisturbed.do([["train"]])
    home = search("home")

    victim = home.stopped([["train"]], "trainer.train", "inside", nth=3)
    before = {path.parent.name: path.read_bytes() for path in processes(home)}
    recorded = trials(home)
    (running,) = set(before) - {trial["job"] for trial in recorded}
    child = psutil.Process(read_json(home.folder / "jobs" / running / "process.json")["pid"])
    child.suspend()
    until(lambda: child.status() == psutil.STATUS_STOPPED, "a stopped training process")
    victim.kill()
    home.released()
    heir = home.stopped([["train"]], "trainer.train", "inside", run="heir")
    child.resume()
    heir.go()
    ((again, _, _),) = heir.answer()["done"]

    assert passed
    assert 2 == len(recorded)
    assert recorded == trials(home)[:2]
    assert running == trials(home)[2]["job"]
    after = {path.parent.name: path.read_bytes() for path in processes(home)}
    assert before == {name: after[name] for name in before}, "a job was started again"
    assert trials(undisturbed) == trials(home)
    assert TRIALS == len(trials(home))
    assert version == again
    assert [] == home.alive()


def processes(home):
    """The record of every training process that was started."""
    return (home.folder / "jobs").glob("*/process.json")
