"""What is and what was, for readers over HTTP."""

from __future__ import annotations

from typing import Any

from ml_control.errors import MlControlError
from ml_control.gateway.state import State
from ml_control.services.reading import timeline, views


class LiveViews:
    """``handlers.desk.Views`` over the services."""

    def __init__(self, state: State) -> None:
        self._state = state

    def pipelines(self) -> dict[str, Any]:
        """Every pipeline now; why the others are not usable."""
        folder, platform = self._state.folder, self._state.platform
        found, broken = [], {name: error.to_dict() for name, error in folder.broken.items()}
        for name, pipeline in folder.found.items():
            try:
                found.append(views.status(platform, pipeline))
            except MlControlError as error:  # one does not hide the others
                broken[name] = error.to_dict()
        return {"pipelines": found, "broken": broken}

    def pipeline(self, pipeline: str) -> dict[str, Any]:
        """One pipeline now."""
        return views.status(self._state.platform, self._state.pipeline(pipeline))

    def history(self, pipeline: str) -> dict[str, Any]:
        """Every decision about a pipeline."""
        found = self._state.pipeline(pipeline)
        return timeline.history(self._state.platform, found)
