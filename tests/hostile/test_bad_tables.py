"""Bad JSON lines and Parquet through real intake: set aside, and nothing else moves."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from bad_tables import BAD, GOOD, spec

from ml_control.core.pipeline import Pipeline
from ml_control.platform import open_platform
from ml_control.services.arrivals.intake import take_in
from ml_control.services.data.dataset import admit, process
from ml_control.settings import load_settings

DAY = "2026-03-04"


@pytest.mark.parametrize(
    ("kind", "build", "row", "column", "reason"),
    [(case[0], *case[2:]) for case in BAD],
    ids=[f"{case[0]}: {case[1]}" for case in BAD],
)
def test_a_bad_table_is_set_aside(tmp_path, kind, build, row, column, reason):
    """The bad file is quarantined with its place and reason; the good one is published."""
    platform, pipeline = open_platform(load_settings(home=tmp_path)), Pipeline(spec(kind))
    folder = platform.settings.landing / "shop" / f"dt={DAY}"
    folder.mkdir(parents=True)
    (folder / f"good.{kind}").write_bytes(GOOD[kind])
    (folder / f"bad.{kind}").write_bytes(build())
    take_in(platform, pipeline, settle=0.0)

    done = admit(platform, pipeline, DAY, "run-1")

    bad = f"shop/dt={DAY}/bad.{kind}"
    assert [bad] == list(done.quarantined)
    assert reason in done.quarantined[bad]
    (key,) = platform.lake.list("logs/shop/quarantine")
    record = json.loads(platform.lake.get(key))
    assert (row, column) == (record["row"], record["column"])
    assert build() == platform.lake.get(record["path"])
    assert process(platform, pipeline, DAY, "run-1").published


_CHILD = """
import resource, sys
from ml_control.core.tabular import text_blocks
sys.path.insert(0, sys.argv[1])
from bad_files import SPEC
line = b"31.25,Rome,yes\\n"
def chunks():
    yield b"age,city,bought\\n"
    for _ in range(int(sys.argv[2])):
        yield line * 65536
rows = sum(frame.height for frame in text_blocks(chunks(), SPEC, "x.csv"))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_file(request):
    """Reading 480 MB of CSV takes hardly more memory than reading 100 MB."""

    def read(chunks):
        command = [sys.executable, "-c", _CHILD, str(request.path.parent), str(chunks)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows, peak = map(int, done.stdout.split())
        assert chunks * 65536 == rows
        return peak

    few, many = read(110), read(520)

    assert 150 > many - few  # MB; the typed rows of the difference alone are over 600
