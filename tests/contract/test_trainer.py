"""What every trainer promises, with real training processes."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xgboost
from trainers import cells, channel_files, in_background, loaded, make

from ml_control.errors import Conflict, InvalidSpec, PlatformFailed, Retryable
from ml_control.ports import TrainingJob

SETTINGS = {
    "num_round": "40",
    "max_depth": "3",
    "eta": "0.9",
    "objective": "binary:logistic",
    "eval_metric": "auc,logloss",
    "early_stopping_rounds": "4",
}


@pytest.fixture(params=["local", "aws"])
def platform(request, tmp_path):
    """Each platform, with any number of clients."""
    platform = make(request.param, tmp_path)
    yield platform
    platform.close()


@pytest.fixture
def trainer(platform):
    """A client of each platform's trainer."""
    return platform.client()


@pytest.fixture
def local_trainer(tmp_path):
    """The local trainer, where a promise is about processes and files of this machine."""
    platform = make("local", tmp_path)
    yield platform.client()
    platform.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Channel files with missing values in two parts, and golden rows without a label."""
    return channel_files(tmp_path_factory.mktemp("channels"))


@pytest.fixture(scope="module")
def job(data):
    """Make a job over the channel files."""

    def make(name="job-1", container="3.2-0", max_runtime=120.0, channels=None, **changes):
        folder = data["folder"]
        usual = {
            "train": [folder / "train-1.csv", folder / "train-2.csv"],
            "validation": [folder / "validation.csv"],
        }
        settings = {key: text for key, text in {**SETTINGS, **changes}.items() if text is not None}
        return TrainingJob(
            name, container, settings, channels or usual, folder / "golden.csv", max_runtime
        )

    return make


@pytest.fixture(scope="module", params=["local", "aws"])
def finished(request, tmp_path_factory, job):
    """Each platform after one job; what is asked of it changes nothing."""
    platform = make(request.param, tmp_path_factory.mktemp(request.param))
    seen = []
    platform.first = platform.client().train(job(), seen.append)
    platform.seen = seen
    yield platform
    platform.close()


def endless(job, name="endless"):
    """A job that runs until somebody ends it."""
    return job(name, num_round="1000000", early_stopping_rounds=None)


def process_of(trainer, wanted):
    """(pid, start time) of a job's process."""
    record = json.loads((trainer._root / wanted.name / "process.json").read_text())
    return record["pid"], record["started"]


def test_the_result_is_what_xgboost_trains(finished, data):
    """Trees, metrics, the chosen round and golden predictions equal a training of our own."""
    result, seen = finished.first, finished.seen

    rows, labels = data["rows"], data["labels"]
    train = xgboost.DMatrix(rows[:1000], labels[:1000])
    validation = xgboost.DMatrix(rows[1000:1200], labels[1000:1200])
    history = {}
    params = {"max_depth": 3, "eta": 0.9, "objective": "binary:logistic", "nthread": 1}
    booster = xgboost.train(
        {**params, "eval_metric": ["auc", "logloss"]},
        train,
        40,
        evals=[(train, "train"), (validation, "validation")],
        evals_result=history,
        early_stopping_rounds=4,
        verbose_eval=False,
    )
    best = booster.best_iteration
    want = booster.predict(xgboost.DMatrix(rows[1200:]), iteration_range=(0, best + 1))
    losses = history["validation"]["logloss"]
    assert result.best_iteration == best < len(losses) - 1
    assert result.watched == "validation-logloss"
    assert result.watched_value == losses[best] == min(losses)
    assert [[value] for value in want.tolist()] == result.golden_predictions
    assert list(result.rounds) == seen
    assert list(range(len(losses))) == [round.index for round in seen]
    assert {"train-auc", "train-logloss", "validation-auc", "validation-logloss"} == set(
        seen[0].metrics
    )
    assert [round(value, 5) for value in losses] == [r.metrics["validation-logloss"] for r in seen]
    assert result.seconds > 0
    assert not result.adopted


def test_a_server_that_uses_all_trees_uses_the_right_ones(finished, data):
    """The model file is cut to the chosen round and predicts the golden rows bit for bit."""
    result = finished.first

    booster = loaded(result)
    answers = booster.predict(xgboost.DMatrix(data["rows"][1200:]))
    assert booster.num_boosted_rounds() == result.best_iteration + 1
    assert [[value] for value in answers.tolist()] == result.golden_predictions
    assert [result.model.name] == [path.name for path in result.model.parent.iterdir()]


