"""Writes ``docs/hostile-input.md`` from the tables that the tests run."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "hostile-input.md"
HEAD = """# Hostile input

Every case is a test in `tests/hostile`; this page is written from the same tables by
`python tests/hostile/page.py`. A dash means that the refusal is about the whole object.
"""


OTHERS = ("ACCEPTED", "AUDITED")  # files that are no BadObject


def cell(value):
    """A cell of a Markdown table, printable and on one line."""
    text = "-" if value in (None, "") else str(value)
    text = text if len(text) <= 90 else f"{text[:60]}... ({len(text)} characters)"
    return text.encode("unicode_escape").decode().replace("|", "\\|").replace("`", "'")


def table(title, state, columns, rows):
    """A section: what stays as it was, then the cases."""
    lines = [
        f"\n## {title}\n",
        f"{state}\n",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    lines += [f"| {' | '.join(cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def files():
    """Tables of bad files: (what, builder, row, column, reason) or (what, builder, reason)."""
    import bad_files

    for name, rows in sorted(vars(bad_files).items()):
        tuples = isinstance(rows, list) and rows and isinstance(rows[0], tuple)
        if (
            name.isupper()
            and name not in OTHERS
            and tuples
            and len(rows[0]) > 2
            and callable(rows[0][1])
        ):
            yield table(
                f"Files: {name.lower()}",
                "Quarantined as `BadObject` naming the object; the version before it and every "
                "published manifest stay.",
                ["case", "row", "column", "reason"],
                [
                    (row[0], *(row[2:-1] if len(row) == 5 else (None, None)), row[-1])
                    for row in rows
                ],
            )


def page():
    """The whole page."""
    from bad_files import ACCEPTED, AUDITED
    from bad_keys import ADMITTED, LANDED
    from bad_pipelines import PIPELINES
    from test_archives import TABLE as ARCHIVES
    from test_requests import TABLE as REQUESTS

    return HEAD + "".join(
        [
            table(
                "Files that are accepted",
                "Read into the rows that are meant.",
                ["case", "rows (age, city, bought)"],
                [(what, "; ".join(map(str, rows))) for what, _, rows in ACCEPTED],
            ),
            *files(),
            table(
                "Files that the audit refuses",
                "`NotProven` from the check named; the processed data before it stays published.",
                ["case", "check", "reason"],
                [(what, check, reason) for what, _, check, reason in AUDITED],
            ),
            table(
                "Object names: landed",
                "Taken in, or quarantined with the reason; nothing is written outside the "
                "pipeline's own folders.",
                ["case", "partition", "reason"],
                [(what, partition, reason or "accepted") for what, _, partition, reason in LANDED],
            ),
            table(
                "Object names: given to `ingest`",
                "`BadObject` before anything is written.",
                ["case", "reason"],
                [(what, reason or "accepted") for what, _, reason in ADMITTED],
            ),
            table(
                "Pipeline files",
                "`InvalidSpec` naming the file, the same sentence from the commands and from "
                "Dagster; the other pipelines load.",
                ["case", "line", "reason"],
                [(what, line, reason) for what, _, line, reason in PIPELINES],
            ),
            table(
                "Archives",
                "`NotProven`; nothing is unpacked or loaded, and what serves goes on serving.",
                ["case", "rule", "object", "words"],
                [(row.what, row.rule, row.object, row.word) for row in ARCHIVES],
            ),
            table(
                "Requests",
                "Refused with the status and a sentence; the server serves on.",
                ["case", "status", "words"],
                [(what, *row[-2:]) for what, row in REQUESTS.items()],
            ),
        ]
    )


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    PAGE.write_text(page(), "utf-8")
