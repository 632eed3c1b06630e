"""The assets as Dagster runs them: what each records, and what none of them can be made to do."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from ml_control.errors import Conflict, NotProven
from ml_control.services.data.audit import CHECK_NAMES
from ml_control.services.releases.reconcile import endpoint_name
from ml_control.testing.samples import write_digits

DAY, NEXT, LAST = "2024-03-04", "2024-03-05", "2024-03-06"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def memory(tmp_path):
    """A Dagster instance in memory: these tests read what a run recorded, not how it is kept."""
    with dg.DagsterInstance.ephemeral(str(tmp_path / "memory")) as instance:
        yield instance


def key(name, pipeline="tumours"):
    return dg.AssetKey([pipeline, name])


def run(home, instance, job, partition=None, only=(), tags=None):
    """Run a job of this home's pipelines in this process; raises what its step raised."""
    pipeline, _, _ = job.partition("__")
    return (
        home.definitions()
        .resolve_job_def(job)
        .execute_in_process(
            instance=instance,
            partition_key=partition,
            asset_selection=[key(name, pipeline) for name in only] or None,
            tags=tags,
            run_config=QUIET,
        )
    )


def evaluations(instance, asset, check):
    """(partition, passed) of every recorded evaluation of a check, oldest first."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(asset, check), limit=50
    )
    found = [record.event.asset_check_evaluation for record in records if record.event]
    return [(item.partition, item.passed) for item in reversed(found)]


def materialized(instance, asset):
    """Every materialization of an asset, oldest first."""
    records = instance.fetch_materializations(asset, limit=50, ascending=True).records
    return [record.asset_materialization for record in records]


def state(home, partition):
    return home.platform.registry.partitions.get("tumours", partition)


def served(home):
    """States of both endpoints, and what routing names."""
    rollout = home.platform.registry.rollouts.get("tumours")
    pipeline = home.pipeline()
    states = {
        name: home.platform.endpoints.describe(endpoint_name(pipeline, name)).state
        for name in ("a", "b")
    }
    return states, dict(rollout.variants), rollout.champion


NOTHING = ({"a": "Missing", "b": "Missing"}, {}, None)


def test_an_ingest_run_records_its_partition(home, memory):
    """Both data assets carry the manifests' digests as data versions, and row counts."""
    home.land(DAY)
    home.take_in()

    run(home, memory, "tumours__ingest", DAY)

    now = state(home, DAY)
    (raw,), (processed,) = materialized(memory, key("raw")), materialized(memory, key("processed"))
    assert (DAY, now.raw.digest) == (raw.partition, raw.tags["dagster/data_version"])
    assert (DAY, now.processed.digest) == (
        processed.partition,
        processed.tags["dagster/data_version"],
    )
    assert now.raw.rows == raw.metadata["dagster/row_count"].value == raw.metadata["rows"].value
    splits = sum(processed.metadata[name].value for name in ("train", "validation", "test"))
    assert now.processed.rows == processed.metadata["rows"].value == splits
    assert {"done": 1} == {
        name: count
        for name, count in home.platform.registry.ledger.counts("tumours").items()
        if count
    }


def test_checks_are_evaluated_for_their_partition(home, memory):
    """Each check of a partition's run is recorded once, for that partition and with a reason."""
    home.land(DAY)
    home.take_in()

    run(home, memory, "tumours__ingest", DAY)

    for name in ("objects_readable", "expectations"):
        assert [(DAY, True)] == evaluations(memory, key("raw"), name)
    for name in CHECK_NAMES:
        assert [(DAY, True)] == evaluations(memory, key("processed"), name)


def test_a_damaged_image_is_set_aside_and_named(home, memory):
    """The good images are published; the bad one is in the metadata, and its check says so."""
    home.add_pipeline("digits")
    landing = home.settings.landing / "digits"
    write_digits(landing, [DAY], 60)
    (landing / f"dt={DAY}" / "3" / "broken.png").write_bytes(b"no picture")
    home.take_in("digits")

    run(home, memory, "digits__ingest", DAY)

    (raw,) = materialized(memory, key("raw", "digits"))
    assert (60, 1) == (raw.metadata["rows"].value, raw.metadata["quarantined"].value)
    assert "broken.png" in raw.metadata["quarantine"].value
    assert [(DAY, False)] == evaluations(memory, key("raw", "digits"), "objects_readable")
    (processed,) = materialized(memory, key("processed", "digits"))
    assert 60 == processed.metadata["rows"].value