def test_equal_jobs_give_equal_bytes(finished, job):
    """Training is deterministic: another job with the same inputs leaves the same model."""
    another = finished.client().train(job("job-2"), lambda _: None)

    assert finished.first.model.read_bytes() == another.model.read_bytes()


def test_a_finished_job_is_adopted(finished, job):
    """The second request of a name trains nothing, and reports the same rounds and result."""
    first = finished.first
    started, seen = finished.started(), []

    second = finished.client().train(job(), seen.append)

    assert second.adopted
    assert started == finished.started()
    assert first.rounds == second.rounds == tuple(seen)
    assert first.golden_predictions == second.golden_predictions
    assert first.model.read_bytes() == second.model.read_bytes()


@pytest.mark.parametrize("file", ["model/xgboost-model", "output/data/golden.json", "log.txt"])
def test_a_changed_result_is_not_adopted(local_trainer, job, file):
    """A finished job whose files were touched is trained again from scratch."""
    trainer = local_trainer
    first = trainer.train(job(), lambda _: None)
    model = first.model.read_bytes()
    with (trainer._root / "job-1" / file).open("ab") as stored:
        stored.write(b" ")

    second = trainer.train(job(), lambda _: None)

    assert not second.adopted
    assert model == second.model.read_bytes()


def test_two_callers_share_one_job(platform, trainer, job):
    """Of two callers at once, from two clients, one starts the job and both get its result."""
    other, wanted = platform.client(), job()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(t.train, wanted, lambda _: None) for t in (trainer, other)]
        results = [future.result() for future in futures]

    assert sorted(result.adopted for result in results) == [False, True]
    assert results[0].model.read_bytes() == results[1].model.read_bytes()
    assert results[0].rounds == results[1].rounds
    assert 1 == len(platform.started())


def test_a_running_job_outlives_its_caller_and_is_adopted(platform, trainer, job):
    """A caller that goes away leaves the job running; the next one tails all of it."""

    class GoneError(Exception):
        pass

    def leave(_):
        raise GoneError

    wanted = job(num_round="400", early_stopping_rounds=None)
    with pytest.raises(GoneError):
        trainer.train(wanted, leave)
    started, seen = platform.started(), []

    result = platform.client().train(wanted, seen.append)

    assert result.adopted
    assert started == platform.started()
    assert 1 == len(started)
    assert list(range(400)) == [round.index for round in seen]


def test_a_killed_job_is_retryable_and_starts_from_scratch(local_trainer, job):
    """A process ended from outside is no failure of the job: the next request trains it anew."""
    trainer = local_trainer
    wanted = endless(job)
    future, began = in_background(trainer, wanted)
    assert began.wait(60)

    os.kill(process_of(trainer, wanted)[0], signal.SIGKILL)

    with pytest.raises(Retryable, match="ended from outside"):
        future.result(60)
    leftover = trainer._root / wanted.name / "output" / "leftover"
    leftover.write_text("of the first attempt")
    first = process_of(trainer, wanted)
    future, began = in_background(trainer, wanted)
    assert began.wait(60)
    assert first != process_of(trainer, wanted)
    assert not leftover.exists()
    assert trainer.stop() == 1
    with pytest.raises(Retryable):
        future.result(60)


def test_a_job_that_runs_too_long_is_ended(platform, trainer, job):
    """Past max_runtime the job is gone and the error says so."""
    wanted = endless(job)
    wanted = TrainingJob(**{**vars(wanted), "max_runtime": 4.0})
    began = time.monotonic()

    with pytest.raises(PlatformFailed, match="MaxRuntimeExceeded"):
        trainer.train(wanted, lambda _: None)

    assert time.monotonic() - began < 30
    assert 1 == len(platform.started())
    assert [] == platform.running()


