"""An installation on ``platform: aws``: an account on emulators, and homes that share it.

A home is one control plane: a folder, an open platform, and nothing else of its own. Two homes of
the same account are two control planes.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from driving import outcome
from emulators import credentials, fresh_settings, moto_url

from ml_control.aws.client import Clients
from ml_control.aws.endpoint_changes import Times
from ml_control.aws.training.waiting import Pace
from ml_control.core.artifact import version_of
from ml_control.core.digests import sha256
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import RawManifest
from ml_control.platform import Platform, open_platform
from ml_control.services.authoring.pipelines import read_folder
from ml_control.services.data.dataset import load_processed, load_raw, read_parquet
from ml_control.services.models.gatekeeper import require_once_proven
from ml_control.services.releases.deployment import answer_golden
from ml_control.settings import AwsSettings, Settings
from ml_control.testing.account import make_account
from ml_control.testing.fault_proxy import FaultProxy
from ml_control.testing.sagemaker import FakeSageMaker

PACE = Pace(first=0.05, longest=0.1)
TIMES = Times(poll=0.02, longest_poll=0.1, stop=30.0, give_up=3.0)
HURRY = 100.0
HOSTED = ("sagemaker", "sagemaker-runtime", "logs")  # answered by the fake; the rest by moto


class Cloud:
    """An account of a test's own, and what its control planes must agree on."""

    def __init__(self, fake: FakeSageMaker, root: Path, pipelines: Path, name: str) -> None:
        self.fake, self.root, self.pipelines, self.name = fake, root, pipelines, name
        fresh = fresh_settings()
        services = dict.fromkeys(HOSTED, fake.url)
        self.settings = make_account(
            fresh.model_copy(update={"endpoint_urls": {**fresh.endpoint_urls, **services}})
        )
        self.clients = Clients(self.settings)  # a person's, beside the control planes
        self.puts: set[tuple[str, str]] = set()  # (key, version) of every object
        self._numbers = itertools.count()

    def through(self, moto: FaultProxy, sagemaker: FaultProxy) -> AwsSettings:
        """The account as it is seen through proxies."""
        urls = {
            service: (sagemaker if service in HOSTED else moto).url
            for service in self.settings.endpoint_urls
        }
        return self.settings.model_copy(update={"endpoint_urls": urls})

    @contextmanager
    def proxied(self, **faults: Any) -> Iterator[tuple[FaultProxy, FaultProxy, AwsSettings]]:
        """Faulty proxies before moto and before the fake, and the account seen through them."""
        with ExitStack() as stack:
            moto = stack.enter_context(FaultProxy(moto_url(), **faults))
            sagemaker = stack.enter_context(FaultProxy(self.fake.url, **faults))
            yield moto, sagemaker, self.through(moto, sagemaker)

    def home(self, aws: AwsSettings | None = None, **changes: Any) -> AwsHome:
        """Another control plane."""
        folder = self.root / f"home-{next(self._numbers)}"
        return AwsHome(self, folder, aws or self.settings, **changes)

    def put(self, day: str, data: bytes) -> str:
        """Put a day's file into the raw bucket, as any client does; its version."""
        key = f"{self.name}/dt={day}/{self.name}.csv"
        bucket = self.settings.bucket("raw")
        put = self.clients.client("s3").put_object(Bucket=bucket, Key=key, Body=data)
        self.puts.add((key, version := str(put["VersionId"])))
        return version

    def send(self, detail: dict[str, Any], id: str) -> None:
        """Bring an event of a schedule to the queue, as EventBridge does."""
        said = {"source": "ml-control.schedule", "id": id, "detail": detail}
        queue = self.settings.queue_url
        self.clients.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(said))

    def jobs(self) -> list[str]:
        """Training jobs of this account, oldest first."""
        found: list[dict[str, Any]] = []
        pages = self.clients.client("sagemaker").get_paginator("list_training_jobs")
        for page in pages.paginate(SortBy="CreationTime", SortOrder="Ascending"):
            found += page["TrainingJobSummaries"]
        names = [str(one["TrainingJobName"]) for one in found]
        return [name for name in names if self._is_ours(name)]

    def _is_ours(self, job: str) -> bool:
        told = self.clients.client("sagemaker").describe_training_job(TrainingJobName=job)
        return str(told["Environment"]["ML_CONTROL_OWNER"]) == f"{self.settings.project}/test"

    def endpoints(self) -> list[str]:
        """Endpoints of this account."""
        told = self.clients.client("sagemaker").list_endpoints(NameContains=self.settings.project)
        return sorted(one["EndpointName"] for one in told["Endpoints"])

    def end(self) -> None:
        """Delete every endpoint, which ends its servers."""
        self.fake.director.reset()
        for name in self.endpoints():
            self.clients.client("sagemaker").delete_endpoint(EndpointName=name)


