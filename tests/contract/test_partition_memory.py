"""A partition may be larger than what its taking in holds: memory does not grow with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

TAKE_IN = """
import resource, sys
from functools import partial
from pathlib import Path

import numpy as np

from ml_control.core import tabular
from ml_control.core.pipeline import Pipeline
from ml_control.platform import open_platform
from ml_control.services.data import staging
from ml_control.services.data.dataset import admit, process
from ml_control.services.arrivals.intake import take_in
from ml_control.settings import load_settings
from ml_control.spec import PipelineSpec

# What is held is parts and blocks: the smaller file must have several of each.
staging._PART_ROWS = 50_000
tabular.text_blocks = partial(tabular.text_blocks, block=4 << 20)
home, megabytes, day = Path(sys.argv[1]), int(sys.argv[2]), "2026-03-04"
names = [f"f{i}" for i in range(12)]
pipeline = Pipeline(PipelineSpec.model_validate({
    "name": "shop",
    "source": {"format": "csv", "partition": {"start": day}},
    "columns": {
        "target": "bought",
        "features": [{"name": name, "type": "number"} for name in names],
        "task": "binary",
        "positive": "1",
    },
}))
platform = open_platform(load_settings(home=home))
file = platform.settings.landing / "shop" / f"dt={day}" / "a.csv"
file.parent.mkdir(parents=True)
random, left = np.random.default_rng(1), megabytes * 1_000_000
with file.open("wb") as stream:
    stream.write(",".join([*names, "bought"]).encode() + b"\\n")
    while left > 0:
        # Equal endings over different beginnings: distinct rows, at the price of copying text.
        left -= stream.write(b"".join(
            b"%d.%06d," % (random.integers(1000), place) + tail
            for place, tail in enumerate(TAILS)
        ))
take_in(platform, pipeline, settle=0.0)
admit(platform, pipeline, day, "run")
done = process(platform, pipeline, day, "run")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kilobytes = peak // 1024 if sys.platform == "darwin" else peak
print(done.published, done.manifest.rows, len(done.manifest.files), kilobytes)
"""
TAILS = """
import random as plain
plain.seed(5)
TAILS = [
    ",".join(f"{plain.random():.9f}" for _ in range(11)).encode() + b",%d\\n" % (place % 2)
    for place in range(40_000)
]
"""


def peak(tmp_path, megabytes: int) -> tuple[int, int]:
    """Rows taken in and the peak of resident kilobytes of a process that took them in."""
    ended = subprocess.run(
        [sys.executable, "-c", TAILS + TAKE_IN, str(tmp_path / str(megabytes)), str(megabytes)],
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert 0 == ended.returncode, ended.stderr
    published, rows, files, kilobytes = ended.stdout.split()[-4:]
    assert "True" == published
    assert int(files) == -(-int(rows) // 50_000)
    return int(rows), int(kilobytes)


@pytest.mark.timeout(240)
def test_memory_does_not_grow_with_the_partition(tmp_path):
    """With 80 MB more of CSV, admitting and publishing holds at most half of that more.

    As typed rows the difference alone takes 70 MB, as text 80 MB.
    """
    fewer, low = peak(tmp_path, 30)
    more, high = peak(tmp_path, 110)

    assert more > 3 * fewer
    assert 40_000 > high - low, (low, high)
