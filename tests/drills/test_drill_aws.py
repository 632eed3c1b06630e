"""The whole AWS platform in trouble, from an object that is put to a model that serves."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aws_home import aws_variables, cloud_on, hurried
from drilling import DAYS, NAME, write_pipeline
from driving import STEPS, drive, quiet

from ml_control.aws.client import Clients
from ml_control.errors import MlControlError, Retryable
from ml_control.ports import TABLES
from ml_control.services.arrivals.sweep import sweep
from ml_control.services.models.retraining import keep, observe_and_decide, take_calls
from ml_control.services.models.training import train
from ml_control.testing.account import make_tables

DRIVER = Path(__file__).with_name("aws_driver.py")
DATA = {name: STEPS[name] for name in ("take in", "ingest")}
MODEL = {name: STEPS[name] for name in ("train", "deploy", "route")}


@pytest.fixture
def cloud(fake_sagemaker, tmp_path, pipelines):
    """An account of this drill's own."""
    with cloud_on(fake_sagemaker, tmp_path, pipelines, NAME) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def expected(fake_sagemaker, tmp_path_factory, pipelines, tables):
    """How two days end when nothing fails."""
    with cloud_on(fake_sagemaker, tmp_path_factory.mktemp("calm"), pipelines, NAME) as cloud:
        put_two(cloud, tables)
        home = cloud.home()
        assert {} == drive(home.platform, home.pipeline)
        return home.outcome()


def put_two(cloud, tables):
    """Put two days of tumours."""
    for day in DAYS[:2]:
        cloud.put(day, tables[day])


def check(cloud, home, expected):
    """The same state as without trouble; nothing is there twice, and nothing is missing."""
    assert expected == home.outcome()
    assert 1 == len(home.registry.models.all(NAME))
    assert 1 == len(cloud.jobs())
    assert 1 == len(cloud.endpoints())
    home.check_ledger()
    home.check_serving()


def test_three_in_ten_calls_throttled_and_answers_lost(cloud, tables, expected):
    """Everything is refused three times in ten and one answer in twenty gets lost after the deed:
    it only takes longer. The seed is in the message.
    """
    put_two(cloud, tables)
    told = os.environ.get("ML_CONTROL_FAULT_SEED")
    seed = int(told) if told else random.SystemRandom().randrange(10**6)
    print(f"faults: ML_CONTROL_FAULT_SEED={seed}")
    faults = {"seed": seed, "throttle": 0.3, "drop_after": 0.05}
    # Messages whose answer was lost come again after their visibility timeout, of two minutes.
    spare = {"sqs.ReceiveMessage": {"after"}}
    with hurried(), cloud.proxied(**faults, spare=spare) as (moto, sagemaker, aws):
        home = cloud.home(aws)
        refusals = drive(home.platform, home.pipeline)
        counts = moto.plan.counts, sagemaker.plan.counts
        print(f"{counts}, refused {dict(refusals)}")

    assert min(count["throttle"] for count in counts) >= 5
    assert sum(count["after"] for count in counts) >= 5
    check(cloud, cloud.home(), expected)


def expiring(home, moto, sagemaker, where):
    """Let the credentials of a home expire at one point of its next step."""

    def expire(*_):
        moto.expire_credentials()
        sagemaker.expire_credentials()

    def before(owner, name, match=""):
        original = getattr(owner, name)

        def expired(*given, **options):
            if match in str(given[0]):
                expire()
            return original(*given, **options)

        setattr(owner, name, expired)
        return lambda: setattr(owner, name, original)

    platform = home.platform
    if where == "published":
        return before(platform.lake, "put", "_manifests")
    if where == "training":
        original = platform.trainer.train
        platform.trainer.train = lambda job, _: original(job, expire)
        return lambda: setattr(platform.trainer, "train", original)
    return before(platform.endpoints._parts, "store", "Wanted")


def test_credentials_that_expire_in_the_midst(cloud, tables, expected):
    """While partitions are published, a job is waited for and an endpoint is made: each time the
    refusal says that they are to be renewed, nothing is half there, and then it goes on; the job
    that ran meanwhile is adopted.
    """
    put_two(cloud, tables)
    watcher = cloud.home()
    with cloud.proxied() as (moto, sagemaker, aws):
        home = cloud.home(aws, lease_seconds=1.0)
        drive(home.platform, home.pipeline, {"take in": STEPS["take in"]})
        points = {"ingest": "published", "train": "training", "deploy": "deploying"}
        for step in ("ingest", "train", "deploy", "route"):
            if step in points:
                undo = expiring(home, moto, sagemaker, points[step])
                with pytest.raises(MlControlError) as caught:
                    STEPS[step](home.platform, home.pipeline, "expired")
                undo()

                assert "Expired" in caught.value.reason
                assert "renew the credentials" in caught.value.next
                assert isinstance(caught.value, Retryable)
                half = watcher.outcome()
                assert () == tuple(half["partitions"]) or step != "ingest"
                assert [] == half["models"] or step == "deploy"
                assert (None, None, "idle") == half["live"]
                watcher.registry.history.verify(NAME)
                moto.renew_credentials()
                sagemaker.renew_credentials()
            drive(home.platform, home.pipeline, {step: STEPS[step]})

    check(cloud, watcher, expected)