def test_a_job_that_is_ended_is_not_adopted(platform, trainer, job):
    """Who waits for it learns that it may be asked for again; the next request starts anew."""
    wanted = endless(job)
    future, began = in_background(trainer, wanted)
    assert began.wait(60)

    platform.client().end(wanted.name)

    with pytest.raises(Retryable, match="ended from outside"):
        future.result(60)
    before = platform.started()
    future, began = in_background(trainer, wanted)
    assert began.wait(60)
    assert before != platform.started()
    trainer.end(wanted.name)
    with pytest.raises(Retryable):
        future.result(60)
    trainer.end("no-such-job")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_round": None}, "Missing required hyperparameter: num_round"),
        ({"eta": "3.0"}, "Hyperparameter eta: 3.0 is not in [0, 1]"),
    ],
)
def test_refused_hyperparameters_are_an_invalid_spec(trainer, job, changes, words):
    """A refusal of the job is the pipeline file's mistake, with the container's words."""
    with pytest.raises(InvalidSpec) as caught:
        trainer.train(job(**changes), lambda _: None)

    assert words == caught.value.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,a,b\n1,2,3\n", dict.fromkeys(("local", "aws"), "begins with a header")),
        (
            "1,2,3,4\n0,2,3,4\n",
            {
                "local": "channel validation has 5 features, channel train has 3",
                "aws": "Number of columns does not match number of features",
            },
        ),
        (
            "7,1,2,3,4,5\n0,1,2,3,4,5\n",
            {"local": "framework error: XGBoostError", "aws": "AlgorithmError: framework error"},
        ),
    ],
)
def test_unusable_training_data_is_a_failure_in_its_own_words(
    platform, trainer, job, data, tmp_path, text, words
):
    """Bad channel files end the job with a text that names the place, and no model."""
    bad = tmp_path / "bad.csv"
    bad.write_text(text)
    channels = {"train": [bad], "validation": [data["folder"] / "validation.csv"]}

    with pytest.raises(PlatformFailed) as caught:
        trainer.train(job(channels=channels), lambda _: None)

    assert words[platform.name] in caught.value.reason
    assert [] == list(platform.root.rglob("xgboost-model"))


def test_a_failed_job_can_be_tried_again(trainer, job, data, tmp_path):
    """A failure is not adopted: the same name trains once its inputs are right."""
    part = tmp_path / "part.csv"
    part.write_text("nonsense\n")
    channels = {"train": [part], "validation": [data["folder"] / "validation.csv"]}
    with pytest.raises(PlatformFailed):
        trainer.train(job(channels=channels), lambda _: None)
    part.write_text((data["folder"] / "train-1.csv").read_text())

    result = trainer.train(job(channels=channels), lambda _: None)

    assert not result.adopted
    assert result.model.exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "x" * 64, "a b"])
def test_a_name_that_is_no_name_is_refused(trainer, job, name):
    """A job's name cannot point outside the jobs' folder."""
    with pytest.raises(InvalidSpec, match="not a usable name"):
        trainer.train(job(name), lambda _: None)


def test_one_name_is_one_job(finished, job):
    """Other hyperparameters under the name of an existing job are a conflict, not its result."""
    with pytest.raises(Conflict, match="other hyperparameters"):
        finished.client().train(job(max_depth="4"), lambda _: None)


def test_multiclass_predictions_have_one_column_a_class(trainer, job, data, tmp_path):
    """Golden predictions of softprob are rows of class probabilities, from 64-bit-safe floats."""
    rows, path = data["rows"], tmp_path / "three.csv"
    labels = np.arange(300) % 3
    path.write_text("".join(f"{y},{cells(x)}\n" for y, x in zip(labels, rows[:300], strict=True)))
    settings = {"objective": "multi:softprob", "num_class": "3", "eval_metric": "mlogloss"}

    result = trainer.train(
        job(channels={"train": [path]}, early_stopping_rounds=None, num_round="3", **settings),
        lambda _: None,
    )

    got = np.array(result.golden_predictions, dtype=np.float32)
    want = loaded(result).predict(xgboost.DMatrix(rows[1200:]))
    assert want.tobytes() == got.tobytes()
    assert got.shape == (100, 3)
    assert result.watched == "train-mlogloss"
    assert result.best_iteration == 2


@pytest.mark.parametrize("container", ["1.5-1", "1.7-1"])
def test_older_containers_train_in_their_own_version(trainer, job, container, tmp_path):
    """The job runs on the container's XGBoost and leaves a model that this version loads."""
    import subprocess

    from ml_control.core.boosters import compatible, sniff
    from ml_control.core.containers import container as container_of
    from ml_control.environments import python_for

    result = trainer.train(job(container=container), lambda _: None)

    booster = sniff(result.model.read_bytes())
    wanted = container_of(container)
    assert compatible(booster.version, wanted, format=booster.format) is None
    golden = tmp_path / "golden.csv"
    golden.write_bytes(job().golden.read_bytes())
    request = {"model": str(result.model), "inputs": {"golden": str(golden)}}
    request["output"] = str(golden.parent)
    subprocess.run(
        [python_for(wanted), "-m", "ml_control.serving.proving"],
        input=json.dumps(request).encode(),
        check=True,
        cwd="/",
    )
    want = np.array(result.golden_predictions, dtype=np.float32).ravel()
    assert want.tobytes() == np.load(golden.parent / "golden.npy").tobytes()
    assert Path(result.model).name == "xgboost-model"
