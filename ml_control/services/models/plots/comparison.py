"""Plots that set things side by side: candidate and champion, and groups of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_control.errors import NotProven
from ml_control.services.models.plots.base import BLUE, GREY, ORANGE, RED, as_png, cut, new_figure

if TYPE_CHECKING:
    from ml_control.core.bootstrap import Difference

_GROUPS_AT_MOST = 25


def differences(found: Mapping[str, Difference]) -> bytes:
    """How much better the candidate is by each metric, with its interval; right is better.

    Each metric has its own scale, so that a loss does not flatten a rate beside it.
    """
    if not found:
        raise NotProven("comparison", "there is no metric to compare by", "see the gates")
    figure, axes = new_figure(len(found), 1, width=7.6, height=0.62 * len(found) + 0.5)
    for ax, (name, one) in zip(axes, found.items(), strict=True):
        ax.axvline(0, color=GREY, linewidth=1)
        colour = BLUE if one.lower > 0 else RED if one.upper < 0 else ORANGE
        ax.plot([one.lower, one.upper], [0, 0], color=colour, linewidth=5, solid_capstyle="butt")
        ax.plot(one.mean, 0, "o", color="#111827", markersize=6)
        reach = max(abs(one.lower), abs(one.upper), abs(one.mean), 1e-12) * 1.25
        ax.set(xlim=(-reach, reach), ylim=(-1, 1), yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.tick_params(axis="x", labelsize=7)
        ax.locator_params(axis="x", nbins=5)
        ax.spines["left"].set_visible(False)
    axes[0].set_title("Candidate minus champion, right is better", fontsize=10)
    return as_png(figure)


def groups(name: str, found: Sequence[Mapping[str, Any]], required: str) -> bytes:
    """The metric of each group of test rows: judged ones as bars, small ones hollow."""
    shown = [group for group in found if group["value"] is not None][:_GROUPS_AT_MOST]
    if not shown:
        raise NotProven(name, "no group has a value", "collect more test rows")
    figure, (ax,) = new_figure(1, 1, width=7.6, height=0.3 * len(shown) + 1.1)
    for row, group in enumerate(shown):
        colour = GREY if not group["judged"] else BLUE if group["passed"] else RED
        fill = colour if group["judged"] else "none"
        ax.barh(row, group["value"], height=0.66, color=fill, edgecolor=colour)
        failed = group["judged"] and not group["passed"]
        mark = " FAILED" if failed else "" if group["judged"] else " not judged"
        text = f" {group['value']:.4g}  ({group['rows']:,} rows){mark}"
        ax.text(max(group["value"], 0), row, text, va="center", fontsize=8, color="#111827")
    ax.set_yticks(range(len(shown)), [cut(group["level"]) for group in shown])
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
    ax.set_title(cut(required, 80), fontsize=9, parse_math=False)
    high = max([0.0, *(group["value"] for group in shown)])
    low = min([0.0, *(group["value"] for group in shown)])
    ax.set(xlim=(low, high + 0.45 * ((high - low) or 1)), ylim=(len(shown) - 0.4, -0.6))
    return as_png(figure)
