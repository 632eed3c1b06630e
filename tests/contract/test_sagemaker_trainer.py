"""What training on SageMaker promises beyond every trainer: requests, names, reasons, results."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from trainers import PACE, Aws, bucket_lake
from trainers import Account as World

from ml_control.aws.images import image_uri
from ml_control.aws.trainer import SageMakerTrainer
from ml_control.aws.training import claims
from ml_control.aws.training.files import provide
from ml_control.aws.training.logs import JobLog
from ml_control.aws.training.reasons import why
from ml_control.aws.training.requests import hyperparameters, training, tuning
from ml_control.core.boosters import sniff
from ml_control.core.stopping import ROUNDING
from ml_control.errors import BadObject, Conflict, InvalidSpec, PlatformFailed, Retryable
from ml_control.lake import Lake, file_digest
from ml_control.ports import Search, TrainingJob
from ml_control.settings import AwsSettings
from ml_control.spec import SageMakerTraining

SETTINGS = {
    "num_round": "12",
    "max_depth": "3",
    "objective": "binary:logistic",
    "eval_metric": "logloss",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Channel files of a small table, and golden rows."""
    folder = tmp_path_factory.mktemp("channels")
    random = np.random.default_rng(1)
    rows = random.normal(size=(300, 3)).astype(np.float32)
    labels = (rows[:, 0] + random.normal(scale=0.5, size=300) > 0).astype(int)
    lines = [",".join(map(str, [y, *x])) for y, x in zip(labels, rows.tolist(), strict=True)]
    (folder / "train.csv").write_text("\n".join(lines[:200]) + "\n")
    (folder / "validation.csv").write_text("\n".join(lines[200:]) + "\n")
    golden = "".join(",".join(map(str, row)) + "\n" for row in rows[:20].tolist())
    (folder / "golden.csv").write_text(golden)
    return folder


@pytest.fixture(scope="module")
def job(files):
    """Make a job over the files."""

    def make(name="shop-0123456789abcdef", channels=None, machines=None, **changes):
        usual = {part: [files / f"{part}.csv"] for part in ("train", "validation")}
        settings = {k: v for k, v in {**SETTINGS, **changes}.items() if v is not None}
        return TrainingJob(
            name,
            "3.2-0",
            settings,
            channels or usual,
            files / "golden.csv",
            600.0,
            machines=SageMakerTraining(**(machines or {})),
        )

    return make


@pytest.fixture(scope="module")
def world():
    """An account that the tests of this module share; each takes a job name of its own."""
    world = World()
    yield world
    world.close()


@pytest.fixture
def platform(world, tmp_path):
    """Clients of the account, each on a machine of its own."""
    world.fake.director.reset()
    return Aws(tmp_path, world)


@pytest.fixture(scope="module")
def trained(world, job, tmp_path_factory):
    """A job that completed, its result, and the scratch folder of who waited for it."""
    platform = Aws(tmp_path_factory.mktemp("trained"), world)
    client = platform.client()
    return job(), client.train(job(), lambda _: None), client


def test_the_container_is_asked_as_it_wants_to_be(world, trained):
    """Its image by version, files by manifest, no network, our tags, and strings alone."""
    wanted, _, _ = trained
    told = world.job(wanted.name)
    bucket = world.settings.bucket("artifacts")

    assert told["AlgorithmSpecification"] == {
        "TrainingImage": image_uri("3.2-0", world.settings.region),
        "TrainingInputMode": "File",
    }
    assert SETTINGS == told["HyperParameters"]
    assert told["EnableNetworkIsolation"]
    assert told["OutputDataConfig"]["S3OutputPath"].startswith(f"s3://{bucket}/")
    source = told["InputDataConfig"][0]["DataSource"]["S3DataSource"]
    assert "ManifestFile" == source["S3DataType"]
    key = source["S3Uri"].removeprefix(f"s3://{bucket}/")
    prefix, *names = json.loads(world.lake.get(f"artifacts/{key}"))
    digest = file_digest(wanted.channels["train"][0])
    assert [f"00000-{digest}.csv"] == names
    data = world.lake.get(f"artifacts/{prefix['prefix'].removeprefix(f's3://{bucket}/')}{names[0]}")
    assert wanted.channels["train"][0].read_bytes() == data
    tags = world.api.list_tags(ResourceArn=told["TrainingJobArn"])["Tags"]
    found = {tag["Key"]: tag["Value"] for tag in tags}
    assert world.settings.all_tags.items() <= found.items()
    assert wanted.name == found["ml-control-job"]


