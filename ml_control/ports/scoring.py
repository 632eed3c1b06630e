"""What predicts whole files of rows where the platform has machines for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ml_control.spec import SageMakerTraining

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ScoringJob:
    """A request to predict feature rows. The name is a digest of archive, rows and container."""

    name: str
    container: str
    archive: bytes  # model.tar.gz, proven by its digest
    rows: Path  # CSV of feature rows: no header, no label, an empty cell is missing
    count: int
    golden: Sequence[str]  # encoded golden rows, predicted in the same job
    expected: Sequence[Sequence[float]]  # what training predicted for them
    machines: SageMakerTraining = field(default_factory=SageMakerTraining)


class BatchScorer(Protocol):
    """Predicts files of rows with an archive in its container."""

    def predict(self, job: ScoringJob) -> np.ndarray:
        """Float32 predictions in the order of the rows: (n,) or (n, classes).

        A running or finished job of the same name is adopted. Raises ``NotProven`` when the job
        answers the golden rows otherwise than training did, ``PlatformFailed`` with the job's own
        words, ``Retryable`` when the same may work later.
        """
        ...