@pytest.mark.parametrize(
    ("bad", "check"),
    [({"label": "benign"}, "single_class"), ({"rows": 19}, "row_count")],
)
def test_a_bad_partition_is_refused_and_the_version_before_it_stays(audited, memory, bad, check):
    """The step fails naming the check; the published manifest is the one before."""
    before = state(audited, DAY)
    audited.land(DAY, **bad)
    audited.take_in()

    with pytest.raises(NotProven, match=check) as refused:
        run(audited, memory, "tumours__ingest", DAY)

    after = state(audited, DAY)
    assert DAY in refused.value.object
    assert before.raw.digest != after.raw.digest
    assert (before.processed, before.audit) == (after.processed, after.audit)
    assert after.refused.raw_digest == after.raw.digest
    assert [check] == [item.name for item in after.refused.checks if not item.passed]
    assert [(DAY, False)] == evaluations(memory, key("processed"), check)
    assert [] == materialized(memory, key("processed"))


def test_a_range_in_one_run_reports_each_partition(home, memory):
    """Every partition of the range is published, and has its own evaluation of every check."""
    home.land(*home.days)
    home.take_in()

    run(
        home,
        memory,
        "tumours__ingest",
        tags={ASSET_PARTITION_RANGE_START_TAG: DAY, ASSET_PARTITION_RANGE_END_TAG: LAST},
    )

    assert all(state(home, day).processed is not None for day in home.days)
    for asset, check in (("raw", "objects_readable"), *(("processed", n) for n in CHECK_NAMES)):
        found = evaluations(memory, key(asset), check)
        assert dict.fromkeys(home.days, True) == {
            day: passed for day, passed in found if day is not None
        }


def test_one_bad_partition_of_a_range_does_not_hold_back_the_others(home, memory):
    """The run fails for the bad one by name; the good ones are published."""
    home.land(DAY, LAST)
    home.land(NEXT, label="malignant")
    home.take_in()

    with pytest.raises(NotProven) as refused:
        run(
            home,
            memory,
            "tumours__ingest",
            tags={ASSET_PARTITION_RANGE_START_TAG: DAY, ASSET_PARTITION_RANGE_END_TAG: LAST},
        )

    assert f"tumours partition {NEXT}" == refused.value.object
    assert [True, False, True] == [state(home, d).processed is not None for d in home.days]
    found = dict(evaluations(memory, key("processed"), "single_class"))
    assert {DAY: True, NEXT: False, LAST: True} == {d: found[d] for d in home.days}


def test_a_model_is_not_trained_on_refused_data(home, memory):
    """Materialising ``model`` alone when every partition was refused is refused."""
    home.land(DAY, label="benign")
    home.take_in()
    with pytest.raises(NotProven):
        run(home, memory, "tumours__ingest", DAY)

    with pytest.raises(NotProven, match="no partition passed its data checks") as refused:
        run(home, memory, "tumours__train", only=["model"])

    assert DAY in refused.value.reason
    assert [] == home.platform.registry.models.all("tumours")


def _audit_missing(home):
    home.platform.registry.partitions.update(
        "tumours", NEXT, lambda now: now.model_copy(update={"audit": None})
    )


def _audit_failed(home):
    home.platform.registry.partitions.update(
        "tumours",
        NEXT,
        lambda now: now.model_copy(
            update={"audit": now.audit.model_copy(update={"passed": False})}
        ),
    )


def _audit_of_other_data(home):
    home.platform.registry.partitions.update(
        "tumours", NEXT, lambda now: now.model_copy(update={"audit": state(home, DAY).audit})
    )


def _suite_changed(home):
    home.edit('"max_value": 39.0', '"max_value": 38.0', file="expectations.json")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_audit_missing, "no recorded data check"),
        (_audit_of_other_data, "no recorded data check"),
        (_audit_failed, "failed its data checks"),
        (_suite_changed, "older quality configuration"),
    ],
)
def test_published_data_without_its_passing_check_is_not_trained_on(audited, memory, spoil, reason):
    """``model`` asks for the check of exactly each partition's data under the present suite."""
    spoil(audited)

    with pytest.raises(NotProven, match=reason) as refused:
        run(audited, memory, "tumours__train", only=["model"])

    assert f"tumours partition {NEXT}" == refused.value.object
    assert [] == audited.platform.registry.models.all("tumours")


