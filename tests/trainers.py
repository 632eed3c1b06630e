"""Each platform's trainer with what belongs to it, for suites that always use two clients."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from emulators import credentials, fresh_settings

from ml_control.aws.client import Clients
from ml_control.aws.lake import open_lake
from ml_control.aws.trainer import SageMakerTrainer
from ml_control.aws.training.waiting import Pace
from ml_control.lake import Lake
from ml_control.local.files import read_json
from ml_control.local.processes import alive
from ml_control.local.trainer import LocalTrainer
from ml_control.testing.account import make_buckets

PACE = Pace(first=0.05, longest=0.1)


def bucket_lake(settings: Any) -> Lake:
    """A lake in the buckets of these settings, which are made."""
    clients = Clients(settings)
    make_buckets(clients)
    return open_lake(clients)


class Account:
    """An AWS account of a test's own: buckets on moto, and a SageMaker that really trains."""

    def __init__(self, **fake: Any) -> None:
        from ml_control.testing.sagemaker import FakeSageMaker

        self._stack = ExitStack()
        self._stack.enter_context(credentials())
        settings = fresh_settings()
        options = {"region": settings.region, "speed": 5000.0, **fake}
        self.fake = self._stack.enter_context(
            FakeSageMaker(settings.endpoint_urls["s3"], **options)
        )
        ours = dict.fromkeys(("sagemaker", "sagemaker-runtime", "logs"), self.fake.url)
        self.settings = settings.model_copy(
            update={
                "endpoint_urls": {**settings.endpoint_urls, **ours},
                "role_arn": "arn:aws:iam::123456789012:role/sagemaker",
            }
        )
        self.lake = bucket_lake(self.settings)

    def clients(self, **changes: Any) -> Clients:
        """Clients of their own, with other settings where named."""
        return Clients(self.settings.model_copy(update=changes))

    @property
    def api(self) -> Any:
        """boto3's client, as any user has it."""
        return Clients(self.settings).client("sagemaker")

    def jobs(self, status: str = "") -> list[str]:
        """Names of the training jobs, oldest first."""
        more = {"StatusEquals": status} if status else {}
        pages = self.api.get_paginator("list_training_jobs").paginate(
            SortBy="CreationTime", SortOrder="Ascending", **more
        )
        return [one["TrainingJobName"] for page in pages for one in page["TrainingJobSummaries"]]

    def job(self, name: str) -> dict[str, Any]:
        """What SageMaker says of a training job."""
        found: dict[str, Any] = self.api.describe_training_job(TrainingJobName=name)
        return found

    def close(self) -> None:
        """End the fake."""
        self._stack.close()


@dataclass
class Local:
    """Training on this machine."""

    root: Path
    name = "local"

    def client(self) -> LocalTrainer:
        """A client of its own."""
        return LocalTrainer(self.root / "jobs", threads=1)

    def started(self) -> list[Any]:
        """What was started so far: a process for each job."""
        return [read_json(path) for path in sorted((self.root / "jobs").glob("*/process.json"))]

    def running(self) -> list[Any]:
        """What runs now."""
        return [one for one in self.started() if alive(one["pid"], one["started"])]

    def close(self) -> None:
        """End what runs."""
        self.client().stop()


class Aws:
    """Training on SageMaker; each client is on a machine of its own."""

    name = "aws"

    def __init__(self, root: Path, account: Account) -> None:
        self.root, self.account = root, account
        self._machines = itertools.count()

    def client(self) -> SageMakerTrainer:
        """A client on another machine: nothing is in its scratch folder."""
        scratch = self.root / f"scratch-{next(self._machines)}"
        return SageMakerTrainer(self.account.clients(), self.account.lake, scratch, PACE)

    def started(self) -> list[Any]:
        """Every job that SageMaker was given."""
        return self.account.jobs()

    def running(self) -> list[Any]:
        """What runs now."""
        return self.account.jobs("InProgress")

    def close(self) -> None:
        """End the account."""
        self.account.close()


def make(platform: str, root: Path) -> Local | Aws:
    """The trainer's platform of this name."""
    return Local(root) if platform == "local" else Aws(root, Account())


def channel_files(folder: Path) -> dict[str, Any]:
    """Write channel files with missing values in two parts, and golden rows without a label."""
    random = np.random.default_rng(7)
    rows = random.normal(size=(1300, 5)).astype(np.float32)
    rows[random.random(rows.shape) < 0.1] = np.nan
    noise = random.normal(scale=0.7, size=1300)
    labels = (np.nan_to_num(rows[:, 0]) - np.nan_to_num(rows[:, 1]) + noise > 0).astype(int)
    parts = {
        "train-1": slice(0, 500),
        "train-2": slice(500, 1000),
        "validation": slice(1000, 1200),
    }
    for name, part in parts.items():
        text = [f"{y},{cells(x)}" for y, x in zip(labels[part], rows[part], strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(text) + "\n")
    (folder / "golden.csv").write_text("\n".join(map(cells, rows[1200:])) + "\n")
    return {"folder": folder, "rows": rows, "labels": labels}


def cells(row: Any) -> str:
    """A row as CSV; a missing value is an empty cell."""
    return ",".join("" if np.isnan(value) else repr(float(value)) for value in row)


def loaded(result: Any) -> Any:
    """The booster that a job left."""
    booster = xgboost.Booster()
    booster.load_model(bytearray(result.model.read_bytes()))
    return booster


def in_background(trainer: Any, wanted: Any) -> Any:
    """Start training in a thread; (future, event that is set at the first round)."""
    began = threading.Event()
    pool = ThreadPoolExecutor(1)
    future = pool.submit(trainer.train, wanted, lambda _: began.set())
    pool.shutdown(wait=False)
    return future, began
