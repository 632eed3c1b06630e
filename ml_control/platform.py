"""The one place that chooses a platform. It knows no Dagster, so that every process starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ml_control.errors import PlatformFailed
from ml_control.lake import Lake
from ml_control.ports import (
    Alarms,
    Alerts,
    BatchScorer,
    Endpoints,
    Metrics,
    Notifications,
    PredictionLog,
    Stream,
    Trainer,
)
from ml_control.registry import Registry
from ml_control.settings import Settings


@dataclass(frozen=True)
class Platform:
    """Everything that the services need, as ports."""

    settings: Settings
    lake: Lake
    registry: Registry
    notifications: Notifications
    trainer: Trainer
    endpoints: Endpoints
    alerts: Alerts
    log: PredictionLog
    stream: Stream
    metrics: Metrics | None = None  # beside the gateway's /metrics, where the platform keeps them
    alarms: Alarms | None = None
    scorer: BatchScorer | None = None  # where the data is; this machine, if there is none

    def scratch(self, place: str) -> Path:
        """The folder of derived files on this machine that is named by a lake key; made if absent.

        In a local lake it is the folder of that key; elsewhere it is below the home and may vanish
        with the machine: what is in it can be made anew. Raises ``PlatformFailed``.
        """
        if self.settings.platform == "local":
            return self.lake.local_path(f"{place}/file").parent
        folder = self.settings.home / "scratch" / place
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlatformFailed(
                str(folder),
                f"could not be made: {error}",
                "free space or check permissions, then retry",
            ) from error
        return folder


@lru_cache(maxsize=8)
def open_platform(settings: Settings) -> Platform:
    """The platform of these settings; one per process. Makes the home's folders.

    Raises ``InvalidSpec`` for settings that lack something, and on AWS its errors.
    """
    return _on_aws(settings) if settings.platform == "aws" else _on_this_machine(settings)


def _on_this_machine(settings: Settings) -> Platform:
    from ml_control.local.alerts import LocalAlerts
    from ml_control.local.anchors import LocalAnchors
    from ml_control.local.endpoints import LocalEndpoints
    from ml_control.local.notifications import LocalNotifications
    from ml_control.local.prediction_log import SqlitePredictionLog
    from ml_control.local.registry import SqliteTables
    from ml_control.local.stream import SqliteStream
    from ml_control.local.trainer import LocalTrainer

    home = settings.home
    tables = SqliteTables(home / "registry.db", data=home / "lake")
    lake = Lake.local(home / "lake")
    return Platform(
        settings=settings,
        lake=lake,
        registry=Registry(
            tables,
            lease_seconds=settings.lease_seconds,
            anchors=LocalAnchors(home / "logs" / "history.anchors"),
        ),
        notifications=LocalNotifications(settings.landing, lake),
        trainer=LocalTrainer(home / "jobs"),
        endpoints=LocalEndpoints(home / "endpoints"),
        alerts=LocalAlerts(
            home / "logs" / "alerts.jsonl", settings.alert_webhook.get_secret_value()
        ),
        log=SqlitePredictionLog(home / "predictions.db", settings.log_days),
        stream=SqliteStream(home / "stream", retry_seconds=settings.retry_seconds),
    )


def _on_aws(settings: Settings) -> Platform:
    from ml_control.aws.alarms import CloudWatchAlarms
    from ml_control.aws.alerts import SnsAlerts
    from ml_control.aws.anchors import LakeAnchors
    from ml_control.aws.client import Clients
    from ml_control.aws.endpoints import SageMakerEndpoints
    from ml_control.aws.lake import open_lake
    from ml_control.aws.metrics import CloudWatchMetrics
    from ml_control.aws.notifications import SqsNotifications
    from ml_control.aws.prediction_log import DynamoPredictionLog
    from ml_control.aws.registry import DynamoTables
    from ml_control.aws.stream import KinesisStream
    from ml_control.aws.trainer import SageMakerTrainer
    from ml_control.aws.transform import SageMakerTransform

    home, clients = settings.home, Clients(settings.aws)
    lake = open_lake(clients)
    tables = DynamoTables(clients, lake)
    return Platform(
        settings=settings,
        lake=lake,
        registry=Registry(tables, lease_seconds=settings.lease_seconds, anchors=LakeAnchors(lake)),
        notifications=SqsNotifications(clients, lake, tables, lease_seconds=settings.lease_seconds),
        trainer=SageMakerTrainer(clients, lake, home / "scratch" / "jobs"),
        endpoints=SageMakerEndpoints(clients, lake, tables),
        alerts=SnsAlerts(clients, home / "logs" / "alerts.jsonl"),
        log=DynamoPredictionLog(clients, settings.log_days),
        stream=KinesisStream(
            clients, tables, settings.retry_seconds, lease_seconds=settings.lease_seconds
        ),
        metrics=CloudWatchMetrics(clients),
        alarms=CloudWatchAlarms(clients),
        scorer=SageMakerTransform(clients, lake),
    )
