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
from ml_control.aws.training.files import provide
from ml_control.core.boosters import sniff
from ml_control.core.stopping import ROUNDING
from ml_control.errors import BadObject, Conflict, PlatformFailed
from ml_control.lake import Lake, file_digest
from ml_control.ports import TrainingJob
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