def test_the_jobs_own_output_is_never_the_model(world, trained):
    """What is packaged is saved anew; the raw archive has what the container left."""
    wanted, result, _ = trained
    uri = world.job(wanted.name)["ModelArtifacts"]["S3ModelArtifacts"]
    raw = world.lake.get(f"artifacts/{uri.split('/', 3)[3]}")
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        theirs = archive.extractfile("xgboost-model").read()

    ours = sniff(result.model.read_bytes())
    assert ("ubj", (3, 2, 0), 12) == (ours.format, ours.version, ours.rounds)
    assert sniff(theirs).rounds == 12
    assert str(result.model).startswith(str(trained[2]._scratch))
    printed = result.rounds[result.best_iteration].metrics[result.watched]
    assert (printed, ROUNDING) == (result.watched_value, result.rounding)


def test_a_replay_costs_nothing(world, trained):
    """With the result at hand AWS is not asked; elsewhere it comes from the bucket, the same."""
    wanted, first, client = trained
    world.fake.director.reset()
    seen = []

    again = client.train(wanted, seen.append)

    assert {} == world.fake.director.calls()
    assert again.adopted
    assert (first.rounds, first.golden_predictions) == (tuple(seen), again.golden_predictions)


@pytest.mark.parametrize("file", ["model/xgboost-model", "report.json", "done.json"])
def test_a_changed_result_is_fetched_anew(world, trained, file):
    """A file that was touched on this machine is not used, and nothing is trained for it."""
    wanted, first, client = trained
    model, jobs = first.model.read_bytes(), world.jobs()
    with (client._scratch / wanted.name / file).open("ab") as stored:
        stored.write(b" {")

    again = client.train(wanted, lambda _: None)

    assert model == again.model.read_bytes()
    assert jobs == world.jobs()
    assert not [path for path in client._scratch.iterdir() if path.name.startswith(".")]


def test_a_job_whose_log_expired_still_counts(world, trained, platform):
    """What it printed was kept in the bucket."""
    wanted, first, _ = trained
    world.clients().client("logs").delete_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
    seen = []

    again = platform.client().train(wanted, seen.append)

    assert first.rounds == again.rounds == tuple(seen)
    assert first.model.read_bytes() == again.model.read_bytes()


def test_files_are_uploaded_once(world, files, job):
    """The next job with the same files puts nothing; a file that changes meanwhile is refused."""
    lake, settings = world.lake, world.settings
    train = [files / "train.csv"]
    first = provide(lake, settings, train, 1)
    before = sorted(lake.list("artifacts/_training"))

    assert first == provide(lake, settings, train, 1)
    assert before == sorted(lake.list("artifacts/_training"))


def test_a_file_that_changes_under_our_hands_is_not_uploaded(tmp_path, monkeypatch):
    """The object that is named by its content never has another."""
    lake, path = Lake.local(tmp_path / "lake"), tmp_path / "a.csv"
    path.write_bytes(b"1,2\n")
    exists = lake.exists

    def changed(key):
        path.write_bytes(b"9,9\n")
        return exists(key)

    monkeypatch.setattr(lake, "exists", changed)
    with pytest.raises(BadObject, match="changes while it is read"):
        provide(lake, AwsSettings(), [path], 1)

    assert [] == list(lake.list("artifacts/_training"))


