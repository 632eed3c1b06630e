"""From a file landing to its model in service, under a running ``up``: where the time goes."""

from __future__ import annotations

import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ml_control.cli.acts import Story, live
from ml_control.cli.demo import examples, start_up, stop_up
from ml_control.cli.observer import Observer, until
from ml_control.platform import open_platform
from ml_control.settings import load_settings
from ml_control.testing.samples import write_tumours

PIPELINE = "tumours"
_TIMES = """
query Times($filter: RunsFilter!) {
  runsOrError(filter: $filter) {
    ... on Runs {
      results { creationTime startTime stepStats { stepKey startTime endTime } }
    }
  }
}"""


def main() -> None:
    """Print each step's start and length, and the sum against the work alone."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(examples() / PIPELINE, home / "pipelines" / PIPELINE)
        observer = Observer(home, home / "pipelines")
        up = start_up(observer, 0)
        try:
            _measure(observer, Story(observer, home / "staging"))
        finally:
            stop_up(observer, up)


def _measure(observer: Observer, story: Story) -> None:
    day = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    write_tumours(story.staging, [day])
    target = story.landing / PIPELINE / f"dt={day}"
    landed = time.time()
    shutil.copytree(story.staging / f"dt={day}", target)
    until(live(story, PIPELINE), "a model in service", 180, every=0.25)
    platform = open_platform(load_settings(home=observer.home))
    (event,) = platform.registry.ledger.events(PIPELINE)
    (promoted,) = [
        item for item in platform.registry.history.decisions(PIPELINE) if item.action == "promoted"
    ]
    rows = [("recorded (settle 2 s, then a tick)", landed, event.recorded_at)]
    work = 0.0
    for job in ("ingest", "train"):
        found = observer.graphql(_TIMES, {"filter": {"pipelineName": f"{PIPELINE}__{job}"}})
        run = found["runsOrError"]["results"][0]
        rows.append((f"{job}: wait for a tick", rows[-1][2], run["creationTime"]))
        rows.append((f"{job}: start of its process", run["creationTime"], run["startTime"]))
        for step in run["stepStats"]:
            rows.append((f"{job}: {step['stepKey']}", step["startTime"], step["endTime"]))
            work += step["endTime"] - step["startTime"]
    for name, start, end in rows:
        print(f"{start - landed:6.1f} s  {end - start:6.1f} s  {name}")
    total = promoted.at - landed
    print(f"landing to routed: {total:.1f} s; steps alone {work:.1f} s; ratio {total / work:.2f}")
