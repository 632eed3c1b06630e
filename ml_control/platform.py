"""The one place that chooses a platform. It knows no Dagster, so that every process starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ml_control.lake import Lake
from ml_control.ports import (
    Alarms,
    Alerts,
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


@lru_cache(maxsize=8)
def open_platform(settings: Settings) -> Platform:
    """The platform of these settings; one per process. Makes the home's folders."""
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
