"""The console's pages from plain data: Jinja templates with every value escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ml_control.core.records import Verdict
from ml_control.gateway.console.chart import Look, confidence_sequence

if TYPE_CHECKING:
    from jinja2 import Environment

#: Nothing is fetched and nothing is run: even a value that slipped through could do neither.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
REFRESH_SECONDS = 15

FORMS: tuple[dict[str, Any], ...] = (
    {"name": "promote", "title": "Promote", "says": "The challenger takes all traffic."},
    {"name": "rollback", "title": "Roll back", "says": "The earlier champion takes all traffic."},
    {
        "name": "traffic",
        "title": "Change the split",
        "says": "The challenger's share of entities.",
        "fields": [{"name": "share", "label": "Share, 0 to 1", "required": True, "value": ""}],
    },
    {"name": "pause", "title": "Pause", "says": "No automatic step until resumed."},
    {"name": "resume", "title": "Resume", "says": "Automatic steps again."},
    {
        "name": "approve",
        "title": "Approve",
        "says": "A proven model that waits for a person may be deployed.",
        "fields": [{"name": "version", "label": "Model version", "required": True, "value": ""}],
    },
    {
        "name": "reject",
        "title": "Reject",
        "says": "This model is never deployed.",
        "fields": [{"name": "version", "label": "Model version", "required": True, "value": ""}],
    },
)


def render(template: str, **values: Any) -> bytes:
    """A page, UTF-8. ``values`` are escaped, whoever wrote them."""
    return _environment().get_template(template).render(**values).encode("utf-8", "replace")


def pipeline_page(page: dict[str, Any], **values: Any) -> bytes:
    """The page of one pipeline, see :func:`ml_control.services.reading.console.page`."""
    title = f"{page['name']}: challenger minus champion"
    # Only numbers and times go into the picture, and its title is escaped there.
    chart = Markup(confidence_sequence([Look(*look) for look in page["curve"]], title))  # noqa: S704
    forms = [{"fields": [], **form} for form in FORMS]
    candidate = page.get("candidate") or ""
    for form in forms:
        form["fields"] = [
            {**field, "value": candidate if field["name"] == "version" else field["value"]}
            for field in form["fields"]
        ]
    return render("pipeline.html", page=page, chart=chart, forms=forms, **values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("ml_control.gateway.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    found.filters["when"] = _when
    found.globals.update(state=_state, verdict=_verdict, session=None, refresh=0, done="")
    return found


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _state(record: dict[str, Any]) -> Markup:
    """The rollout's state as a tag."""
    state, kind = record["state"], ""
    if record["paused"]:
        state, kind = "paused", "wait"
    elif state == "halted":
        kind = "fail"
    elif state == "in_progress":
        state, kind = record["phase"] or "in progress", "wait"
    return Markup('<span class="tag {}">{}</span>').format(kind, state)


def _verdict(verdict: Verdict | None) -> Markup:
    if verdict is None:
        return Markup('<span class="wait">not judged</span>')
    if verdict.passed:
        return Markup('<span class="pass">✓ {} passed</span>').format(len(verdict.gates))
    return Markup('<span class="fail">✗ {}</span>').format(", ".join(verdict.failed))
