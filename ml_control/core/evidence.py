"""What the gates look at: everything found out about one packaged model, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_control.core.digests import short
from ml_control.core.records import Audit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class DataCheck:
    """What is recorded about one data version that the model was trained on.

    ``quality_digest`` is the configuration that its checks must have run under now.
    """

    partition: str
    data_digest: str
    audit: Audit | None
    quality_digest: str

    @property
    def fault(self) -> str:
        """Why this data version does not count as checked; empty when it does."""
        if self.audit is None:
            return "was never checked"
        if self.audit.data_digest != self.data_digest:
            return f"was checked as {short(self.audit.data_digest)}, which are other bytes"
        if self.audit.quality_digest != self.quality_digest:
            return "was checked under another quality configuration"
        failed = [check.name for check in self.audit.checks if check.refuses]
        if failed or not self.audit.passed:
            return f"failed {', '.join(failed) or 'its checks'}"
        if not self.audit.checks:
            return "has an audit without a single check"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for the verdict; the checks' details stay with the audit."""
        checks = self.audit.checks if self.audit is not None else ()
        return {
            "partition": self.partition,
            "data_digest": self.data_digest,
            "quality_digest": self.quality_digest,
            "passed": not self.fault,
            "reason": self.fault,
            "checks": [{"name": c.name, "passed": c.passed, "reason": c.reason} for c in checks],
        }


@dataclass(frozen=True, eq=False)
class Groups:
    """The level of one category for each test row: ``codes`` ``(rows,)`` into ``levels``.

    A level of None means that the value is missing there, which is a group like any other.
    """

    levels: tuple[str | None, ...]
    codes: NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each matrix column added to the predictions of a sample of test rows (SHAP values).

    ``values`` are in the model's margin, ``(rows, columns + 1)``, the last column the bias, or
    ``(rows, classes, columns + 1)``; ``rows`` ``(rows, columns)`` are the encoded rows; ``sources``
    names for each column the feature that it encodes. For images ``image`` is their shape.
    """

    values: Array
    rows: Array
    sources: tuple[str, ...]
    image: tuple[int, int, int] | None = None  # height, width, channels, when columns are pixels


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything the gates look at. None means: not found out, which fails.

    ``golden_*`` are predictions for the golden records, ``(rows,)`` or ``(rows, outputs)``:
    expected from the training process, observed from the packaged archive. Test arrays are as in
    :mod:`ml_control.core.metrics`. ``labels`` are the class names by index, empty for regression.
    ``groups`` are those of the test rows by column, for the columns that slices name.
    """

    pipeline: str
    model_version: str
    champion: str | None
    test_set: str
    data_checks: Sequence[DataCheck]
    archive_findings: Sequence[Mapping[str, Any]] | None  # what is wrong with the archive
    golden_expected: Array | None
    golden_observed: Array | None
    golden_encoded_equal: bool | None  # FeatureSpec gives exactly the rows that training saw
    watched_name: str
    watched_logged: float | None
    watched_reproduced: float | None
    y_test: Array
    predictions_test: Array | None
    champion_predictions_test: Array | None
    task: str
    labels: tuple[str, ...] = ()
    watched_rounding: float = 0.0  # how far watched_logged may be off, where it was printed
    champion_problem: str = ""  # why the champion could not be asked for its predictions
    archive_bytes: int | None = None
    latency_p99_ms: float | None = None  # of predicting one row at a time, in process
    groups: Mapping[str, Groups] = field(default_factory=dict)
    contributions: Contributions | None = None  # for the report; no gate looks at it