class AwsHome:
    """One control plane of an account."""

    def __init__(self, cloud: Cloud, folder: Path, aws: AwsSettings, **changes: Any) -> None:
        self.cloud, self.folder = cloud, folder
        given = {"lease_seconds": 2.0, "retry_seconds": 0.0, **changes}
        self.settings = Settings(
            platform="aws", aws=aws, home=folder, pipelines=cloud.pipelines, **given
        )
        self.platform: Platform = quick(open_platform(self.settings))
        self.pipeline: Pipeline = read_folder(cloud.pipelines).get(cloud.name)
        self.registry = self.platform.registry

    def outcome(self) -> dict[str, Any]:
        """What the registry says at the end, without what differs between equal runs: the versions
        of objects, which S3 chooses. They are those that were put.
        """
        found = outcome(self.registry, self.cloud.name)
        events = found["events"]
        assert self.cloud.puts == {(key, version) for key, version, _ in events}
        partitions = [
            (state.partition, [(item.key, item.digest, item.rows) for item in raw.objects])
            for state in self.registry.partitions.all(self.cloud.name)
            if (raw := load_raw(self.platform, state)) is not None
        ]
        events = sorted((key, state) for key, _, state in events)
        return {**found, "partitions": partitions, "events": events}

    def check_ledger(self) -> None:
        """Every object put has its one record, and done means in the published manifest."""
        name = self.cloud.name
        events = list(self.registry.ledger.events(name))
        manifests = {}
        for state in self.registry.partitions.all(name):
            raw = load_raw(self.platform, state)
            assert isinstance(raw, RawManifest)
            manifests[state.partition] = raw
            assert state.processed is not None
            assert raw.digest == state.processed_from
            processed = load_processed(self.platform, state.processed.path, state.processed.digest)
            ids = [row for file in processed.files
                   for row in read_parquet(self.platform, file)["row_id"]]  # fmt: skip
            assert raw.rows == len(ids)
            assert raw.rows == len(set(ids))
        listed = {(item.key, item.version) for raw in manifests.values() for item in raw.objects}

        assert sorted(self.cloud.puts) == sorted((e.key, e.version) for e in events)
        assert listed == {(e.key, e.version) for e in events if e.state == "done"}

    def check_serving(self) -> None:
        """Each variant serves exactly the bytes that its verdict passed; the history verifies."""
        name = self.cloud.name
        rollout = self.registry.rollouts.get(name)
        for entry in rollout.variants.values():
            verdicts = self.registry.models.verdicts(name, entry.model_version)
            assert [True] == [v.passed for v in verdicts if v.key == entry.verdict]
            model = self.registry.models.get(name, entry.model_version)
            found = {
                file: sha256(self.platform.lake.get(f"{model.prefix}/{file}"))
                for file in model.files
            }
            assert entry.model_version == version_of(found)
            state = self.platform.endpoints.describe(entry.endpoint)
            assert "InService" == state.state
            assert entry.model_version == state.model_version
            assert found["model.tar.gz"] == state.detail["archive_sha256"]
            proven = require_once_proven(self.platform, self.pipeline, entry.model_version)
            assert answer_golden(self.platform, entry.endpoint, proven) > 0
        assert len(rollout.variants) == len(self.cloud.endpoints())
        self.registry.history.verify(name)


def quick(platform: Platform) -> Platform:
    """The same, looking at jobs and endpoints of an emulator as often as it changes them."""
    platform.trainer._pace = PACE  # type: ignore[attr-defined]
    platform.endpoints._changes.times = TIMES  # type: ignore[attr-defined]
    platform.notifications._wait = 0  # type: ignore[attr-defined]
    return platform


@contextmanager
def hurried() -> Iterator[None]:
    """botocore's clock runs a hundred times as fast: it waits hundredths of the time before it
    tries again, and as adaptive retries slow it down.
    """
    from botocore import endpoint
    from botocore.retries.bucket import Clock, TokenBucket

    amount, now = TokenBucket._sleep_amount, Clock.current_time
    fast = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / HURRY))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(endpoint, "time", fast)
        patched.setattr(Clock, "current_time", lambda self: now(self) * HURRY)
        patched.setattr(TokenBucket, "_sleep_amount", lambda self, n: amount(self, n) / HURRY)
        yield


@contextmanager
def cloud_on(fake: FakeSageMaker, root: Path, pipelines: Path, name: str) -> Iterator[Cloud]:
    """An account with nothing in it; its endpoints end with it."""
    with credentials():
        cloud = Cloud(fake, root, pipelines, name)
        try:
            yield cloud
        finally:
            cloud.end()


def aws_variables(settings: AwsSettings) -> dict[str, str]:
    """The settings as the environment says them."""
    told = {}
    for name, value in settings.model_dump(exclude_defaults=True).items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        if isinstance(value, (list, tuple)):
            text = ",".join(value)
        told[f"ML_CONTROL_AWS_{name.upper()}"] = text
    return told
