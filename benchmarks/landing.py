"""From a file landing to its model in service under ``up``, against a bare script by hand."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.run import NAME, bare, write_shop
from ml_control.cli.demo import start_up, stop_up
from ml_control.cli.observer import Observer, until
from ml_control.platform import open_platform
from ml_control.settings import load_settings

_TIMES = """
query Times($filter: RunsFilter!) {
  runsOrError(filter: $filter) {
    ... on Runs {
      results { creationTime startTime stepStats { stepKey startTime endTime } }
    }
  }
}"""


def main() -> None:
    """Print each step's start and length, and the whole against the bare script."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data, day = write_shop(root)
        file = root / "pipelines" / NAME / "defs.yaml"
        text = file.read_text("utf-8")
        # One file is not a burst: nothing else is to be waited for.
        file.write_text(text.replace("source:", "source:\n    quiet: 0 s", 1), "utf-8")
        bare(root, data)  # warms the disk's cache up
        rival, _ = bare(root, data)
        observer = Observer(root, root / "pipelines")
        up = start_up(observer, 0)
        try:
            total = _measure(observer, data, day)
        finally:
            stop_up(observer, up)
    print(f"bare script {rival:.1f} s: ratio {total / rival:.2f} (goal: at most 4)")


def _measure(observer: Observer, data: Path, day: str) -> float:
    target = observer.home / "landing" / NAME / f"dt={day}" / data.name
    target.parent.mkdir(parents=True)
    landed = time.time()
    target.write_bytes(data.read_bytes())
    platform = open_platform(load_settings(home=observer.home))
    # Asked of the registry: a command a second would take the processor from what is measured.
    until(lambda: platform.registry.rollouts.get(NAME).live, "a model in service", 180, every=0.1)
    (event,) = platform.registry.ledger.events(NAME)
    (promoted,) = [
        item for item in platform.registry.history.decisions(NAME) if item.action == "promoted"
    ]
    rows = [("recorded (settle 2 s, then a tick)", landed, event.recorded_at)]
    work = 0.0
    for job in ("ingest", "train"):
        found = observer.graphql(_TIMES, {"filter": {"pipelineName": f"{NAME}__{job}"}})
        run = found["runsOrError"]["results"][0]
        rows.append((f"{job}: wait for a tick", rows[-1][2], run["creationTime"]))
        rows.append((f"{job}: start of its process", run["creationTime"], run["startTime"]))
        for step in run["stepStats"]:
            rows.append((f"{job}: {step['stepKey']}", step["startTime"], step["endTime"]))
            work += step["endTime"] - step["startTime"]
    for name, start, end in rows:
        print(f"{start - landed:6.1f} s  {end - start:6.1f} s  {name}")
    total = promoted.at - landed
    print(f"landing to routed {total:.1f} s, of which the steps {work:.1f} s")
    return total
