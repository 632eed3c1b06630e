"""Plots of a model as PNG bytes, by what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ml_control.core.metrics import predicted_classes
from ml_control.services.models.plots.classes import calibration, confusion, roc_pr
from ml_control.services.models.plots.comparison import differences, groups
from ml_control.services.models.plots.contributions import importance, pixels, swarm
from ml_control.services.models.plots.values import learning_curve, residuals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

__all__ = [
    "calibration",
    "confusion",
    "differences",
    "for_task",
    "groups",
    "importance",
    "learning_curve",
    "pixels",
    "residuals",
    "roc_pr",
    "swarm",
]


def for_task(
    task: str,
    y: Array,
    predictions: Array,
    labels: Sequence[str],
    champion: Array | None = None,
) -> dict[str, Callable[[], bytes]]:
    """The plots that a task's test predictions call for, by title, drawn when called.

    A curve that these rows do not define is left out. Arrays as in
    :mod:`ml_control.core.metrics`.
    """
    import numpy as np

    values = np.asarray(predictions, dtype=np.float64)
    if task == "regression":
        return {"Residuals": lambda: residuals(y, values)}
    found: dict[str, Callable[[], bytes]] = {}
    if task == "binary":
        if len(np.unique(y)) > 1:
            found["ROC, precision and recall"] = lambda: roc_pr(y, values, champion)
        found["Calibration"] = lambda: calibration(y, values)
    found["Confusion"] = lambda: confusion(y, predicted_classes(values), labels)
    return found
