"""Models as the container finds, loads and asks them. A pickle executes what it holds, as there."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.serving.proving import trees_served

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def load_models(folder: Path) -> list[Any]:
    """Every top-level file that is not hidden, loaded. Several are an ensemble.

    Raises ``IndexError`` when there is none, ``RuntimeError`` when one is no model.
    """
    paths = [
        folder / name
        for name in os.listdir(folder)  # noqa: PTH208 - in the container's own order
        if not name.startswith(".") and (folder / name).is_file()
    ]
    boosters = [_load(path) for path in paths]
    boosters[0].set_param({"nthread": 1})  # without any file, the container fails right here
    return boosters


def _load(path: Path) -> Any:
    import xgboost

    try:
        with path.open("rb") as file:
            booster = pickle.load(file)  # noqa: S301 - the container does it, and first of all
    except Exception as first:
        try:
            booster = xgboost.Booster()
            booster.load_model(str(path))
        except Exception as second:
            raise RuntimeError(
                f"Model {path} cannot be loaded:\n"
                f"Pickle load error={first}\nXGB load model error={second}"
            ) from second
    booster.set_param({"nthread": 1})
    return booster


class Ensemble:
    """Loaded models as the endpoint server asks for a model; answers are their mean."""

    direct = False

    def __init__(self, boosters: list[Any]) -> None:
        self._boosters = boosters
        self.num_features = int(boosters[0].num_features())

    @property
    def objective(self) -> str:
        """The first model's objective."""
        return str(self._config()["objective"]["name"])

    @property
    def num_class(self) -> int:
        """Classes of a multiclass model, else 0."""
        return int(self._config()["learner_model_param"]["num_class"])

    def _config(self) -> Any:
        return json.loads(self._boosters[0].save_config())["learner"]

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predictions of float32 rows of all features: (rows,) or (rows, classes)."""
        import numpy as np
        import xgboost

        matrix = xgboost.DMatrix(rows, missing=float("nan"), nthread=1)
        answers = [
            booster.predict(matrix, iteration_range=trees_served(booster), validate_features=False)
            for booster in self._boosters
        ]
        if len(answers) == 1:
            return np.asarray(answers[0], np.float32)
        return np.asarray(np.mean(answers, axis=0), np.float32)
