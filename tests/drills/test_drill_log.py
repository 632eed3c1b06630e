"""The prediction log's writer killed in mid-commit and in mid-flush: all that was told is there."""

from __future__ import annotations

from collections import Counter

import pytest
from drilling import NAME, until
from logbook import COLUMN, NOON

from ml_control.local.prediction_log import SqlitePredictionLog
from ml_control.services.traffic.log_files import read_outcomes, read_predictions

FIRST, LAST = 0, 120
COMMIT = "ml_control.local.prediction_log.commits:append"


def in_the_log(home):
    """Numbers of the logged requests, in order, as a client of its own sees them."""
    log = SqlitePredictionLog(home.folder / "predictions.db")
    found = [int(one.prediction.request_id[1:]) for one in log.after(NAME, 0, 10_000)]
    log.close()
    return found


def in_the_lake(home):
    """Numbers of the flushed requests, as often as they are there."""
    table = read_predictions(home.platform, NAME).collect()
    assert table["request_id"].to_list() == [
        f"r{value:.0f}" for value in table[f"record.{COLUMN}"].to_list()
    ]
    return Counter(int(id[1:]) for id in table["request_id"].to_list())


@pytest.mark.parametrize(
    ("when", "nth"),
    [("before", 1), ("after", 1), ("after", 9)],
    ids=["the first", "rows written", "later"],
)
def test_killed_in_mid_commit(empty, tmp_path, when, nth):
    """What was acknowledged is there; what was not is there once after it was brought again."""
    told = tmp_path / "told"
    work = ["log", FIRST, LAST, 4, str(told)]
    victim = empty.stopped([work], at=COMMIT, when=when, nth=nth)
    acknowledged = {int(line) for line in told.read_text().split()}
    victim.kill()
    before = in_the_log(empty)

    assert acknowledged == set(before)
    assert len(before) == len(set(before))
    assert [LAST] == empty.do([work])
    assert sorted(in_the_log(empty)) == [*range(FIRST, LAST)]
    noted = Counter(int(line) for line in told.read_text().split())
    assert noted == Counter(range(FIRST, LAST))
    counts = empty.platform.log.traffic(NAME, "r")
    assert (60, 60) == (counts["champion"].requests, counts["challenger"].requests)
    assert (6, 6) == (counts["champion"].entities, counts["challenger"].entities)


def test_killed_under_load(empty, tmp_path):
    """At whatever moment: every acknowledged request is there, and none twice."""
    told = tmp_path / "told"
    victim = empty.start([["log", 0, 100_000, 8, str(told)]])
    until(lambda: told.exists() and told.stat().st_size > 1000, "some hundred acknowledged")
    victim.kill()
    lines = told.read_text().splitlines(keepends=True)
    acknowledged = {int(line) for line in lines if line.endswith("\n")}
    found = in_the_log(empty)

    assert len(acknowledged) > 100
    assert acknowledged <= set(found)
    assert len(found) == len(set(found))
    total = sum(one.requests for one in empty.platform.log.traffic(NAME, "r").values())
    assert total == len(found)


def test_a_full_disk_refuses_and_leaves_what_was_acknowledged(empty, tmp_path):
    """A request or a flush that finds no room is told so by name; with room all is there once."""
    told = str(tmp_path / "told")
    empty.do([["log", 0, 30, 1, told], ["tell", 0, 5]])
    for work, at in (([["log", 30, 60, 1, told]], "log.append"), ([["tell", 5, 9]], "log.tell")):
        refused = empty.refused(work, limit={"at": at, "bytes": 0})

        assert ("Retryable", True) == (refused["kind"], "predictions.db" in refused["object"])
        assert "free space" in refused["next"]
    assert [*range(30)] == in_the_log(empty)
    assert 5 == len(empty.platform.log.joined(NAME, 0, 100))
    done = empty.start([["flush"]], limit={"at": "lake.create", "bytes": 100}).answer()["done"]
    assert [[0, 0, 0]] == done
    empty.do([["log", 30, 60, 1, told], ["tell", 5, 9], ["flush"]])
    assert Counter(range(60)) == in_the_lake(empty)


def test_killed_while_an_outcome_is_joined(empty, tmp_path):
    """An outcome that nobody acknowledged is joined when it is told again, once."""
    empty.do([["log", 0, 20, 1, str(tmp_path / "told")], ["tell", 0, 5]])
    empty.stopped(
        [["tell", 0, 20]], at="ml_control.local.prediction_log.log:joining.tell", when="after",
        nth=8,
    ).kill()  # fmt: skip
    (told,) = empty.do([["tell", 0, 20]])
    found = empty.platform.log.joined(NAME, 0, 100)

    assert ["known"] * 7 + ["joined"] * 13 == told
    assert [f"r{number}" for number in range(20)] == [one.request_id for one in found]
    assert [0, 10] == [int(one.request_id[1:]) for one in found if one.first]


@pytest.mark.parametrize(
    "stop",
    [
        {"at": "registry.live.put", "when": "after"},
        {"at": "lake.create", "when": "before", "nth": 2},
        {"at": "lake.create", "when": "after", "nth": 3},
        {"at": "registry.live.add", "when": "before"},
        {"at": "registry.live.add", "when": "after"},
    ],
    ids=["planned", "one file", "three files", "all files", "done"],
)
def test_killed_in_mid_flush(empty, tmp_path, stop):
    """The next flush finishes it, with what was logged meanwhile: each row is once in the lake and
    once in the histograms, also when the victim was only slow and goes on after that.
    """
    told = str(tmp_path / "told")
    empty.do([["log", 0, 30, 1, told], ["tell", 0, 3], ["flush"]])
    empty.do([["log", 30, 90, 1, told], ["tell", 3, 9]])
    victim = empty.stopped([["flush"]], **stop)
    empty.do([["log", 90, LAST, 1, told]])
    zombie = stop["at"] == "lake.create"
    if not zombie:
        victim.kill()
    empty.do([["flush"], ["flush"]])
    if zombie:
        victim.go()
        victim.answer()

    assert Counter(range(LAST)) == in_the_lake(empty)
    outcomes = read_outcomes(empty.platform, NAME).collect()
    assert {f"r{number}" for number in range(9)} == set(outcomes["request_id"])
    assert 9 == outcomes.height
    hours = [NOON + 3600 * hour for hour in range(3)]
    live = [empty.registry.live.merged(NAME, "m", hour, hour) for hour in hours]
    assert [LAST // 3] * 3 == [one["rows"] for one in live]
