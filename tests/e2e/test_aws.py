"""``platform: aws`` from an object that is put to a promoted model, on emulators."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cloud import PIPELINE, Cloud
from emulators import REGION, credentials, fresh_settings, moto_url

from ml_control.aws.client import Clients
from ml_control.testing.account import make_account
from ml_control.testing.sagemaker import FakeSageMaker
from ml_control.testing.samples import write_tumours

ROOT = Path(__file__).parents[2]
DAYS = [(datetime.now(UTC).date() - timedelta(days=back)).isoformat() for back in (3, 2, 1)]
ROLLOUT = """
  rollout:
    strategy: ab_test
    metric: {name: value, kind: mean}
    min_samples: 30
    shadow_requests: 5
    keep_alive: 1 h
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """An account, a pipeline with an A/B test, ``dagster dev`` and a gateway."""
    root = tmp_path_factory.mktemp("aws")
    with (
        credentials(),
        FakeSageMaker(s3=moto_url(), home=root / "sagemaker", region=REGION) as sagemaker,
    ):
        urls = dict.fromkeys(("sagemaker", "sagemaker-runtime", "logs"), sagemaker.url)
        settings = fresh_settings()
        settings = settings.model_copy(update={"endpoint_urls": {**settings.endpoint_urls, **urls}})
        installation = Cloud(root / "home", root / "pipelines", make_account(settings))
        shutil.copytree(ROOT / "pipelines" / PIPELINE, root / "pipelines" / PIPELINE)
        file = root / "pipelines" / PIPELINE / "defs.yaml"
        text = file.read_text().replace("2026-01-01", DAYS[0])
        text = text.replace("champion: {margin: 0.03}", "champion: {margin: 0.2}")
        text = text.replace("  format: csv", "  format: csv\n    quiet: 0 s", 1)
        file.write_text(text + ROLLOUT)
        write_tumours(root / "files", DAYS)
        installation.files = root / "files"
        installation.start_dagster()
        installation.start_gateway()
        try:
            yield installation
        finally:
            installation.end()


def put(cloud: Cloud, day: str) -> str:
    """Put a day's file into the raw bucket, as any client does; its version."""
    data = (cloud.files / f"dt={day}" / "tumours.csv").read_bytes()
    key = f"{PIPELINE}/dt={day}/tumours.csv"
    s3 = Clients(cloud.aws).client("s3")
    return s3.put_object(Bucket=cloud.aws.bucket("raw"), Key=key, Body=data)["VersionId"]


def records(cloud: Cloud, count: int) -> list[dict[str, float]]:
    """Records to predict."""
    with (cloud.files / f"dt={DAYS[0]}" / "tumours.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[:count]
    return [{k: float(v) for k, v in row.items() if k != "diagnosis"} for row in rows]


def test_an_object_that_is_put_becomes_a_serving_model(cloud):
    """Two objects go by event, queue and sensor to a model that answers through the gateway."""
    versions = [put(cloud, day) for day in DAYS[:2]]
    live = cloud.await_(cloud.live, "a model in service", 240)

    done = cloud.command("events", PIPELINE, "--json")
    found = {event["version"]: event["state"] for event in json.loads(done.stdout)["events"]}
    assert dict.fromkeys(versions, "done") == found
    answer = cloud.ask(records(cloud, 3), "first")
    assert live["model_version"] == answer["model_version"]
    assert {"malignant", "benign"} >= {p["label"] for p in answer["predictions"]}


def test_a_better_challenger_is_promoted(cloud):
    """New data makes a challenger; entities stick to their variant, outcomes promote it."""
    first = cloud.await_(cloud.live, "a model in service", 240)["model_version"]
    put(cloud, DAYS[2])
    challenger = cloud.await_(cloud.challenger, "a challenger with traffic", 240)
    assert challenger != first
    record = records(cloud, 1)

    def one(number: int) -> dict[str, object]:
        answer = cloud.ask(record, f"entity-{number}")
        if number < 5:
            assert answer["variant"] == cloud.ask(record, f"entity-{number}")["variant"]
        good = answer["model_version"] == challenger
        cloud.tell(answer["request_id"], [{"value": 1.0 if good else 0.1 * (number % 3)}])
        return answer

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, range(160)))
    served = Counter(answer["model_version"] for answer in answers)

    assert {first, challenger} == set(served)
    assert min(served.values()) >= 40

    def promoted() -> bool:
        live = cloud.live()
        return bool(live) and live["model_version"] == challenger

    cloud.await_(promoted, "the challenger promoted", 120)
    history = cloud.command("history", PIPELINE, "--verify", "--json")
    assert 0 == history.returncode, history.stderr
    assert "promoted" in history.stdout
    group = f"/ml-control/{cloud.aws.project}-{cloud.aws.environment}/metrics"
    logs = Clients(cloud.aws).client("logs")
    told = logs.filter_log_events(logGroupName=group, filterPattern='"VariantWeight"')["events"]
    assert told, "CloudWatch was told no metrics"
