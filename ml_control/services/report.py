"""The report on one model: a single HTML file that needs nothing from outside itself."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from ml_control.core.digests import short
from ml_control.core.metrics import evaluate_all
from ml_control.core.records import GateResult, ModelVersion, Verdict
from ml_control.errors import MlControlError
from ml_control.ports import Round
from ml_control.spec import LOWER_IS_BETTER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

#: Even if a value slipped through unescaped, a browser would neither run nor fetch anything.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root{--ink:#111827;--dim:#6b7280;--line:#e5e7eb;--pass:#00664b;--fail:#a63f00}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--ink);
background:#f9fafb;margin:0}
main{max-width:1080px;margin:0 auto;padding:24px}
section{background:#fff;border:1px solid var(--line);border-radius:8px;padding:16px 20px;
margin:16px 0;overflow-x:auto}
h1{font-size:24px;margin:0}h2{font-size:17px;margin:0 0 10px}
.banner{border-left:10px solid var(--pass);display:block}.banner.no{border-color:var(--fail)}
.banner p{margin:4px 0 0}
.pass{color:var(--pass);font-weight:600}.fail{color:var(--fail);font-weight:600}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);
vertical-align:top;overflow-wrap:anywhere}
th{color:var(--dim);font-weight:600;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:13px ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
img{max-width:100%;height:auto;display:block}
figure{margin:0 0 16px}figcaption{color:var(--dim);font-size:13px}
.note{color:var(--dim);font-size:13px;margin:8px 0 0}
"""
_LEVELS_SHOWN = 5


class _Html(str):
    """Text that is already HTML; everything else is escaped on its way in."""

    __slots__ = ()


class _Number(str):
    """Text of a number, set flush right."""

    __slots__ = ()


def render(
    verdict: Verdict,
    model: ModelVersion,
    rounds: Sequence[Round],
    y_test: Array,
    predictions_test: Array | None,
    champion_predictions: Array | None,
    labels: Sequence[str],
    profile: Mapping[str, Any] | None,
) -> bytes:
    """UTF-8 HTML: verdict, gates, metrics, plots, data checks, lineage, settings and data.

    Arrays are as in :mod:`ml_control.core.metrics`; ``labels`` are class names by index, empty
    for regression; ``profile`` is the merged profile of the training data. Plots are data URIs,
    every value is escaped, and equal input gives equal bytes. What cannot be drawn is said in
    words, because a refused model needs its report most.
    """
    metrics = _metrics(verdict, y_test, champion_predictions, labels)
    plots = _plots(verdict, model, rounds, y_test, predictions_test, champion_predictions, labels)
    parts = [
        _banner(verdict, model),
        _section("Gates", _gates(verdict.gates)),
        _section("Metrics on the test split", metrics),
        _section("Plots", plots),
        _section("Data checks by partition", _data_checks(verdict.data_checks)),
        _section("Lineage", _lineage(verdict, model)),
        _section("Hyperparameters", _pairs(sorted(model.hyperparameters.items()))),
    ]
    if profile:
        parts.append(_section("Training data", _profile(profile)))
    title = f"{verdict.pipeline} {short(verdict.model_version)}"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
    return page.encode("utf-8", "replace")


def task_of(predictions: Array | None, labels: Sequence[str]) -> str:
    """The task that labels and the form of predictions show."""
    if not labels:
        return "regression"
    dimensions = getattr(predictions, "ndim", 2 if len(labels) > 2 else 1)
    return "multiclass" if dimensions == 2 else "binary"


def _banner(verdict: Verdict, model: ModelVersion) -> str:
    word, kind = ("PASSED", "pass") if verdict.passed else ("REFUSED", "fail")
    why = (
        f"all {len(verdict.gates)} gates said yes"
        if verdict.passed
        else f"failed: {', '.join(verdict.failed)}"
    )
    when = datetime.fromtimestamp(verdict.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f'<section class="banner{"" if verdict.passed else " no"}">'
        f'<h1>{escape(verdict.pipeline)}: <span class="{kind}">{word}</span></h1>'
        f"<p>Model <code>{escape(model.version)}</code>; {escape(why)}.</p>"
        f'<p class="note">Judged {when} by run <code>{escape(verdict.run)}</code>, against '
        f"{_champion_name(verdict)}.</p></section>"
    )


def _champion_name(verdict: Verdict) -> str:
    if verdict.champion is None:
        return "no champion: this is the first model"
    return f"champion <code>{escape(verdict.champion)}</code>"


def _gates(gates: Iterable[GateResult]) -> str:
    rows = [
        (_mark(gate.passed), gate.name, _number(gate.observed), gate.required, gate.reason)
        for gate in gates
    ]
    return _table(("", "gate", _Number("observed"), "required", "reason"), rows)


def _metrics(verdict: Verdict, y: Array, champion: Array | None, labels: Sequence[str]) -> str:
    if not verdict.metrics:
        return '<p class="fail">None could be computed; the gates say why.</p>'
    other: dict[str, float] = {}
    if champion is not None:
        try:
            other = evaluate_all(task_of(champion, labels), y, champion)
        except MlControlError:
            other = {}
    rows = [
        (
            name,
            _number(value),
            _number(other.get(name)),
            _number(value - other[name]) if name in other else "",
            "lower" if name in LOWER_IS_BETTER else "higher",
        )
        for name, value in sorted(verdict.metrics.items())
    ]
    heads = ("metric", *map(_Number, ("candidate", "champion", "difference")), "better is")
    return _table(heads, rows) + f'<p class="note">{len(y):,} test rows.</p>'


