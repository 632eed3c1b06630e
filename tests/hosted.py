"""SageMaker on this machine: moto's S3, the fake's endpoints, and any number of control planes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from emulators import REGION, credentials, fresh_settings, moto_url

from ml_control.aws.client import Clients
from ml_control.aws.endpoint_changes import Times
from ml_control.aws.endpoints import SageMakerEndpoints
from ml_control.aws.lake import open_lake
from ml_control.lake import AREAS
from ml_control.local.registry import SqliteTables
from ml_control.testing.sagemaker import FakeSageMaker

SPEED = 3000.0  # times as fast as AWS
TAG = "3.2-0"
WAIT = 60.0
QUICK = Times(poll=0.02, longest_poll=0.05, stop=30.0, give_up=3.0)


class Hosted:
    """A project of its own in the account that a fake plays."""

    def __init__(self, fake: FakeSageMaker, place: Path, **changes: Any) -> None:
        self.fake = fake
        self.place = place
        self.director = fake.director
        services = dict.fromkeys(("sagemaker", "sagemaker-runtime", "logs"), fake.url)
        fresh = fresh_settings(role_arn="arn:aws:iam::123456789012:role/sagemaker", **changes)
        self.settings = fresh.model_copy(
            update={"endpoint_urls": {**fresh.endpoint_urls, **services}}
        )
        self.opened: list[SqliteTables] = []
        s3 = self.clients.client("s3")
        for area in AREAS:
            bucket = self.settings.bucket(area)
            where = {"LocationConstraint": REGION}
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        self.lake = open_lake(self.clients)

    @cached_property
    def clients(self) -> Clients:
        """Clients as a person's, beside the control plane."""
        return Clients(self.settings)

    @property
    def sagemaker(self) -> Any:
        """SageMaker as a person's."""
        return self.clients.client("sagemaker")

    def control_plane(self, times: Times = QUICK, **changes: Any) -> SageMakerEndpoints:
        """Another process's endpoints: clients, registry connection and memory of its own."""
        self.opened.append(SqliteTables(self.place / "registry.db"))
        settings = self.settings.model_copy(update=changes)
        clients = Clients(settings)
        made = SageMakerEndpoints(
            clients, open_lake(clients), self.opened[-1], times=times, fresh_seconds=0.0
        )
        made._root = self.fake.home / "endpoints" / settings.project  # where its servers run
        return made

    def real(self, name: str) -> str:
        """SageMaker's name of an endpoint."""
        return f"{self.settings.project}-{name}-test"

    def status(self, name: str) -> str:
        """SageMaker's own word for an endpoint."""
        try:
            return str(self.sagemaker.describe_endpoint(EndpointName=self.real(name))[
                "EndpointStatus"
            ])  # fmt: skip
        except self.sagemaker.exceptions.ClientError:
            return "absent"

    def left(self) -> dict[str, list[str]]:
        """Everything of this project that is there, by kind."""
        sagemaker, ours = self.sagemaker, self.settings.project
        endpoints = sagemaker.list_endpoints(NameContains=ours)["Endpoints"]
        configs = sagemaker.list_endpoint_configs(NameContains=ours)["EndpointConfigs"]
        models = sagemaker.list_models(NameContains=ours)["Models"]
        return {
            "endpoints": sorted(item["EndpointName"] for item in endpoints),
            "configs": sorted(item["EndpointConfigName"] for item in configs),
            "models": sorted(item["ModelName"] for item in models),
            "archives": list(self.lake.list("artifacts/_served")),
        }

    def end(self) -> None:
        """Delete every endpoint and close what was opened."""
        self.director.reset()
        keeper = self.control_plane()
        for name in self.left()["endpoints"]:
            keeper.stop(name.removeprefix(f"{self.settings.project}-").removesuffix("-test"))
        for tables in self.opened:
            tables.close()


@contextmanager
def running_fake(folder: Path) -> Iterator[FakeSageMaker]:
    """A fake that works on moto's S3; one is enough for a whole session."""
    with (
        credentials(),
        FakeSageMaker(s3=moto_url(), home=folder, region=REGION, speed=SPEED) as fake,
    ):
        yield fake


def booster(rounds):
    """A small model as UBJ."""
    import numpy as np
    import xgboost

    rows = np.arange(80, dtype=np.float32).reshape(20, 4)
    matrix = xgboost.DMatrix(rows, rows[:, 0] > 30)
    return bytes(xgboost.train({"objective": "binary:logistic"}, matrix, rounds).save_raw("ubj"))


def put(plane, archive, name="income-a", version="v1", **more):
    """Deploy an archive."""
    return plane.deploy(name, archive, version, TAG, more.pop("timeout", WAIT), **more)


def soon(check):
    """Wait until it is true."""
    deadline = time.monotonic() + WAIT
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def by_hand(hosted, archive, name="income-a", *, variables=None, image="", done=True):
    """Update an endpoint to a model of somebody's own, which may claim to be ours.

    ``archive`` None: the one that serves. ``variables`` are the container's; ours if None.
    """
    sagemaker, mine = hosted.sagemaker, f"{hosted.settings.project}-mine"
    running = sagemaker.describe_endpoint(EndpointName=hosted.real(name))
    config = sagemaker.describe_endpoint_config(EndpointConfigName=running["EndpointConfigName"])
    (variant,) = config["ProductionVariants"]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    container = dict(model["PrimaryContainer"])
    if variables is not None:
        container["Environment"] = variables
    if image:
        container["Image"] = image
    if archive is not None:
        hosted.lake.put("artifacts/mine/model.tar.gz", archive)
        container["ModelDataUrl"] = hosted.lake.uri("artifacts/mine/model.tar.gz")
    sagemaker.create_model(
        ModelName=mine, PrimaryContainer=container, ExecutionRoleArn=model["ExecutionRoleArn"]
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName=mine, ProductionVariants=[{**variant, "ModelName": mine}]
    )
    sagemaker.update_endpoint(EndpointName=hosted.real(name), EndpointConfigName=mine)
    if done:
        soon(lambda: hosted.status(name) == "InService")
