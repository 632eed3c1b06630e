"""The Dagster instance of a home: its dagster.yaml, and no welcome window."""

from __future__ import annotations

import os
from pathlib import Path

from ml_control.settings import Settings

_CONFIG = """\
# Written by ml-control when absent; yours to change.
telemetry:
  enabled: false
# Runs start at once: queueing adds seconds between a file landing and its model serving.
run_coordinator:
  module: dagster.core.run_coordinator
  class: DefaultRunCoordinator
sensors:
  use_threads: true
  num_workers: 4
"""


def prepare_dagster_home(settings: Settings) -> Path:
    """Make DAGSTER_HOME usable and point this process at it; what is there already stays."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(_CONFIG, "utf-8")
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    skip_welcome_window()
    return home


def skip_welcome_window() -> None:
    """Tell the Dagster UI that its community window was seen: it would cover the first page."""
    from dagster._core import nux

    if not nux.get_has_seen_nux():  # type: ignore[no-untyped-call]
        nux.set_nux_seen()  # type: ignore[no-untyped-call]