def test_every_host_has_a_share_of_whole_lines(tmp_path):
    """Fewer files than hosts are cut into parts that together are the file."""
    lake, path = Lake.local(tmp_path / "lake"), tmp_path / "a.csv"
    path.write_text("".join(f"{n % 2},{n}\n" for n in range(1000)))

    uri = provide(lake, AwsSettings(), [path], 4)

    manifest = json.loads(lake.get("artifacts/" + uri.split("/", 3)[3]))
    parts = [lake.get(f"artifacts/_training/channels/{name}") for name in manifest[1:]]
    assert 4 == len(parts)
    assert all(part.endswith(b"\n") for part in parts)
    assert path.read_bytes() == b"".join(parts)
    path.write_text("1,2\n")
    uri = provide(lake, AwsSettings(), [path], 4)
    assert 2 == len(json.loads(lake.get("artifacts/" + uri.split("/", 3)[3])))


def asked(job, **settings):
    """What SageMaker is asked under these settings."""
    settings = AwsSettings(role_arn="arn:aws:iam::123456789012:role/r", **settings)
    return training(
        settings, job, image="i", manifests={"train": "t", "validation": "v"}, output="o"
    )


def shares(request):
    """How each channel goes to the hosts."""
    return {
        one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3DataDistributionType"]
        for one in request["InputDataConfig"]
    }


def test_machines_are_asked_for_as_the_pipeline_file_says(job):
    """Several instances share the training data alone; spot waits at least as long as it runs."""
    several = asked(
        job(machines={"instance_count": 3, "volume_gb": 50, "instance_type": "ml.c5.xlarge"})
    )
    spot = asked(job(machines={"spot": True, "max_wait": "1 min"}))
    gpu = job(machines={"gpu": True, "instance_count": 2, "instance_type": "ml.g5.2xlarge"})

    assert {"train": "ShardedByS3Key", "validation": "FullyReplicated"} == shares(several)
    assert several["ResourceConfig"] == {
        "InstanceType": "ml.c5.xlarge",
        "InstanceCount": 3,
        "VolumeSizeInGB": 50,
    }
    assert "EnableManagedSpotTraining" not in several
    assert spot["EnableManagedSpotTraining"]
    assert {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 600} == spot["StoppingCondition"]
    assert {"FullyReplicated"} == set(shares(asked(gpu)).values())
    used = hyperparameters(gpu)
    assert ("true", "hist") == (used["use_dask_gpu_training"], used["tree_method"])
    assert "device" not in used


def test_keys_and_networks_are_used_where_they_are_named(job):
    """Volume and output are encrypted; disks of the instance's own cannot be, and are left."""
    key = asked(job(), kms_key="k", subnets=("subnet-1",), security_groups=("sg-1",))
    own = asked(job(machines={"instance_type": "ml.g5.xlarge"}), kms_key="k")

    assert "k" == key["OutputDataConfig"]["KmsKeyId"] == key["ResourceConfig"]["VolumeKmsKeyId"]
    assert {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]} == key["VpcConfig"]
    assert "k" == own["OutputDataConfig"]["KmsKeyId"]
    assert "VolumeKmsKeyId" not in own["ResourceConfig"]
    with pytest.raises(InvalidSpec, match="security_groups"):
        asked(job(), subnets=("subnet-1",))
    with pytest.raises(InvalidSpec, match="role_arn"):
        training(AwsSettings(), job(), image="i", manifests={}, output="o")
    with pytest.raises(InvalidSpec, match="gblinear"):
        hyperparameters(job(booster="gblinear", early_stopping_rounds="3"))


def test_another_installation_of_the_account_is_no_conflict(world, job, trained, tmp_path):
    """Its job has the name; ours takes the next one, and each finds its own again."""
    wanted, first, _ = trained
    other = world.settings.model_copy(update={"project": f"{world.settings.project}x"})
    lake = bucket_lake(other)
    clients = world.clients(project=other.project)

    result = SageMakerTrainer(clients, lake, tmp_path / "a", PACE).train(wanted, lambda _: None)
    again = SageMakerTrainer(clients, lake, tmp_path / "b", PACE).train(wanted, lambda _: None)

    assert (False, True) == (result.adopted, again.adopted)
    assert f"{wanted.name}-2" in world.jobs()
    assert f"{wanted.name}-3" not in world.jobs()
    assert first.golden_predictions == again.golden_predictions


