"""What ``up`` looks at beside the endpoints: whether Dagster's sensors tick."""

from __future__ import annotations

import time
from contextlib import suppress

from ml_control.cli.context import App
from ml_control.errors import MlControlError
from ml_control.local.files import write_json
from ml_control.services.reading.metrics import TICKS_FILE

_EVERY_SECONDS = 15.0


class SensorWatch:
    """Raises an alert for each sensor that stopped ticking, and clears it when it ticks again."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._began = time.time()
        self._not_before = 0.0

    def look(self) -> None:
        """One look, at most every quarter of a minute."""
        from dagster import DagsterError, DagsterInstance

        from ml_control.sensors.stalled import last_ticks

        if time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + _EVERY_SECONDS
        # What cannot be read now is read at a later look: Dagster's storage may be busy.
        with suppress(MlControlError, DagsterError, OSError), DagsterInstance.get() as instance:
            seen: dict[str, float] = {}
            for pipeline in self._app.folder.found:
                ticks = last_ticks(instance, pipeline)
                seen |= {name: last for name, last in ticks.items() if last}
                self._look_at(ticks, pipeline)
            # For whoever knows no Dagster: the gateway tells it to Prometheus.
            write_json(self._app.settings.home / TICKS_FILE, seen)

    def _look_at(self, ticks: dict[str, float | None], pipeline: str) -> None:
        from ml_control.sensors.stalled import stalled
        from ml_control.services.alerts import STALLED, alert_stalled, attend, clear_alert

        platform = self._app.platform
        found = stalled(ticks, time.time(), self._began)
        for name, seconds in found.items():
            if seconds is not None:
                alert_stalled(platform, pipeline, name, seconds)
            else:
                clear_alert(platform, pipeline, STALLED, name)
        if any(seconds is not None for seconds in found.values()):
            attend(platform, pipeline)  # the arrivals sensor, which does it, may be the stalled one
