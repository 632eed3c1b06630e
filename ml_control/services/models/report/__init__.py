"""The report on one model: a single HTML file that needs nothing from outside itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ml_control.core.digests import short
from ml_control.core.evidence import Contributions
from ml_control.core.records import ModelVersion, Verdict
from ml_control.errors import MlControlError
from ml_control.ports import Round
from ml_control.services.models.report.columns import columns_table
from ml_control.services.models.report.comparison import compared, metrics_table, task_of
from ml_control.services.models.report.html import figure, missing, page, pairs, section
from ml_control.services.models.report.sections import banner, data_checks, gates_table, lineage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

__all__ = ["Report", "compose", "task_of"]

_UNITS = {"binary": "log-odds", "multiclass": "margin", "regression": "units of the target"}
#: The plots that are shown on their own too, by the name of their metadata.
_KEY = {
    "Learning curve": "learning_curve",
    "ROC, precision and recall": "roc",
    "Confusion": "confusion",
    "Residuals": "residuals",
    "Contributions": "contributions",
}


@dataclass
class Report:
    """The page, and the plots of it that say most, as PNG by name."""

    html: bytes = b""
    plots: dict[str, bytes] = field(default_factory=dict)


def compose(
    verdict: Verdict,
    model: ModelVersion,
    rounds: Sequence[Round],
    y_test: Array,
    predictions_test: Array | None,
    champion_predictions: Array | None,
    labels: Sequence[str],
    profile: Mapping[str, Any] | None,
    contributions: Contributions | None = None,
) -> Report:
    """UTF-8 HTML: verdict, gates, metrics, plots, data checks, lineage, settings and data.

    Arrays are as in :mod:`ml_control.core.metrics`; ``labels`` are class names by index, empty
    for regression; ``profile`` is the merged profile of the training data. Plots are data URIs,
    every value is escaped, and equal input gives equal bytes. What cannot be drawn is said in
    words, because a refused model needs its report most.
    """
    report = Report()
    champion = champion_predictions
    found = compared(verdict, y_test, predictions_test, champion, labels)
    metrics = metrics_table(verdict, y_test, champion, labels, found)
    if found:
        metrics += _against(report, found)
    parts = [
        banner(verdict, model),
        section("Gates", gates_table(verdict.gates)),
        section("Metrics on the test split", metrics),
        *_slices(report, verdict),
        section(
            "Predictions", _predictions(report, verdict, y_test, predictions_test, champion, labels)
        ),
        section("Contributions", _contributions(report, contributions, predictions_test, labels)),
        section("Training", _training(report, model, rounds)),
    ]
    if profile:
        parts.append(section("Training data", columns_table(profile)))
    parts += [
        section("Data checks by partition", data_checks(verdict.data_checks)),
        section("Lineage", lineage(verdict, model)),
        section("Hyperparameters", pairs(sorted(model.hyperparameters.items()))),
    ]
    title = f"{verdict.pipeline} {short(verdict.model_version)}"
    report.html = page(title, "".join(parts))
    return report


def _drawn(report: Report, title: str, draw: Callable[[], bytes], *, wide: bool = False) -> str:
    """A plot as a figure, or the reason why it could not be drawn."""
    try:
        png = draw()
    except MlControlError as error:
        return missing(f"{error.object}: {error.reason}")
    except (ValueError, IndexError) as error:
        return missing(f"{title} could not be drawn: {error}")
    if title in _KEY:
        report.plots[_KEY[title]] = png
    return figure(title, png, wide=wide)


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="pictures">{"".join(figures)}</div>'


def _against(report: Report, found: Mapping[str, Any]) -> str:
    from ml_control.services.models import plots

    return _drawn(report, "Candidate and champion", lambda: plots.differences(found))


def _slices(report: Report, verdict: Verdict) -> list[str]:
    """A picture for each slice that was judged or shown."""
    from ml_control.services.models import plots

    figures = []
    for gate in verdict.gates:
        if shown := gate.evidence.get("groups"):
            draw = partial(plots.groups, gate.name, shown, gate.required)
            figures.append(_drawn(report, gate.name, draw))
    return [section("Slices of the test split", _grid(figures))] if figures else []


def _training(report: Report, model: ModelVersion, rounds: Sequence[Round]) -> str:
    from ml_control.services.models import plots

    return _drawn(
        report, "Learning curve", lambda: plots.learning_curve(rounds, model.best_iteration)
    )


def _predictions(
    report: Report,
    verdict: Verdict,
    y: Array,
    predictions: Array | None,
    champion: Array | None,
    labels: Sequence[str],
) -> str:
    from ml_control.services.models import plots

    # Only what the gates found usable is drawn; on other arrays a plot would mislead or break.
    if predictions is None or not verdict.metrics:
        return missing("no plots of predictions: the gates found none that are usable")
    task = task_of(predictions, labels)
    comparable = champion is not None and champion.shape == predictions.shape
    drawers = plots.for_task(task, y, predictions, labels, champion if comparable else None)
    pairs_wide = ("ROC, precision and recall", "Residuals")
    return _grid(
        [_drawn(report, name, draw, wide=name in pairs_wide) for name, draw in drawers.items()]
    )


def _contributions(
    report: Report,
    found: Contributions | None,
    predictions: Array | None,
    labels: Sequence[str],
) -> str:
    """What moved predictions: bars and dots by feature, or maps for images."""
    from ml_control.services.models import plots

    if found is None or not len(found.values):
        return missing("none were computed: the model gave no usable predictions to explain")
    task = task_of(predictions, labels)
    if found.image is not None:
        return _drawn(report, "Contributions", lambda: plots.pixels(found, labels))
    unit = _UNITS[task]
    figures = [_drawn(report, "Contributions", lambda: plots.importance(found, labels, unit))]
    if found.values.ndim == 2:
        figures.append(_drawn(report, "Contributions by row", lambda: plots.swarm(found, unit)))
    note = (
        "SHAP values of XGBoost itself, computed in the container's version on evenly spaced test "
        "rows. The columns of one category are added up. They say what the model did, not why the "
        "world is so."
    )
    return _grid(figures) + f'<p class="note">{note}</p>'