def _plots(
    verdict: Verdict,
    model: ModelVersion,
    rounds: Sequence[Round],
    y: Array,
    predictions: Array | None,
    champion: Array | None,
    labels: Sequence[str],
) -> str:
    from ml_control.services import plots

    found: list[str] = []
    try:
        found.append(_figure("Gates", plots.gates_overview(verdict.gates)))
        found.append(_figure("Learning curve", plots.learning_curve(rounds, model.best_iteration)))
    except MlControlError as error:
        found.append(_missing(f"{error.object}: {error.reason}"))
    # Only what the gates found usable is drawn; on other arrays a plot would mislead or break.
    if predictions is None or not verdict.metrics:
        found.append(_missing("no plots of predictions: the gates found none that are usable"))
        return "".join(found)
    task = task_of(predictions, labels)
    comparable = champion is not None and champion.shape == predictions.shape
    try:
        drawn = plots.for_task(task, y, predictions, labels, champion if comparable else None)
        found += [_figure(title, png) for title, png in drawn.items()]
    except (MlControlError, ValueError, IndexError) as error:
        found.append(_missing(f"plots of predictions could not be drawn: {error}"))
    return "".join(found)


def _data_checks(checks: Sequence[Mapping[str, Any]]) -> str:
    if not checks:
        return '<p class="fail">No data versions are named.</p>'
    names = list(dict.fromkeys(one["name"] for part in checks for one in part.get("checks", ())))
    rows = []
    for part in checks:
        found = {one["name"]: one for one in part.get("checks", ())}
        marks = [
            _mark(found[name]["passed"], found[name]["reason"]) if name in found else "missing"
            for name in names
        ]
        passed, reason = bool(part.get("passed")), part.get("reason") or "as required"
        digest = _code(short(str(part.get("data_digest", ""))))
        rows.append((_mark(passed), part.get("partition"), digest, *marks, reason))
    return _table(("", "partition", "data", *names, "finding"), rows)


def _lineage(verdict: Verdict, model: ModelVersion) -> str:
    facts = [
        ("container", model.container),
        ("training job", _code(model.training_job)),
        ("rounds kept", f"{model.best_iteration + 1} of {model.rounds}"),
        ("dataset", _code(model.dataset.digest)),
        ("features", _code(model.features_digest)),
        ("test set", _code(model.test_set)),
        ("gate configuration", _code(verdict.gate_config)),
        ("verdict", _code(verdict.key)),
        *((name, _code(digest)) for name, digest in sorted(model.files.items())),
    ]
    parts = [
        (part.partition, _number(part.rows), _code(part.digest)) for part in model.dataset.parts
    ]
    total = f'<p class="note">{model.dataset.rows:,} rows in {len(parts)} partitions.</p>'
    heads = ("partition", _Number("rows"), "data version")
    return _pairs(facts) + "<br>" + _table(heads, parts) + total


def _profile(profile: Mapping[str, Any]) -> str:
    described = {**profile.get("features", {}), "target": profile.get("target") or {}}
    rows = [
        (
            name,
            _number(about.get("count")),
            _number(about.get("missing")),
            _values(about),
        )
        for name, about in described.items()
        if isinstance(about, Mapping)
    ]
    heads = ("column", _Number("values"), _Number("missing"), "contents")
    rows_note = f'<p class="note">{escape(str(profile.get("rows", "")))} rows.</p>'
    return _table(heads, rows) + rows_note


def _values(about: Mapping[str, Any]) -> str:
    levels = about.get("levels")
    if isinstance(levels, Mapping):
        most = sorted(levels.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{level} ({count:,})" for level, count in most[:_LEVELS_SHOWN])
        more = len(most) - _LEVELS_SHOWN
        return f"{shown}, and {more} more" if more > 0 else shown
    found = [(word, about.get(word)) for word in ("min", "mean", "max")]
    return ", ".join(f"{word} {value:.6g}" for word, value in found if value is not None)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(_cell(text, "th") for text in heads)
    body = "".join(f"<tr>{''.join(_cell(value, 'td') for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _pairs(pairs: Iterable[tuple[str, Any]]) -> str:
    rows = "".join(f"<tr>{_cell(name, 'th')}{_cell(value, 'td')}</tr>" for name, value in pairs)
    return f"<table><tbody>{rows}</tbody></table>"


def _cell(value: Any, tag: str) -> str:
    kind = ' class="n"' if isinstance(value, _Number) else ""
    text = value if isinstance(value, _Html) else escape(str(value))
    return f"<{tag}{kind}>{text}</{tag}>"


def _mark(passed: bool, reason: str = "") -> _Html:  # noqa: FBT001 - a mark is of a truth value
    kind, word = ("pass", "✓ yes") if passed else ("fail", "✗ no")
    return _Html(f'<span class="{kind}" title="{escape(reason)}">{word}</span>')


def _code(text: str) -> _Html:
    return _Html(f"<code>{escape(text)}</code>")


def _number(value: float | None) -> _Number:
    if value is None:
        return _Number("")
    return _Number(f"{value:,}" if isinstance(value, int) else f"{value:.6g}")


def _figure(title: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    name = escape(title)
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{data}">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _missing(reason: str) -> str:
    return f'<p class="note">{escape(reason)}</p>'
