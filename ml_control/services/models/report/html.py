"""The parts of a page: everything that is not HTML already is escaped on its way in."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

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
vertical-align:top;overflow-wrap:break-word}
td{max-width:26em}span.pass,span.fail{white-space:nowrap}
th{color:var(--dim);font-weight:600;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:13px ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
img{max-width:100%;height:auto;display:block}
svg{width:120px;height:28px;fill:#0072B2;display:block}
figure{margin:0 0 16px}figcaption{color:var(--dim);font-size:13px}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px}
.wide{grid-column:1/-1}
@media(max-width:600px){main{padding:8px}section{padding:12px}body{font-size:14px}}
.note{color:var(--dim);font-size:13px;margin:8px 0 0}
"""


class Html(str):
    """Text that is already HTML; everything else is escaped on its way in."""

    __slots__ = ()


class Number(str):
    """Text of a number, set flush right."""

    __slots__ = ()


def section(title: str, body: str) -> str:
    """A titled box of the page."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a head; every value is escaped."""
    head = "".join(_cell(text, "th") for text in heads)
    body = "".join(f"<tr>{''.join(_cell(value, 'td') for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def pairs(named: Iterable[tuple[str, Any]]) -> str:
    """A table of names and values."""
    rows = "".join(f"<tr>{_cell(name, 'th')}{_cell(value, 'td')}</tr>" for name, value in named)
    return f"<table><tbody>{rows}</tbody></table>"


def _cell(value: Any, tag: str) -> str:
    kind = ' class="n"' if isinstance(value, Number) else ""
    text = value if isinstance(value, Html) else escape(str(value))
    return f"<{tag}{kind}>{text}</{tag}>"


def mark(passed: bool, reason: str = "") -> Html:  # noqa: FBT001 - a mark is of a truth value
    """A yes or no in colour and word, the reason behind it."""
    kind, word = ("pass", "✓ yes") if passed else ("fail", "✗ no")
    return Html(f'<span class="{kind}" title="{escape(reason)}">{word}</span>')


def code(text: str) -> Html:
    """A digest or name in fixed width."""
    return Html(f"<code>{escape(text)}</code>")


def number(value: Any) -> Number:
    """A number flush right, to six significant digits; empty for None."""
    if value is None:
        return Number("")
    return Number(f"{value:,}" if isinstance(value, int) else f"{value:.6g}")


def figure(title: str, png: bytes, *, wide: bool = False) -> str:
    """A picture inside the page, with its title."""
    data = base64.b64encode(png).decode("ascii")
    name = escape(title)
    kind = ' class="wide"' if wide else ""
    return (
        f'<figure{kind}><img alt="{name}" src="data:image/png;base64,{data}">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def missing(reason: str) -> str:
    """Why something is not there."""
    return f'<p class="note">{escape(reason)}</p>'


def page(title: str, body: str) -> bytes:
    """A whole document, UTF-8."""
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
    return text.encode("utf-8", "replace")


def histogram(counts: Sequence[float], widths: Sequence[float] | None = None) -> Html:
    """Small bars, as high as the counts (for each unit of width, where widths are given)."""
    sizes = [max(float(width), 0.0) for width in widths or [1.0] * len(counts)]
    total = sum(sizes)
    if not counts or total <= 0:
        return Html("")
    heights = [count / size if size else 0.0 for count, size in zip(counts, sizes, strict=True)]
    most = max(heights) or 1.0
    bars, at = [], 0.0
    for height, size in zip(heights, sizes, strict=True):
        wide, high = 120 * size / total, 26 * height / most
        bars.append(
            f'<rect x="{at:.2f}" y="{28 - high:.2f}" width="{wide:.2f}" height="{high:.2f}"></rect>'
        )
        at += wide
    return Html(f'<svg viewBox="0 0 120 28" aria-hidden="true">{"".join(bars)}</svg>')


def some_rows(rows: Sequence[Any], most: int) -> tuple[Sequence[Any], str]:
    """At most so many rows, and a note about those left out."""
    left = len(rows) - most
    return rows[:most], f'<p class="note">and {left:,} more.</p>' if left > 0 else ""