def test_two_control_planes_that_drive_everything(cloud, tables, expected):
    """Two processes do all at the same time: one job, one deployment, every event once; who is
    refused is told who does it.
    """
    put_two(cloud, tables)
    processes = {}
    for who in ("north", "south"):
        settings = cloud.home().settings.model_dump_json()
        processes[who] = subprocess.Popen(
            [sys.executable, str(DRIVER), settings, NAME, who, "2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        for process in processes.values():
            assert "ready\n" == process.stdout.readline()
        for process in processes.values():
            process.stdin.write("go\n")
            process.stdin.flush()
        said = {who: process.communicate(timeout=90)[0] for who, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    refused = [{"who": who, **each} for who, text in said.items() for each in json.loads(text)]
    print(refused)

    named = [each for each in refused if each.get("holder", "unknown") != "unknown"]
    assert named
    other = {"north": "south", "south": "north"}
    assert all(each["holder"].startswith(other[each["who"]]) for each in named)
    assert all(each["holder"] in each["reason"] for each in named)
    home = cloud.home()
    check(cloud, home, expected)
    actions = [decision.action for decision in home.registry.history.decisions(NAME)]
    assert 1 == actions.count("deployed")
    assert 1 == actions.count("promoted")


def tables_now(cloud):
    """All items of all tables, as a point in time."""
    client = cloud.clients.client("dynamodb")
    found = {}
    for table in TABLES:
        pages = client.get_paginator("scan").paginate(TableName=cloud.settings.table(table))
        found[table] = [item for page in pages for item in page["Items"]]
    return found


def restored(cloud, point):
    """Settings that name new tables with these items, as point-in-time recovery makes them."""
    names = {table: f"{cloud.settings.table(table)}-restored" for table in TABLES}
    aws = cloud.settings.model_copy(update={"tables": names})
    make_tables(Clients(aws))
    for table, items in point.items():
        for item in items:
            cloud.clients.client("dynamodb").put_item(TableName=names[table], Item=item)
    return aws


def test_a_registry_of_an_earlier_time_while_a_newer_model_serves(cloud, tables, monkeypatch):
    """The restored tables know the first day and its model, and the second serves: it is stopped,
    named and told; then the sweep finds the second day, the job is adopted and the same model
    serves again.
    """
    from click.testing import CliRunner

    from ml_control.cli.main import cli

    home = cloud.home()
    cloud.put(DAYS[0], tables[DAYS[0]])
    drive(home.platform, home.pipeline)
    first = home.registry.rollouts.get(NAME).champion
    point = tables_now(cloud)
    cloud.put(DAYS[1], tables[DAYS[1]])
    drive(home.platform, home.pipeline)
    second = home.registry.rollouts.get(NAME).champion
    assert first != second
    jobs = cloud.jobs()

    aws = restored(cloud, point)
    for name, value in {**aws_variables(aws), "ML_CONTROL_PLATFORM": "aws"}.items():
        monkeypatch.setenv(name, value)
    place = ["--home", str(cloud.root / "restored"), "--pipelines", str(cloud.pipelines)]
    told = CliRunner().invoke(cli, [*place, "reconcile", "09:30", "--json"])
    assert 0 == told.exit_code, told.output
    differences = json.loads(told.stdout)["differences"][NAME]
    now = cloud.home(aws)
    states = [now.platform.endpoints.describe(f"{NAME}-{variant}") for variant in "ab"]
    serving = [state.name for state in states if state.state == "InService"]

    assert any(f"holds model {second[:12]}" in each["reason"] for each in differences)
    assert [f"{NAME}-a"] == serving
    assert first == now.registry.rollouts.get(NAME).champion
    newest = now.registry.history.newest(NAME)
    assert ["restored", "halted"] == [next(newest).action for _ in range(2)]
    with monkeypatch.context() as later:  # than what may still be on its way into the ledger
        later.setattr(now.registry, "clock", lambda: time.time() + 61)
        assert 1 == sweep(now.platform, now.pipeline).found
    drive(now.platform, now.pipeline)

    assert second == now.registry.rollouts.get(NAME).champion
    assert jobs == cloud.jobs()
    assert {"done": 2} == {k: v for k, v in now.registry.ledger.counts(NAME).items() if v}
    now.check_ledger()
    now.check_serving()


def test_a_schedules_event_for_two_control_planes(fake_sagemaker, tmp_path, tables):
    """Delivered twice, and once more later, to two that tick at the same time: one training."""
    write_pipeline(tmp_path / "pipelines", retrain={"min_new_rows": 1_000_000})
    with cloud_on(fake_sagemaker, tmp_path, tmp_path / "pipelines", NAME) as cloud:
        cloud.put(DAYS[0], tables[DAYS[0]])
        homes = cloud.home(), cloud.home()
        drive(homes[0].platform, homes[0].pipeline, DATA)

        def tick(home):
            """What the sensors do: what came in is taken, and a run is asked for."""
            platform, pipeline = home.platform, home.pipeline
            STEPS["take in"](platform, pipeline, "tick")
            take_calls(platform, pipeline)
            before = platform.registry.models.training(NAME)
            seen, decision = observe_and_decide(platform, pipeline, ingesting=0, training=False)
            return keep(platform, before, seen, decision)

        def ticks():
            with ThreadPoolExecutor(2) as pool:
                return [key for key in pool.map(tick, homes) if key]

        assert [] == ticks()
        for _ in range(2):
            cloud.send({"pipeline": NAME}, "e1")
        asked = [key for _ in range(3) for key in ticks()]
        assert 1 == len(asked)
        trained = train(homes[1].platform, homes[1].pipeline, "run", quiet)
        cloud.send({"pipeline": NAME}, "e1")
        assert [] == [key for _ in range(3) for key in ticks()]

        assert [trained.model.training_job] == cloud.jobs()
        assert "passed" == homes[0].registry.models.training(NAME).outcome
        cloud.send({"pipeline": NAME}, "e2")
        assert 1 == len([key for _ in range(3) for key in ticks()])
