"""What ml-control asks of a platform. Each port has an adapter under ``local`` and one under
``aws`` with the same file name, and one contract suite that both pass.
"""

from __future__ import annotations

from ml_control.ports.alerts import (
    Alert,
    Alerts,
)
from ml_control.ports.arrivals import (
    Call,
    Notice,
    Notifications,
    Stored,
    Stray,
)
from ml_control.ports.endpoints import (
    Endpoints,
    EndpointState,
    Reply,
)
from ml_control.ports.metrics import (
    Alarm,
    Alarms,
    Metrics,
    Sample,
)
from ml_control.ports.predictions import (
    LATENCY_BOUNDS,
    Joined,
    Logged,
    LogState,
    Outcome,
    Prediction,
    PredictionLog,
    Traffic,
)
from ml_control.ports.stream import (
    MAX_STREAM_BYTES,
    MAX_STREAM_KEY,
    Parked,
    Stream,
    StreamRecord,
    StreamState,
    require_usable,
)
from ml_control.ports.tables import (
    TABLES,
    Check,
    Item,
    Put,
    Table,
    Tables,
)
from ml_control.ports.training import (
    Round,
    Trainer,
    TrainingJob,
    TrainingResult,
)

__all__ = [
    "LATENCY_BOUNDS",
    "MAX_STREAM_BYTES",
    "MAX_STREAM_KEY",
    "TABLES",
    "Alarm",
    "Alarms",
    "Alert",
    "Alerts",
    "Call",
    "Check",
    "EndpointState",
    "Endpoints",
    "Item",
    "Joined",
    "LogState",
    "Logged",
    "Metrics",
    "Notice",
    "Notifications",
    "Outcome",
    "Parked",
    "Prediction",
    "PredictionLog",
    "Put",
    "Reply",
    "Round",
    "Sample",
    "Stored",
    "Stray",
    "Stream",
    "StreamRecord",
    "StreamState",
    "Table",
    "Tables",
    "Traffic",
    "Trainer",
    "TrainingJob",
    "TrainingResult",
    "require_usable",
]
