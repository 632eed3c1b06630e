"""Training on SageMaker while AWS throttles, loses answers, lacks machines, or its caller dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trainers import PACE, Account, Aws

from ml_control.aws.trainer import SageMakerTrainer
from ml_control.errors import PlatformFailed, Retryable
from ml_control.ports import TrainingJob
from ml_control.spec import SageMakerTraining

ROUNDS = 60
LONG = 400_000.0  # seconds of AWS's, which the fake's are a small part of


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job on spot machines, of rounds enough to be disturbed in the midst of."""
    folder = tmp_path_factory.mktemp("channels")
    random = np.random.default_rng(2)
    rows = random.normal(size=(300, 3)).astype(np.float32)
    labels = (rows[:, 0] + random.normal(scale=0.5, size=300) > 0).astype(int)
    lines = [",".join(map(str, [y, *x])) for y, x in zip(labels, rows.tolist(), strict=True)]
    (folder / "train.csv").write_text("\n".join(lines[:200]) + "\n")
    (folder / "validation.csv").write_text("\n".join(lines[200:]) + "\n")
    golden = "".join(",".join(map(str, row)) + "\n" for row in rows[:20].tolist())
    (folder / "golden.csv").write_text(golden)
    settings = {
        "num_round": str(ROUNDS),
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "eta": "0.05",
    }
    channels = {part: [folder / f"{part}.csv"] for part in ("train", "validation")}
    machines = SageMakerTraining(spot=True)
    return TrainingJob(
        "drill-job", "3.2-0", settings, channels, folder / "golden.csv", LONG, machines=machines
    )


@pytest.fixture(scope="module")
def world():
    """An account that the drills share; each takes a job name of its own."""
    world = Account(seed=4)
    yield world
    world.close()


@pytest.fixture
def platform(world, tmp_path):
    """Clients on machines of their own; nothing goes wrong unless a drill says so."""
    world.fake.director.reset()
    yield Aws(tmp_path, world)
    world.fake.director.reset()


@pytest.fixture(scope="module")
def undisturbed(world, job, tmp_path_factory):
    """What the job leaves when nothing goes wrong."""
    world.fake.director.reset()
    client = Aws(tmp_path_factory.mktemp("undisturbed"), world).client()
    return client.train(job, lambda _: None)


def impatient(world, tmp_path, **changes):
    """A trainer whose requests are tried once, so that it sees every fault."""
    clients = world.clients(**{"max_attempts": 1, **changes})
    return SageMakerTrainer(clients, world.lake, tmp_path / "impatient", PACE)


def check(result, seen, undisturbed):
    """The result is that of an undisturbed job, and every round was told once, in order."""
    assert list(range(ROUNDS)) == [step.index for step in seen]
    assert undisturbed.rounds == result.rounds
    assert undisturbed.model.read_bytes() == result.model.read_bytes()
    assert undisturbed.golden_predictions == result.golden_predictions


def jobs(world, name):
    """The jobs that stand for a name."""
    return [one for one in world.jobs() if one == name or one.startswith(f"{name}-")]


def test_nearly_a_third_of_the_calls_throttled(world, platform, job, undisturbed, tmp_path):
    """The caller waits and asks again: one job, nothing missing. With one try each it may end as
    ``Retryable``, and whoever asks next adopts the job.
    """
    wanted, seen, refused = replace(job, name="throttled"), [], []
    world.fake.director.throttle(0.3)
    trainer = impatient(world, tmp_path)

    for _ in range(60):
        seen.clear()
        try:
            result = trainer.train(wanted, seen.append)
            break
        except Retryable as error:
            refused.append(error.detail["code"])
    else:
        pytest.fail("it was never done")

    assert {"ThrottlingException"} >= set(refused)
    check(result, seen, undisturbed)
    assert ["throttled"] == jobs(world, "throttled")


def test_a_usual_client_notices_no_throttling(world, platform, job, undisturbed):
    """botocore's own tries are enough for it: not one error comes through."""
    wanted, seen = replace(job, name="slowed"), []
    world.fake.director.throttle(0.3)

    result = platform.client().train(wanted, seen.append)

    check(result, seen, undisturbed)
    assert ["slowed"] == jobs(world, "slowed")


def test_no_machines_at_first(world, platform, job, undisturbed):
    """The refusal says that it may work later, and it does, under the next name."""
    wanted, seen = replace(job, name="scarce"), []
    world.fake.director.training("CapacityError")
    with pytest.raises(Retryable, match="Unable to provision"):
        platform.client().train(wanted, seen.append)
    assert [] == seen

    result = platform.client().train(wanted, seen.append)

    check(result, seen, undisturbed)
    assert [wanted.name, f"{wanted.name}-2"] == jobs(world, wanted.name)


def test_a_quota_that_is_used_up(world, platform, job):
    """No job is made, and the next step is Service Quotas."""
    wanted = replace(job, name="quota")
    world.fake.director.limit("ml.m5.xlarge for spot training job usage", 0)
    with pytest.raises(PlatformFailed) as caught:
        platform.client().train(wanted, lambda _: None)

    assert "Service Quotas" in caught.value.next
    assert [] == jobs(world, "quota")


