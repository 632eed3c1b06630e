"""Ten thousand files in a burst: all accounted for, and one run for each partition touched."""

from __future__ import annotations

import threading
import time

import dagster as dg
import pytest

from ml_control.resources import PlatformResource

FILES, DAYS = 10_000, ("2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07")
PIPELINE = """\
type: ml_control.components.ModelPipeline
attributes:
  source:
    format: csv
    partition: {by: day, start: "2024-01-01"}
    settle: 0 s
    quiet: 3 s
    max_wait: 10 min
  columns:
    target: answer
    task: binary
    positive: "yes"
    features:
      - {name: size, type: number}
  quality: {min_rows: 1}
  retrain: {automatic: false}
"""


@pytest.mark.timeout(240)
def test_a_burst_gives_one_run_for_each_partition(home, instance):
    """While ticks run, 10,000 files land in four partitions; then four runs are asked for."""
    (home.pipelines / "burst").mkdir()
    (home.pipelines / "burst" / "defs.yaml").write_text(PIPELINE, "utf-8")
    definitions = home.definitions()
    sensor = definitions.resolve_sensor_def("burst__arrivals")
    landing = home.settings.landing / "burst"
    for day in DAYS:
        (landing / f"dt={day}").mkdir(parents=True)

    def land():
        for i in range(FILES):
            text = f"size,answer\n{i},{'yes' if i % 3 else 'no'}\n"
            draft = landing / f".{i}"
            draft.write_text(text)
            draft.rename(landing / f"dt={DAYS[i % len(DAYS)]}" / f"{i}.csv")

    writer = threading.Thread(target=land)
    writer.start()
    requests, reasons, ledger = [], [], home.platform.registry.ledger
    deadline = time.monotonic() + 180
    while len(requests) < len(DAYS) and time.monotonic() < deadline:
        with dg.build_sensor_context(
            instance=instance,
            definitions=definitions,
            resources={"ml_control": PlatformResource(home=str(home.path))},
        ) as context:
            found = sensor.evaluate_tick(context)
        requests += found.run_requests or []
        reasons.append(found.skip_message or "")
        time.sleep(0.2)
    writer.join()

    assert list(DAYS) == sorted(request.partition_key for request in requests)
    assert any("waiting: " in reason and "quiet for" in reason for reason in reasons)
    assert {"pending": FILES} == {k: v for k, v in ledger.counts("burst").items() if v}
    job = definitions.resolve_job_def("burst__ingest")
    share = FILES // len(DAYS)
    assert job.execute_in_process(  # one of them: reading thousands of objects takes its time
        partition_key=DAYS[0],
        instance=instance,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    ).success
    counts = {k: v for k, v in ledger.counts("burst").items() if v}
    assert {"done": share, "pending": FILES - share} == counts
    assert share == home.platform.registry.partitions.get("burst", DAYS[0]).processed.rows
    assert list(DAYS[1:]) == [mark.partition for mark in ledger.waiting("burst")]
    assert 1 == instance.get_runs_count()
