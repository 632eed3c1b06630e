"""Dagster's run history is wiped while data waits and a model serves: the registry knows it all."""

from __future__ import annotations

import shutil

from drilling import DAYS, NAME

ARRIVALS, RETRAINING = ["tick", f"{NAME}__arrivals"], ["tick", f"{NAME}__retraining"]
JOB = ["dagster", "job", "execute", "-m", "ml_control.definitions", "-j", f"{NAME}__ingest"]
DAY = DAYS[1]


def test_a_wiped_run_history_loses_nothing_and_repeats_nothing(served, tables):
    """With no runs known, the next ticks ask for exactly the partition that waits, once, and then
    for one training; what was trained on is not trained on again, and serving goes on.
    """
    home = served
    home.do([["deploy"], ["route"]])  # the newest candidate: nothing is left to do
    rollout = home.registry.rollouts.get(NAME)
    live = home.endpoints.describe(rollout.variants[rollout.live].endpoint)
    home.land(f"dt={DAY}/more.csv", tables[DAYS[0]])
    home.do([["take_in"]])
    dagster = home.stopped(
        [[*JOB, "--tags", f'{{"dagster/partition": "{DAY}"}}']],
        at="registry.ledger.claim",
        when="after",
    )

    shutil.rmtree(home.folder / "dagster")
    ((under_way, why),) = home.start([ARRIVALS]).answer()["done"]
    dagster.kill()
    home.released()
    (asked, _), (early, reason) = home.do([ARRIVALS, RETRAINING])

    assert ([], True) == (under_way, "a run of it is under way" in why), why
    assert [DAY] == [partition for partition, _ in asked]
    assert ([], True) == (early, "data is coming in" in reason), reason
    home.check_serving()

    _, (again, _), (trainings, _), (twice, _) = home.do(
        [["ingest"], ARRIVALS, RETRAINING, RETRAINING]
    )
    assert ([], 1, []) == (again, len(trainings), twice)
    home.check_ledger()

    home.do([["train"], ["deploy"], ["route"]])
    shutil.rmtree(home.folder / "dagster")
    (asked, _), (trainings, why), wanted = home.do([ARRIVALS, RETRAINING, ["wanted"]])

    assert ([], [], []) == (asked, trainings, wanted)
    assert "this data was trained on: passed" in why
    assert live == home.endpoints.describe(live.name)
    home.check_serving()
