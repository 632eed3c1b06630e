"""The report's tables: what was decided, on which checks, and where the model comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from ml_control.core.digests import short
from ml_control.core.records import GateResult, ModelVersion, Verdict
from ml_control.services.models.report.html import (
    Number,
    code,
    mark,
    number,
    pairs,
    some_rows,
    table,
)

_PARTS = 200  # shown at most


def banner(verdict: Verdict, model: ModelVersion) -> str:
    """The decision in one line, and who was asked when."""
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


def gates_table(gates: Iterable[GateResult]) -> str:
    """Every gate with what it saw and what it required."""
    rows = [
        (mark(gate.passed), gate.name, number(gate.observed), gate.required, gate.reason)
        for gate in gates
    ]
    return table(("", "gate", Number("observed"), "required", "reason"), rows)


def data_checks(checks: Sequence[Mapping[str, Any]]) -> str:
    """Each partition's checks; those that failed first."""
    if not checks:
        return '<p class="fail">No data versions are named.</p>'
    names = list(dict.fromkeys(one["name"] for part in checks for one in part.get("checks", ())))
    rows = []
    shown, more = some_rows(sorted(checks, key=lambda part: bool(part.get("passed"))), _PARTS)
    for part in shown:
        found = {one["name"]: one for one in part.get("checks", ())}
        marks = [
            mark(found[name]["passed"], found[name]["reason"]) if name in found else "missing"
            for name in names
        ]
        passed, reason = bool(part.get("passed")), part.get("reason") or "as required"
        digest = code(short(str(part.get("data_digest", ""))))
        rows.append((mark(passed), part.get("partition"), digest, *marks, reason))
    return table(("", "partition", "data", *names, "finding"), rows) + more


def lineage(verdict: Verdict, model: ModelVersion) -> str:
    """What the model was made of, each part by its digest."""
    facts = [
        ("container", model.container),
        ("training job", code(model.training_job)),
        ("rounds kept", f"{model.best_iteration + 1} of {model.rounds}"),
        ("dataset", code(model.dataset.digest)),
        ("features", code(model.features_digest)),
        ("test set", code(model.test_set)),
        ("gate configuration", code(verdict.gate_config)),
        ("verdict", code(verdict.key)),
        *((name, code(digest)) for name, digest in sorted(model.files.items())),
    ]
    parts = [
        (part.partition, number(part.rows), code(part.digest))
        for part in reversed(model.dataset.parts)
    ]
    shown, more = some_rows(parts, _PARTS)
    total = f'<p class="note">{model.dataset.rows:,} rows in {len(parts)} partitions.</p>'
    heads = ("partition", Number("rows"), "data version")
    return pairs(facts) + "<br>" + table(heads, shown) + more + total
