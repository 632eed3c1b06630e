"""What a partition's drift is measured against."""

import json

from ml_control.core.profile import merge
from ml_control.services.data.dataset import admit, load_processed, process
from ml_control.services.data.drift import drift_reference


def test_before_any_model_there_is_no_reference(audited_template, tmp_path):
    """Published data alone is no reference: drift is from what a model was trained on."""
    home = audited_template.copy_to(tmp_path / "home")

    assert drift_reference(home.platform, home.pipeline()) is None


def test_the_newest_models_data_is_the_reference(trained_template, tmp_path):
    """It is the merged profile of the model's parts, kept in the lake and made again if damaged."""
    home = trained_template.copy_to(tmp_path / "home")
    platform, pipeline = home.platform, home.pipeline()
    model = platform.registry.models.candidate(pipeline.name)
    parts = [load_processed(platform, p.path, p.digest).profile for p in model.dataset.parts]
    path = f"artifacts/{pipeline.name}/profiles/{model.dataset.digest}.json"

    first = drift_reference(platform, pipeline)
    kept = json.loads(platform.lake.get(path))
    platform.lake.put(path, b"{damaged")
    again = drift_reference(platform, pipeline)

    merged = merge(parts)
    expected = {**merged, "model": model.version, "dataset": model.dataset.digest}
    assert expected == first == again
    assert merged == kept == json.loads(platform.lake.get(path))


def test_a_reference_that_is_lost_is_told(trained_template, tmp_path):
    """When a part's manifest is gone, the partition's check says so and does not stop it."""
    home = trained_template.copy_to(tmp_path / "home")
    platform, pipeline = home.platform, home.pipeline()
    model = platform.registry.models.candidate(pipeline.name)
    platform.lake.delete(model.dataset.parts[0].path)

    found = drift_reference(platform, pipeline)

    assert "is not in the lake" in found["unavailable"]


def test_a_partition_is_compared_when_it_is_processed(trained_template, tmp_path):
    """Processing a day after training records its drift from the model's data."""
    home = trained_template.copy_to(tmp_path / "home")
    home.land(home.days[2])
    home.take_in()
    admit(home.platform, home.pipeline(), home.days[2], "r")

    done = process(home.platform, home.pipeline(), home.days[2], "r")

    drift = next(check for check in done.audit.checks if check.name == "drift")
    model = home.platform.registry.models.candidate("tumours")
    assert (model.version, 31) == (drift.details["model"], len(drift.details["psi"]))
    assert done.published