@pytest.mark.parametrize(
    "name", ["a", "a_b-c", "x" * 63, "shop-0123456789abcdef", "a" * 30 + "-" * 30 + "b"]
)
@pytest.mark.parametrize("longest", [32, 63])
def test_names_of_attempts_are_names(name, longest):
    """Every attempt has a name of its own that SageMaker takes, and always the same."""
    import re

    names = list(claims.attempts(name, longest))

    assert claims.TRIES == len(set(names)) == len(names)
    pattern = rf"[a-zA-Z0-9](-*[a-zA-Z0-9]){{0,{longest - 1}}}"
    assert all(re.fullmatch(pattern, one) for one in names)
    assert names == list(claims.attempts(name, longest))
    if len(name) <= longest - 3 and "_" not in name:
        assert [name, f"{name}-2"] == names[:2]


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        (("Failed", "", "CapacityError: Unable to provision requested ML compute capacity."),
         Retryable, "instance_type"),
        (("Failed", "", "InsufficientInstanceCapacity: none"), Retryable, "instance_type"),
        (("Failed", "", "InternalServerError: We encountered an error"), Retryable, "again"),
        (("Failed", "", "ResourceLimitExceeded: The account-level service limit is 0"),
         PlatformFailed, "Service Quotas"),
        (("Failed", "", "AlgorithmError: \nError: Hyperparameter eta: 3 is no\n\n, exit code: 1"),
         InvalidSpec, "training.hyperparameters"),
        (("Failed", "", "ClientError: Extraneous hyperparameter found: foo, exit code: 1"),
         InvalidSpec, "training.hyperparameters"),
        (("Failed", "", "AlgorithmError: framework error: out of memory, exit code: 137"),
         PlatformFailed, "train again"),
        (("Failed", "", ""), PlatformFailed, "train again"),
        (("Stopped", "MaxRuntimeExceeded", ""), PlatformFailed, "training.max_runtime"),
        (("Stopped", "MaxWaitTimeExceeded", ""), Retryable, "max_wait"),
        (("Stopped", "Stopped", ""), Retryable, "new job"),
    ],
)  # fmt: skip
def test_a_failure_is_told_with_its_next_step(told, kind, words):
    """By what AWS and the container say, and for the unknown with the end of the log."""
    status, step, reason = told
    described = {
        "TrainingJobStatus": status,
        "SecondaryStatus": step,
        "FailureReason": reason,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90},
    }

    error = why("training job x", described, "[3]\ttrain-auc:0.5")

    assert kind is type(error)
    assert words in error.next
    if kind is InvalidSpec:
        assert "exit code" not in error.reason
        assert error.reason.startswith(("Hyperparameter eta", "Extraneous"))
    if step == "MaxRuntimeExceeded":
        assert "MaxRuntimeExceeded" in error.reason
    if "out of memory" in reason:
        assert "train-auc:0.5" in error.reason


def hostile(files):
    """An archive with these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"xgboost-model": b"\x80\x04cposix\nsystem\n."}, "pickle"),
        ({"xgboost-model": b"{}", "metrics.json": b"{}"}, "second file"),
        ({"../xgboost-model": b"x"}, "outside"),
        ({}, "no file xgboost-model"),
    ],
)
def test_an_output_that_is_not_one_model_is_not_used(world, trained, platform, members, words):
    """Whatever lies where the job's output was: nothing of it is executed or kept."""
    wanted, _, _ = trained
    uri = world.job(wanted.name)["ModelArtifacts"]["S3ModelArtifacts"]
    key = f"artifacts/{uri.split('/', 3)[3]}"
    kept = world.lake.get(key)
    world.lake.put(key, hostile(members))
    client = platform.client()

    try:
        with pytest.raises(PlatformFailed, match="its output is not used") as caught:
            client.train(wanted, lambda _: None)
    finally:
        world.lake.put(key, kept)

    assert words in caught.value.reason
    assert [] == list(Path(client._scratch).rglob("*model*"))


def test_another_job_of_the_name_is_a_conflict_wherever_it_is_asked(trained, job, platform):
    """Without a result on this machine the job itself tells what it was asked."""
    wanted, _, _ = trained
    with pytest.raises(Conflict, match="other hyperparameters"):
        platform.client().train(job(wanted.name, max_depth="5"), lambda _: None)


