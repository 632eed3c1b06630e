"""Bad pipeline files: the commands and Dagster refuse the same ones with the same words."""

from __future__ import annotations

import time
import warnings

import dagster as dg
import pytest
from bad_pipelines import GOOD, PIPELINES

from ml_control.definitions import load_pipelines
from ml_control.errors import InvalidSpec
from ml_control.services.authoring.pipelines import read_folder, read_pipeline


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with every bad file, and a good one among them."""
    root = tmp_path_factory.mktemp("pipelines")
    for number, (_, text, _, _) in enumerate(PIPELINES):
        file = root / f"bad_{number}" / "defs.yaml"
        file.parent.mkdir()
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        (file.parent / "x.py").write_text("raise SystemExit('a file beside it was run')\n")
    (root / "good").mkdir()
    (root / "good" / "defs.yaml").write_text(GOOD)
    return root


@pytest.fixture(scope="module")
def by_dagster(root):
    """What Dagster's own loading path says of each folder, and how long it took for all."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        loaded, broken = load_pipelines(root)
    return loaded, broken, time.perf_counter() - began


@pytest.mark.parametrize("number", range(len(PIPELINES)), ids=[row[0] for row in PIPELINES])
def test_a_bad_pipeline_file_is_refused_alike_by_commands_and_dagster(root, by_dagster, number):
    """File, line and reason are named; Dagster leaves it out with the same sentence."""
    _, _, line, reason = PIPELINES[number]
    file = root / f"bad_{number}" / "defs.yaml"

    with pytest.raises(InvalidSpec) as refused:
        read_pipeline(file)

    error = refused.value
    assert error.object.startswith(f"{file}:{line}" if line else str(file))
    assert reason in error.reason
    assert error.next
    assert len(str(error)) < 1500
    assert str(error) == by_dagster[1][file.parent.name]


def test_all_bad_files_together_hide_no_good_one_and_take_no_time(root, by_dagster):
    """Beside them all the good pipeline loads, on both paths, and nothing is expanded."""
    loaded, broken, seconds = by_dagster

    folder = read_folder(root)

    assert ["good"] == list(folder.found), broken
    assert 1 == len(loaded), broken.get("good")
    assert len(PIPELINES) == len(broken) == len(folder.broken)
    assert seconds < 60
