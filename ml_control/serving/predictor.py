"""A loaded booster that answers as fast as XGBoost allows, and never differently."""

from __future__ import annotations

import ctypes
import json
import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ml_control.errors import PlatformFailed
from ml_control.serving.proving import trees_served

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CONFIG = {
    "type": 0,  # the transformed prediction, like Booster.predict
    "training": False,
    "strict_shape": False,
    "missing": float("nan"),
    "cache_id": 0,
}


class Predictor:
    """Predictions of one model, bit for bit those of ``booster.predict(DMatrix)``.

    For one row most of the time goes into XGBoost's Python wrappers, so this calls the C function
    beneath them. It does so only after both ways have agreed on a set of probe rows; a booster
    for which they do not (or that the C function refuses, such as gblinear) is asked the slow way.

    Not thread-safe: call it from one thread.
    """

    def __init__(self, model: bytes) -> None:
        """Load a UBJ or JSON model. Raises ``PlatformFailed`` with XGBoost's words."""
        import xgboost

        self._booster: Any = xgboost.Booster({"nthread": 1})
        try:
            self._booster.load_model(bytearray(model))
            self.num_features = int(self._booster.num_features())
            self._range = trees_served(self._booster)
            self._predict: Callable[[NDArray[np.float32]], NDArray[np.float32]] = self._matrix
            probes = self._probes()
            wanted = self._matrix(probes)
        except xgboost.core.XGBoostError as error:
            raise PlatformFailed(
                "xgboost-model",
                f"XGBoost {xgboost.__version__} cannot load or use it: {_first_line(error)}",
                "train the model again with this version of XGBoost",
            ) from error
        for proxy in (True, False):
            try:
                direct = self._prepare_direct(proxy=proxy)
                agreed = direct(probes)
            except xgboost.core.XGBoostError:
                continue
            if (agreed.shape, agreed.tobytes()) == (wanted.shape, wanted.tobytes()):
                self._predict = direct
                return

    @property
    def direct(self) -> bool:
        """Whether the C function is used, having proven equal on the probe rows."""
        return self._predict != self._matrix

    @property
    def objective(self) -> str:
        """The name of the objective that the model was trained with."""
        return str(self._config()["objective"]["name"])

    @property
    def num_class(self) -> int:
        """The number of classes of a multiclass model, else 0."""
        return int(self._config()["learner_model_param"]["num_class"])

    def _config(self) -> Any:
        return json.loads(self._booster.save_config())["learner"]

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predictions of shape (rows,) or (rows, classes) for float32 rows of all features."""
        return self._predict(rows)

    def _probes(self) -> NDArray[np.float32]:
        """Rows over several magnitudes, some with missing values, always the same."""
        import numpy as np

        random = np.random.default_rng(0)
        rows = random.normal(size=(64, self.num_features))
        rows *= 10.0 ** random.integers(-2, 6, size=rows.shape)
        rows[random.random(rows.shape) < 0.2] = np.nan
        rows[0], rows[1] = 0.0, np.nan
        return rows.astype(np.float32)

    def _matrix(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        import xgboost

        matrix = xgboost.DMatrix(rows, missing=float("nan"), nthread=1)
        answer: NDArray[np.float32] = self._booster.predict(
            matrix, iteration_range=self._range, validate_features=False
        )
        return answer

    def _prepare_direct(
        self, *, proxy: bool
    ) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """The C function on rows in memory. Without a proxy of ours it makes one for each call,
        and for each of those reads the control group's files, which takes longer than 100 trees.
        """
        import numpy as np
        from xgboost.core import _LIB, XGBoostError

        function = _LIB.XGBoosterPredictFromDense
        handle = self._booster.handle
        begin, end = self._range
        config = json.dumps({**_CONFIG, "iteration_begin": begin, "iteration_end": end}).encode()
        matrix = ctypes.c_void_p()
        if proxy:
            if _LIB.XGProxyDMatrixCreate(ctypes.byref(matrix)) != 0:
                raise XGBoostError(_LIB.XGBGetLastError().decode(errors="replace"))
            weakref.finalize(self, _LIB.XGDMatrixFree, matrix)
        shape = ctypes.POINTER(ctypes.c_uint64)()
        dimensions = ctypes.c_uint64()
        answer = ctypes.POINTER(ctypes.c_float)()
        outputs = ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(answer)

        def direct(rows: NDArray[np.float32]) -> NDArray[np.float32]:
            rows = np.ascontiguousarray(rows, dtype=np.float32)
            interface = (
                f'{{"data":[{rows.ctypes.data},true],"shape":[{rows.shape[0]},{rows.shape[1]}],'
                '"typestr":"<f4","version":3}'
            ).encode()
            if function(handle, interface, config, matrix, *outputs) != 0:
                raise XGBoostError(_LIB.XGBGetLastError().decode(errors="replace"))
            size = shape[: dimensions.value]
            # string_at copies: XGBoost reuses its buffer for the next answer.
            flat = np.frombuffer(ctypes.string_at(answer, math.prod(size) * 4), dtype=np.float32)
            return flat.reshape(size)

        return direct


def _first_line(error: BaseException) -> str:
    """The sentence of an XGBoost error without its stack trace."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
