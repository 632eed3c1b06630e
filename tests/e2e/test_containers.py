"""Every container version trains, proves and serves every kind of task."""

from __future__ import annotations

from dataclasses import replace

import pytest
from claims import DAY, GATES, write_claims, write_pipeline

from ml_control.platform import open_platform
from ml_control.services.arrivals.intake import take_in
from ml_control.services.authoring.pipelines import read_folder
from ml_control.services.data.dataset import admit, process
from ml_control.services.models.gatekeeper import require_once_proven
from ml_control.services.models.training import train
from ml_control.services.releases.deployment import answer_golden, deploy
from ml_control.settings import load_settings

SERVED = {  # one task on each version; all of them are trained and replayed on each
    "1.5-1": "multiclass",
    "1.7-1": "regression",
    "3.0-5": "binary",
    "3.2-0": "multiclass",
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A home and its pipelines: one for each task, with published data."""
    root = tmp_path_factory.mktemp("containers")
    platform = open_platform(load_settings(root / "home", root / "pipelines"))
    for task in GATES:
        write_pipeline(root / "pipelines", task, task)
        write_claims(platform.settings.landing / task / f"dt={DAY}" / "claims.csv", task, rows=600)
        pipeline = read_folder(root / "pipelines").get(task)
        take_in(platform, pipeline, settle=0.0)
        admit(platform, pipeline, DAY, "setup")
        assert process(platform, pipeline, DAY, "setup").published
    yield platform, root / "pipelines"
    for task in GATES:
        for variant in "ab":
            platform.endpoints.stop(f"{task}-{variant}")


def on_container(folder, task, tag):
    """The pipeline of a task, trained on a container."""
    pipeline = read_folder(folder).get(task)
    training = pipeline.spec.training.model_copy(update={"container": tag})
    spec = pipeline.spec.model_copy(update={"training": training})
    return replace(pipeline, spec=spec)


@pytest.mark.parametrize("tag", SERVED)
def test_a_container_trains_proves_and_serves(published, tag):
    """Each task passes its gates, the golden replay and the witness among them, in the exact
    version; what is served then answers the golden records as in training.
    """
    platform, folder = published
    for task in GATES:
        pipeline = on_container(folder, task, tag)
        done = train(platform, pipeline, f"train-{tag}", lambda _: None)

        gates = {gate.name: gate for gate in done.verdict.gates}
        assert [] == done.verdict.failed, (task, done.verdict.to_json())
        assert {"golden", "witness"} <= set(gates)
        assert tag == done.model.container
        if SERVED[tag] == task:
            deployed = deploy(platform, pipeline, f"deploy-{tag}", lambda _: None)
            proven = require_once_proven(platform, pipeline, done.model.version)
            assert 28 == deployed.golden_rows
            assert 28 == answer_golden(platform, deployed.state.name, proven)
            assert done.model.version == deployed.state.model_version