def test_results_are_forgotten_but_those_in_use(platform):
    """Only names that match, not the kept, not the newest; and what a killed process left."""
    client, now = platform.client(), time.time()
    ages = {"shop-a": 50, "shop-b": 40, "shop-c": 30, "other-d": 60, ".x.1": 10, ".x.2": 2e5}
    for name, age in ages.items():
        (client._scratch / name).mkdir(parents=True)
        os.utime(client._scratch / name, (now - age, now - age))

    assert 1 == client.tidy("shop-.", ["shop-a"], 1)

    left = {path.name for path in client._scratch.iterdir()}
    assert {"shop-a", "shop-c", "other-d", ".x.1"} == left


def test_an_image_has_a_version_and_a_region():
    """The SDK's table decides; ``latest`` is an old container, and no name of ours."""
    assert image_uri("1.7-1", "us-east-1").endswith("sagemaker-xgboost:1.7-1")
    with pytest.raises(InvalidSpec, match="is not an XGBoost container"):
        image_uri("latest", "us-east-1")
    with pytest.raises(InvalidSpec, match="Unsupported region"):
        image_uri("3.2-0", "xx-west-9")


class Logs:
    """CloudWatch with pages of two lines."""

    def __init__(self, streams):
        self.streams = streams

    def get_paginator(self, _):
        return self

    def paginate(self, **_):
        return [
            {
                "logStreams": [
                    {"logStreamName": n, "creationTime": i} for i, n in enumerate(self.streams)
                ]
            }
        ]

    def get_log_events(self, **asked):
        lines, at = self.streams[asked["logStreamName"]], int(asked.get("nextToken", 0))
        events = [{"message": line} for line in lines[at : at + 2]]
        return {"events": events, "nextForwardToken": str(at + len(events))}

    def client(self, _):
        return self


def test_rounds_are_read_on_and_told_once():
    """Across pages, from the first host alone, also after an interruption began anew."""
    first = ["[0]#011train-auc:0.5", "noise", "[1]#011train-auc:0.6", "[12:00:00] WARNING: x"]
    logs = Logs({"j/algo-1-1": first, "j/algo-2-1": ["[0]#011train-auc:0.1"]})
    log, seen = JobLog(logs, "j"), []
    log.read()
    log.tell(seen.append)
    assert [0.5, 0.6] == [step.metrics["train-auc"] for step in seen]

    logs.streams["j/algo-1-2"] = [f"[{n}]#011train-auc:0.{n + 7}" for n in range(3)]
    log.read()
    log.tell(seen.append)
    assert [0, 1, 2] == [step.index for step in seen]
    assert [0.7, 0.8, 0.9] == [step.metrics["train-auc"] for step in log.rounds]
    assert log.tail(1) == "[2]\ttrain-auc:0.9"


def test_a_tuning_job_searches_where_the_ratio_counts_by_the_ratio(job):
    """Ranges are given as strings, whole numbers apart, and are no fixed hyperparameters."""
    search = Search("s", job(eta="0.1"), {"eta": (0.01, 0.3), "max_depth": (2, 6)},
                    ["max_depth"], ["eta"], 9, 2**31 + 5, 600.0)  # fmt: skip

    request = tuning(search, {}, "logloss")

    config = request["HyperParameterTuningJobConfig"]
    (whole,), (real,) = (
        config["ParameterRanges"][f"{kind}ParameterRanges"] for kind in ("Integer", "Continuous")
    )
    assert ("max_depth", "2", "6", "Linear") == tuple(whole.values())
    assert ("eta", "0.01", "0.3", "Logarithmic") == tuple(real.values())
    assert {"eta", "max_depth"}.isdisjoint(
        request["TrainingJobDefinition"]["StaticHyperParameters"]
    )
    assert (9, 3) == (
        config["ResourceLimits"]["MaxNumberOfTrainingJobs"],
        config["ResourceLimits"]["MaxParallelTrainingJobs"],
    )
    assert 5 == config["RandomSeed"]
    assert "Auto" == config["TrainingJobEarlyStoppingType"]
