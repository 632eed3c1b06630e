"""What the platform holds true, written once over ``ports.Tables`` for every platform."""

from ml_control.registry.history import History
from ml_control.registry.leases import Leases
from ml_control.registry.ledger import Claim, Ledger
from ml_control.registry.models import Models
from ml_control.registry.partitions import Partitions
from ml_control.registry.registry import Registry
from ml_control.registry.rollouts import Rollouts

__all__ = [
    "Claim",
    "History",
    "Leases",
    "Ledger",
    "Models",
    "Partitions",
    "Registry",
    "Rollouts",
]
