"""The reviewed table of object names: where each goes, or why it is set aside or refused.

None of them may leave the pipeline's own folders, whatever becomes of it.
"""

from __future__ import annotations

DAY = "dt=2026-03-04"
CONTROL = "control characters or is not text"

# Files dropped into the landing folder: (what, name below it, partition or None, part of reason).
# With a partition and no reason the object is taken in under that partition.
LANDED = [
    ("plain", f"{DAY}/a.csv", "2026-03-04", ""),
    ("emoji", f"{DAY}/\U0001f600.csv", "2026-03-04", ""),
    ("255 bytes", f"{DAY}/{'x' * 251}.csv", "2026-03-04", ""),
    ("255 bytes of two-byte letters", f"{DAY}/{'é' * 125}.csv", "2026-03-04", ""),
    ("trailing dots", f"{DAY}/a.csv...", "2026-03-04", ""),
    ("two dots inside", f"{DAY}/a..csv", "2026-03-04", ""),
    ("upload suffix", f"{DAY}/a.csv#1", "2026-03-04", ""),
    ("upper case", f"{DAY}/A.csv", "2026-03-04", ""),
    ("leading space", f"{DAY}/ a.csv", "2026-03-04", ""),
    ("leading dash", f"{DAY}/-rf.csv", "2026-03-04", ""),
    ("encoded traversal", f"{DAY}/%2e%2e%2fx.csv", "2026-03-04", ""),
    ("backslash traversal", f"{DAY}/a\\..\\..\\x.csv", "2026-03-04", ""),
    ("date in a date", f"{DAY}/dt=2026-03-05/a.csv", "2026-03-04", ""),
    ("date as file name", f"{DAY}/dt=2026-03-05", "2026-03-04", ""),
    ("newline", f"{DAY}/a\nb.csv", "2026-03-04", CONTROL),
    ("line separator", f"{DAY}/\u2028.csv", "2026-03-04", CONTROL),
    ("terminal escape", f"{DAY}/\x1b[2J.csv", "2026-03-04", CONTROL),
    ("delete character", f"{DAY}/a.csv\x7f", "2026-03-04", CONTROL),
    ("bytes that are no UTF-8", f"{DAY}/\udcff.csv", "2026-03-04", CONTROL),
    ("date that goes up", "dt=../a.csv", None, "dt=.. is no date"),
    ("empty date", "dt=/a.csv", None, "dt= is no date"),
    ("no such month", "dt=2026-13-01/a.csv", None, "dt=2026-13-01 is no date"),
    ("text behind the date", "dt=2026-03-04x/a.csv", None, "is no date"),
    ("upload suffix behind the date", f"{DAY}#1/a.csv", None, "is no date"),
    ("before the first partition", "dt=2020-01-01/a.csv", None, "before the first partition"),
]

# Names given to ``ingest``: (what, key below the pipeline, part of the reason); "" is accepted.
ADMITTED = [
    ("goes up", "../x.csv", "no key below the pipeline's folder"),
    ("goes down and up", "a/../../x.csv", "no key below the pipeline's folder"),
    ("absolute", "/etc/x.csv", "no key below the pipeline's folder"),
    ("empty", "", "no key below the pipeline's folder"),
    ("the folder itself", ".", "no key below the pipeline's folder"),
    ("newline", "a\nb.csv", CONTROL),
    ("NUL", "a\0b.csv", CONTROL),
    ("date that goes up", "dt=2026-03-04/../../y/x.csv", "no key below the pipeline's folder"),
    ("empty part", "a//b.csv", ""),
    ("same folder", "a/./b.csv", ""),
    ("300 letters", "x" * 300 + ".csv", ""),
    ("upload suffix", "a.csv#1", ""),
]