def test_spot_machines_taken_away_in_mid_training(world, platform, job, undisturbed):
    """The job begins anew at round 0; every round is told once, and the last count."""
    wanted, seen = replace(job, name="interrupted"), []
    world.fake.director.training("Interrupted")

    result = platform.client().train(wanted, seen.append)

    check(result, seen, undisturbed)
    told = world.job("interrupted")["SecondaryStatusTransitions"]
    assert "Interrupted" in [step["Status"] for step in told]
    assert ["interrupted"] == jobs(world, "interrupted")


def test_no_spot_machines_for_too_long(world, platform, job):
    """``Retryable``, with the number of interruptions and the setting that waits longer."""
    world.fake.director.training("MaxWaitTimeExceeded")
    with pytest.raises(Retryable, match=r"MaxWaitTimeExceeded.*1 spot interruption") as caught:
        platform.client().train(replace(job, name="waited"), lambda _: None)

    assert "max_wait" in caught.value.next


def test_a_creation_whose_answer_was_lost(world, platform, job, undisturbed, tmp_path):
    """It happened, but the caller saw a timeout: the same call finds the job and makes no other."""
    wanted, seen = replace(job, name="lost"), []
    world.fake.director.lose_answer("CreateTrainingJob", hang=1.5)

    result = impatient(world, tmp_path, read_timeout=1.0).train(wanted, seen.append)

    check(result, seen, undisturbed)
    assert ["lost"] == jobs(world, "lost")


def test_a_creation_whose_caller_never_learned_of_it(world, platform, job, undisturbed, tmp_path):
    """Nor can it ask: it is told to try again, and the next caller adopts the job."""
    wanted, seen = replace(job, name="unknown"), []
    trainer = impatient(world, tmp_path, read_timeout=1.0)
    world.fake.director.lose_answer("CreateTrainingJob")
    describe = trainer._clients.client("sagemaker").describe_training_job
    asked = []

    def unreachable(**arguments):
        asked.append(1)
        if len(asked) == 2:
            world.fake.director.fail("DescribeTrainingJob", "InternalFailure", status=500)
        return describe(**arguments)

    trainer._clients.client("sagemaker").describe_training_job = unreachable
    with pytest.raises(Retryable):
        trainer.train(wanted, seen.append)

    result = platform.client().train(wanted, seen.append)

    check(result, seen, undisturbed)
    assert result.adopted
    assert ["unknown"] == jobs(world, "unknown")


def test_credentials_that_expire_while_it_is_waited_for(world, platform, job, undisturbed):
    """At once ``Retryable`` with what to renew; the job goes on and is adopted."""
    wanted, told, seen = replace(job, name="expired"), [], []

    def expire(step):
        told.append(step)
        if len(told) == 1:
            director = world.fake.director
            director.fail("DescribeTrainingJob", "ExpiredTokenException", "expired", times=5)

    world.fake.director.training("hang")  # it cannot end before the credentials do
    with pytest.raises(Retryable) as caught:
        platform.client().train(wanted, expire)
    assert "ExpiredToken" in caught.value.reason
    assert "renew the credentials" in caught.value.next
    assert "adopted" in caught.value.next
    world.fake.director.reset()

    result = platform.client().train(wanted, seen.append)

    check(result, seen, undisturbed)
    assert result.adopted
    assert ["expired"] == jobs(world, "expired")


WAITER = """
import json, sys
from pathlib import Path
from ml_control.aws.client import Clients
from ml_control.aws.trainer import SageMakerTrainer
from ml_control.aws.training.waiting import Pace
from ml_control.lake import Lake
from ml_control.ports import TrainingJob
from ml_control.settings import AwsSettings
from ml_control.spec import SageMakerTraining
told = json.loads(sys.argv[1])
settings = AwsSettings.model_validate_json(told["settings"])
job = told["job"]
job["channels"] = {k: [Path(p) for p in v] for k, v in job["channels"].items()}
job["golden"], job["machines"] = Path(job["golden"]), SageMakerTraining(spot=True)
lake = Lake.local(Path(told["lake"]))  # the job is there: nothing is uploaded
trainer = SageMakerTrainer(Clients(settings), lake, Path(told["scratch"]), Pace(first=0.05))
trainer.train(TrainingJob(**job), lambda step: print(step.index, flush=True))
"""


def test_a_waiting_process_that_is_killed(world, platform, job, undisturbed, tmp_path):
    """The job goes on without it, and whoever asks next, elsewhere, takes its result."""
    wanted, seen = replace(job, name="orphan"), []
    world.fake.director.training("hang")

    class GoneError(Exception):
        pass

    def leave(_):
        raise GoneError

    with pytest.raises(GoneError):
        platform.client().train(wanted, leave)
    plain = {
        **vars(wanted),
        "channels": {k: list(map(str, v)) for k, v in wanted.channels.items()},
        "golden": str(wanted.golden),
    }
    del plain["machines"]
    told = {
        "settings": world.settings.model_dump_json(),
        "job": plain,
        "lake": str(tmp_path / "lake"),
        "scratch": str(tmp_path / "victim"),
    }
    victim = subprocess.Popen(
        [sys.executable, "-c", WAITER, json.dumps(told)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert "0\n" == victim.stdout.readline()
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        victim.communicate()
    assert [] == list(Path(tmp_path / "victim").glob("*"))
    world.fake.director.release()

    result = platform.client().train(wanted, seen.append)

    check(result, seen, undisturbed)
    assert result.adopted
    assert ["orphan"] == jobs(world, "orphan")
