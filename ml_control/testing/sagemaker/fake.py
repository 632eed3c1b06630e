"""``FakeSageMaker``: the whole of it in one object."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ml_control.testing.sagemaker.application import Application
from ml_control.testing.sagemaker.capture import Capture
from ml_control.testing.sagemaker.configs import Configs
from ml_control.testing.sagemaker.director import Director
from ml_control.testing.sagemaker.endpoints import Endpoints
from ml_control.testing.sagemaker.fleet import Fleet
from ml_control.testing.sagemaker.http import Server
from ml_control.testing.sagemaker.invoke import Runtime
from ml_control.testing.sagemaker.jobs import TrainingJobs
from ml_control.testing.sagemaker.logs import Logs
from ml_control.testing.sagemaker.models import Models
from ml_control.testing.sagemaker.state import Account, Times
from ml_control.testing.sagemaker.storage import Storage
from ml_control.testing.sagemaker.tags import Tags
from ml_control.testing.sagemaker.transform import TransformJobs
from ml_control.testing.sagemaker.tuning import TuningJobs

ACCOUNT = "123456789012"
SPEED = 1000.0


class FakeSageMaker:
    """A stateful SageMaker on a loopback port, for unmodified boto3.

    Use it as a context manager. ``url`` is the endpoint URL of the services ``sagemaker``,
    ``sagemaker-runtime`` and ``logs``; ``director`` says what is to go wrong. State lives in
    memory, as long as this object is open; closing ends every process that it started.
    """

    def __init__(
        self,
        s3: str | Mapping[str, Any],
        home: Path | None = None,
        *,
        seed: int = 0,
        speed: float = SPEED,
        times: Times | None = None,
        clock: Callable[[], float] = time.time,
        region: str = "us-east-1",
        account: str = ACCOUNT,
        port: int = 0,
    ) -> None:
        """``s3`` is an S3 endpoint's URL, or keyword arguments for ``boto3.client("s3", ...)``.

        ``home`` is where jobs and servers work; a temporary folder when None. ``speed`` divides
        the times that AWS takes (``times``); training and loading take what they take. ``clock``
        gives the time in seconds since the epoch that answers and logs carry. ``region`` is that
        of the images and ARNs.
        """
        if speed <= 0:
            raise ValueError(f"speed must be positive, not {speed}")
        self._temporary = home is None
        self.home = (home or Path(tempfile.mkdtemp(prefix="fake-sagemaker-"))).absolute()
        self.home.mkdir(parents=True, exist_ok=True)
        self.director = Director(seed)
        self._account = Account(
            account=account, region=region, speed=speed, times=times or Times(), clock=clock
        )
        logs = Logs(lambda rest: f"arn:aws:logs:{region}:{account}:{rest}", clock)
        storage, tags = Storage(s3, region), Tags(self._account)
        self._storage = storage
        world = self._account, logs, storage, self.director
        jobs = TrainingJobs(*world, tags, self.home)
        self._endpoints = Endpoints(self._account, Fleet(*world, self.home), self.director, tags)
        self._runtime = Runtime(
            self._account, self.director, Capture(self._account, storage, self.director)
        )
        operations = {
            **jobs.operations,
            **Models(self._account, storage, tags).operations,
            **Configs(self._account, tags, self.director).operations,
            **self._endpoints.operations,
            **TuningJobs(self._account, jobs, self.director, tags).operations,
            **TransformJobs(*world, tags, self.home).operations,
            "AddTags": tags.add,
            "ListTags": tags.listed,
            "DeleteTags": tags.delete,
        }
        self._server = Server(port)
        self._application = Application(
            {"SageMaker": operations, "Logs_20140328": logs.operations},
            self._runtime,
            self.director,
        )
        self._started = False

    @property
    def url(self) -> str:
        """The endpoint URL for boto3."""
        return self._server.url

    def start(self) -> FakeSageMaker:
        """Answer requests from now on."""
        _ = self._storage.client  # made while there is one thread
        self._server.start(self._application)
        self._started = True
        return self

    def close(self) -> None:
        """Answer no more and end every process of a job or endpoint."""
        if self._started:
            self._started = False
            self._server.stop()
            self._account.close()
            self._endpoints.close()
            self._runtime.close()
        if self._temporary:
            shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> FakeSageMaker:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