def test_a_failed_gate_stops_the_run_before_the_endpoint(trained, memory):
    """The gate is shown as a failed blocking check of ``model``, and nothing is deployed."""
    trained.edit("auc: {min: 0.95}", "auc: {min: 0.95}, logloss: {max: 0.0001}")

    with pytest.raises(dg.DagsterError):
        run(trained, memory, "tumours__train")

    assert [(None, False)] == evaluations(memory, key("model"), "metric_logloss")
    assert [(None, True)] == evaluations(memory, key("model"), "metric_auc")
    (model,) = materialized(memory, key("model"))
    assert "refused: metric:logloss" == model.metadata["verdict"].value
    assert NOTHING == served(trained)


@pytest.mark.parametrize("asset", ["endpoint", "ab_config"])
def test_a_refused_model_is_deployed_by_no_asset_alone(trained, memory, asset):
    """Materialising a deployment asset by hand asks the verdict and is refused."""
    trained.edit("auc: {min: 0.95}", "auc: {min: 0.95}, logloss: {max: 0.0001}")
    assert not trained.train().verdict.passed

    with pytest.raises(NotProven, match="metric:logloss"):
        run(trained, memory, "tumours__train", only=[asset])

    assert NOTHING == served(trained)


@pytest.mark.parametrize("asset", ["endpoint", "ab_config"])
def test_gates_that_changed_since_the_verdict_are_asked_again(trained, memory, asset):
    """A verdict under other gates deploys nothing, even if they would pass."""
    trained.edit("auc: {min: 0.95}", "auc: {min: 0.94}")

    with pytest.raises(Conflict, match="the gates changed since its verdict"):
        run(trained, memory, "tumours__train", only=[asset])

    assert NOTHING == served(trained)


@pytest.mark.parametrize("file", ["model.tar.gz", "features.json", "golden.json"])
def test_a_verdict_covers_no_other_bytes(trained, memory, file):
    """One changed byte in any of a model's files, and its verdict deploys nothing."""
    model = trained.platform.registry.models.candidate("tumours")
    data = bytearray(trained.platform.lake.get(f"{model.prefix}/{file}"))
    data[-1] ^= 1
    trained.platform.lake.put(f"{model.prefix}/{file}", bytes(data))

    with pytest.raises(NotProven, match="not the ones that were judged"):
        run(trained, memory, "tumours__train", only=["endpoint"])

    assert NOTHING == served(trained)


def test_a_missing_file_of_a_model_is_not_proven(trained, memory):
    """A model without one of its files is refused by that file's name."""
    model = trained.platform.registry.models.candidate("tumours")
    trained.platform.lake.delete(f"{model.prefix}/golden.json")

    with pytest.raises(NotProven, match=r"golden\.json"):
        run(trained, memory, "tumours__train", only=["endpoint"])

    assert NOTHING == served(trained)


def test_traffic_moves_only_to_bytes_that_are_still_proven(trained, memory):
    """After the endpoint is up, ``ab_config`` alone still judges the bytes before it routes."""
    model = trained.platform.registry.models.candidate("tumours")
    features = f"{model.prefix}/features.json"
    good = trained.platform.lake.get(features)
    run(trained, memory, "tumours__train", only=["endpoint"])
    trained.platform.lake.put(features, good.replace(b'"version"', b'"versiom"') + b" ")

    with pytest.raises(NotProven, match="not the ones that were judged"):
        run(trained, memory, "tumours__train", only=["ab_config"])

    refused = trained.platform.registry.rollouts.get("tumours")
    assert (None, {"a": 0.0}) == (refused.champion, refused.weights)

    trained.platform.lake.put(features, good)
    run(trained, memory, "tumours__train", only=["ab_config"])

    (endpoint,), (config,) = (materialized(memory, key(n)) for n in ("endpoint", "ab_config"))
    assert model.version == endpoint.tags["dagster/data_version"]
    assert model.version == config.metadata["champion"].value
    assert {"a": 1.0} == config.metadata["weights"].value
    states, variants, champion = served(trained)
    assert ({"a": "InService", "b": "Missing"}, ["a"], model.version) == (
        states,
        list(variants),
        champion,
    )
