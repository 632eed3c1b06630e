"""What a policy would have decided over time, beside what was decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.errors import PlatformFailed
from ml_control.services.models.plots.base import BLUE, GREY, ORANGE, cut, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EXPERIMENTS = 6
_MARKS = {"promote": "^", "roll_back": "v", "inconclusive": "s"}


def simulated(found: Mapping[str, Any]) -> Figure:
    """Trainings on a line each for real and simulated; each experiment's confidence sequence."""
    trials = [one for one in found["experiments"] if one["points"]][-_EXPERIMENTS:]
    heights = [1.6, *([2.2] * len(trials))]
    figure, axes = new_figure(
        len(heights), 1, width=8.0, height=sum(heights) + 0.6, heights=heights
    )
    _trainings(axes[0], found["trainings"])
    for ax, trial in zip(axes[1:], trials, strict=True):
        _experiment(ax, trial)
    changes = ", ".join(f"{name}={value}" for name, value in found["changed"].items())
    figure.suptitle(cut(f"{found['pipeline']}: {changes or 'as it is set'}", 90), fontsize=11)
    return figure


def save(found: Mapping[str, Any], file: Path) -> None:
    """Write the plot as PNG or SVG, by the file's name. Raises ``PlatformFailed``."""
    import matplotlib as mpl

    kind = "svg" if file.suffix.lower() == ".svg" else "png"
    # Without the date and random ids, so that equal input gives equal bytes.
    with mpl.rc_context({"svg.hashsalt": "ml-control"}):
        figure = simulated(found)
        try:
            metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": ""}
            figure.savefig(file, format=kind, metadata=metadata)
        except OSError as error:
            raise PlatformFailed(
                str(file), f"could not be written: {error.strerror}", "name another file"
            ) from error


def _trainings(ax: Axes, trainings: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for row, (name, colour, marker) in enumerate((("real", GREY, "o"), ("simulated", BLUE, "D"))):
        times = [_time(one["at"]) for one in trainings[name]]
        ax.plot(times, [row] * len(times), marker, color=colour, markersize=6, linestyle="none")  # type: ignore[arg-type]
    ax.set(ylim=(-0.6, 1.6), yticks=[0, 1])
    ax.set_yticklabels([f"{name} ({len(trainings[name])})" for name in ("real", "simulated")])
    ax.set_title("Trainings asked for", fontsize=10, loc="left")
    ax.tick_params(axis="x", labelsize=7)


def _experiment(ax: Axes, trial: Mapping[str, Any]) -> None:
    points = trial["points"]
    count = [one["outcomes"] for one in points]
    ax.fill_between(
        count, [one["low"] for one in points], [one["high"] for one in points],
        color=BLUE, alpha=0.2, linewidth=0,
    )  # fmt: skip
    ax.plot(count, [one["estimate"] for one in points], color=BLUE, linewidth=1.4)
    ax.axhline(0, color=GREY, linewidth=1)
    done = trial["simulated"]
    if done and done["decision"] in _MARKS and done["estimate"] is not None:
        ax.plot(
            done["outcomes"], done["estimate"], _MARKS[done["decision"]],
            color=ORANGE, markersize=10, markeredgecolor="#111827",
        )  # fmt: skip
    said = done["decision"] if done else "-"
    real = trial["real"]["decision"] if trial["real"] else "not ended"
    title = f"Rollout {cut(trial['rollout'], 40)}: {said} (really: {real})"
    ax.set_title(title, fontsize=10, loc="left")
    ax.set_xlabel("entities with an outcome", fontsize=8)
    ax.set_ylabel("challenger − champion", fontsize=8)
    ax.tick_params(labelsize=7)


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
