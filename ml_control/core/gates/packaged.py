"""Gates on the packaged bytes: what they are, and that they answer as the trained model did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml_control.core.evidence import Evidence
from ml_control.core.gates.base import plain, refused, some
from ml_control.core.records import GateResult
from ml_control.core.tolerance import TOLERANCE, scale_of
from ml_control.spec import Gates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Relative to the logged value, and to how far the target spreads where that is less than one.
WITNESS_TOLERANCE = 1e-5
#: A printed value that may be off by more than this share proves nothing.
COARSEST = 1e-2
_MEGABYTE = 1_000_000


def archive(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """The archive is one that the container will load, and nothing else."""
    found = evidence.archive_findings
    if found is None:
        return GateResult(
            name="archive", passed=False, reason="was not inspected", required="0 findings"
        )
    told = [f"{one.get('object', 'archive')}: {one.get('reason', dict(one))}" for one in found]
    return GateResult(
        name="archive",
        passed=not found,
        reason=some(told) if found else "nothing wrong with the archive",
        observed=float(len(found)),
        required="0 findings",
        evidence={"findings": [{str(k): plain(v) for k, v in one.items()} for one in found]},
    )


def golden(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """The packaged model predicts for the golden records what the training process predicted.

    Records that all have one prediction prove nothing about a model that tells test rows apart.
    """
    import numpy as np

    required = f"equal within {TOLERANCE:g} of its value and of the usual one"
    expected, observed = evidence.golden_expected, evidence.golden_observed
    if expected is None or observed is None:
        missing = "expected" if expected is None else "observed"
        return refused("golden", f"no {missing} predictions of the golden records", required)
    try:
        wanted = np.asarray(expected, dtype=np.float32)
        got = np.asarray(observed, dtype=np.float32)
    except (TypeError, ValueError) as error:
        return refused("golden", f"not numeric arrays: {error}", required)
    if wanted.shape != got.shape:
        return refused("golden", f"shape {got.shape} came back for {wanted.shape}", required)
    if wanted.size == 0:
        return refused("golden", "there are no golden records", required)
    bad = int(np.count_nonzero(~(np.isfinite(wanted) & np.isfinite(got))))
    if bad:
        return refused("golden", f"{bad} of {wanted.size} predictions are not finite", required)
    exact = wanted.astype(np.float64).reshape(len(wanted), -1)
    gap = np.abs(got.astype(np.float64).reshape(len(got), -1) - exact)
    limit = TOLERANCE * (scale_of(exact.tolist()) + np.abs(exact))
    rows = int(np.count_nonzero((gap > limit).any(axis=1)))
    told = f"{len(wanted)} golden records are predicted as in training"
    if rows:
        told = f"{rows} of {len(wanted)} golden records are predicted otherwise"
    # One answer for all would be given by a model of one leaf too.
    alike = bool(np.all(np.ptp(exact, axis=0) <= limit.max(axis=0)))
    blind = alike and _spread(evidence.predictions_test) > float(limit.max())
    if blind:
        told += ", but all have the same prediction, which test rows have not"
    return GateResult(
        name="golden",
        passed=rows == 0 and not blind,
        reason=told,
        observed=float(gap.max()),
        required=required,
        evidence={"rows": len(wanted), "mismatched": rows, "alike": alike},
    )


def _spread(predictions: Any) -> float:
    """The largest difference within a column of predictions; 0 when there is no such thing."""
    import numpy as np

    try:
        values = np.asarray(predictions, dtype=np.float64)
    except (TypeError, ValueError):
        return 0.0
    if values.ndim == 0 or not values.size or not np.isfinite(values).all():
        return 0.0  # the gate on predictions says why
    return float(np.ptp(values, axis=0).max())


def features(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """The recorded FeatureSpec encodes the golden records to exactly the rows training saw."""
    equal = evidence.golden_encoded_equal is True  # None and array-likes are not a yes
    return GateResult(
        name="features",
        passed=equal,
        reason="the golden records are encoded as in training"
        if equal
        else "the golden records were not shown to be encoded as in training",
        required="exactly equal rows",
    )


def witness(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """The packaged model reproduces the metric that the trainer logged at the chosen round."""
    import numpy as np

    name = evidence.watched_name or "the watched metric"
    logged, reproduced = evidence.watched_logged, evidence.watched_reproduced
    if logged is None or not np.isfinite(logged):
        return refused("witness", f"the trainer logged no finite {name}", "a logged value")
    size = max(_witness_scale(evidence), abs(logged))
    limit = WITNESS_TOLERANCE * size + evidence.watched_rounding
    if evidence.watched_rounding > COARSEST * size:
        return refused(
            "witness",
            f"the trainer printed {name} as {logged:g}: too few digits to tell models apart",
            "a target of another scale, or early stopping",
        )
    required = f"{logged:.6g} within {limit:.2g}"
    if reproduced is None or not np.isfinite(reproduced):
        return refused("witness", f"no finite {name} came from the archive", required)
    equal = abs(reproduced - logged) <= limit
    return GateResult(
        name="witness",
        passed=bool(equal),
        reason=f"the archive {'reproduces' if equal else 'does not reproduce'} {name}",
        observed=float(reproduced),
        required=required,
        evidence={"metric": name, "logged": float(logged)},
    )


def _witness_scale(evidence: Evidence) -> float:
    """The size below which the witness counts absolutely: a logged value has few digits.

    An error in a target's own unit is no smaller against a target that hardly spreads, so there
    it is the spread; losses and rates of classes have no unit.
    """
    import numpy as np

    if evidence.task != "regression":
        return 1.0
    y: Floats = np.asarray(evidence.y_test, dtype=np.float64)
    return min(1.0, float(y.std())) if y.size and np.isfinite(y).all() else 0.0


def latency_p99(evidence: Evidence, gates: Gates) -> GateResult:
    """One row is predicted fast enough, in the container's interpreter on this machine."""
    limit = (gates.latency_p99 or 0.0) * 1000.0
    required = f"<= {limit:g} ms"
    found = evidence.latency_p99_ms
    if found is None or not 0.0 < found < float("inf"):
        return refused("latency_p99", "predicting one row was not timed", required)
    return GateResult(
        name="latency_p99",
        passed=found <= limit,
        reason=f"one row takes {found:.3g} ms at the 99th percentile",
        observed=found,
        required=required,
    )


def max_size_mb(evidence: Evidence, gates: Gates) -> GateResult:
    """The archive is no larger than allowed."""
    limit = gates.max_size_mb or 0.0
    required = f"<= {limit:g} MB"
    if not evidence.archive_bytes:
        return refused("max_size_mb", "the archive was not measured", required)
    size = evidence.archive_bytes / _MEGABYTE
    return GateResult(
        name="max_size_mb",
        passed=size <= limit,
        reason=f"model.tar.gz has {evidence.archive_bytes:,} bytes",
        observed=size,
        required=required,
    )
