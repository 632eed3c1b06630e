"""A training job's channels as XGBoost's matrices, in memory that does not grow with their text.

The text of a channel is parsed once, into a scratch file of float32 rows. XGBoost takes blocks
of it as often as it likes: the bins of a histogram are built without the values ever being in
memory at once. Which matrix gives which trees was tried on every version that a container has:

=================  ================================  =========================================
tree_method        in memory                         external memory (``external``)
=================  ================================  =========================================
hist (auto from    ``QuantileDMatrix`` over blocks,  ``ExtMemQuantileDMatrix`` (3.x), ``DMatrix``
2.0)               from 1.7                          with a cache (1.x): the same trees, bit for
                                                     bit
approx, exact      ``DMatrix``                       refused: other trees, or none
=================  ================================  =========================================

The validation channel is never put into the bins of the training channel: a value beyond the
last of them would be judged otherwise than by the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.local.hyperparameters import Refused
from ml_control.serving.proving import read_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_BLOCK = 8 << 20  # bytes of float32 given to XGBoost at once
_PAGE = 32 << 20  # the same with external memory, where every block becomes a page on disk


class Unusable(ValueError):
    """Training data or configuration that cannot be used; the text says what and where."""


@dataclass(frozen=True)
class Rows:
    """A channel on disk: float32 rows of the label, the weight if there is one, the features."""

    path: Path
    count: int
    width: int
    weighted: bool = False

    @property
    def lead(self) -> int:
        """How many columns come before the features."""
        return 2 if self.weighted else 1

    @property
    def features(self) -> int:
        """Columns that are features."""
        return self.width - self.lead

    def blocks(self, size: int = _BLOCK) -> Iterator[dict[str, Floats]]:
        """``label``, ``weight`` and ``data`` (n, features) of about ``size`` bytes of rows."""
        import numpy as np

        step = max(1, size // (4 * self.width)) * self.width
        # Read, not mapped: pages of a mapped file count as this process's memory.
        with self.path.open("rb") as file:
            while (block := np.fromfile(file, np.float32, step)).size:
                rows = block.reshape(-1, self.width)
                found = {"label": rows[:, 0].copy(), "data": rows[:, self.lead :].copy()}
                if self.weighted:
                    found["weight"] = rows[:, 1].copy()
                yield found


def read_channel(folder: Path, scratch: Path, *, weighted: bool = False) -> Rows:
    """Parse the CSV files of a channel, by name, into ``scratch``, which is overwritten.

    Raises ``Unusable`` naming the file for a header, an unusable cell or rows of different
    lengths, and the row for a label, a weight or a feature that cannot be trained on.
    """
    if not folder.is_dir():
        raise Unusable(f"channel {folder.name} is required for training")
    count = width = 0
    least = 3 if weighted else 2
    with scratch.open("wb") as out:
        for path in sorted(path for path in folder.glob("*.csv") if path.is_file()):
            try:
                for block in read_rows(path):
                    width = width or block.shape[1]
                    if width < least:
                        needed = "a label, a weight" if weighted else "a label"
                        raise Unusable(f"a row needs {needed} and at least one feature")
                    if block.shape[1] != width:
                        raise Unusable(
                            f"has {block.shape[1]} columns, the rows before have {width}"
                        )
                    _check(block, count, weighted=weighted)
                    block.tofile(out)
                    count += len(block)
            except ValueError as error:
                where = f"channel {folder.name}: {path.name}"
                raise Unusable(f"{where}: {_explain(path, error)}") from None
    if not count:
        raise Unusable(f"channel {folder.name}: there is no row of data in its *.csv files")
    return Rows(scratch, count, width, weighted)


def _check(block: Floats, before: int, *, weighted: bool) -> None:
    import numpy as np

    lead = 2 if weighted else 1
    wrong = [
        (~np.isfinite(block[:, 0]), "has no finite label in column 1"),
        (np.isinf(block[:, lead:]).any(axis=1), "has an infinite value"),
    ]
    if weighted:
        usable = np.isfinite(block[:, 1]) & (block[:, 1] >= 0)
        wrong.append((~usable, "has no weight of at least 0 in column 2"))
    for rows, why in wrong:
        if rows.any():
            raise Unusable(f"row {before + int(rows.argmax()) + 1} {why}")


def _explain(path: Path, error: ValueError) -> str:
    """The reader's words; where the first line is a header, that is what must be said."""
    with path.open("rb") as file:
        cells = file.readline(1 << 16).decode(errors="replace").rstrip("\r\n").split(",")
    for cell in cells:
        try:
            float(cell or "nan")
        except ValueError:
            return f"begins with a header ({cell.strip()[:40]!r}); training data must have none"
    return str(error)


def training_matrix(rows: Rows, params: Mapping[str, Any], *, external: bool) -> Any:
    """The training channel as the matrix that its tree method wants; see the module."""
    import xgboost

    common = _common(params)
    bins = {"max_bin": params.get("max_bin", 256)}
    if external:
        check_external(params)
        if version() >= (3,):
            return xgboost.ExtMemQuantileDMatrix(_iterator(rows, "train"), **bins, **common)
        return xgboost.DMatrix(_iterator(rows, "train"), **common)
    if _histogram(params) and version() >= (1, 7):
        return xgboost.QuantileDMatrix(_iterator(rows), **bins, **common)
    return _whole(rows, common)


def watched_matrix(rows: Rows, params: Mapping[str, Any], *, external: bool) -> Any:
    """The validation channel with its values as they are."""
    import xgboost

    if external:
        return xgboost.DMatrix(_iterator(rows, "validation"), **_common(params))
    return _whole(rows, _common(params))


def check_external(params: Mapping[str, Any]) -> None:
    """Raises ``Refused`` for what does not give the same trees from external memory."""
    if params.get("booster", "gbtree") != "gbtree":
        raise Refused(
            f"Hyperparameter booster: {params['booster']} cannot be trained from external memory; "
            "raise training.memory_mb or use gbtree"
        )
    if not _histogram(params):
        raise Refused(
            f"Hyperparameter tree_method: {params.get('tree_method', 'auto')} cannot be trained "
            "from external memory; use hist or raise training.memory_mb"
        )


def version() -> tuple[int, ...]:
    """Major and minor version of this interpreter's XGBoost."""
    import xgboost

    return tuple(int(part) for part in xgboost.__version__.split(".")[:2])


def _histogram(params: Mapping[str, Any]) -> bool:
    """Whether trees are grown from bins; before 2.0 only when asked for."""
    if params.get("booster") == "gblinear":
        return False
    method = params.get("tree_method", "auto")
    return method == "hist" or (method == "auto" and version() >= (2,))


def _common(params: Mapping[str, Any]) -> dict[str, Any]:
    return {"missing": float("nan"), "nthread": params["nthread"]}


def _whole(rows: Rows, common: Mapping[str, Any]) -> Any:
    """A matrix from one array, filled in place: the peak is the data once, and XGBoost's own."""
    import numpy as np
    import xgboost

    data = np.empty((rows.count, rows.features), np.float32)
    names = ["label", "weight"] if rows.weighted else ["label"]
    ends: dict[str, list[Floats]] = {name: [] for name in names}
    filled = 0
    for block in rows.blocks():
        part = block.pop("data")
        data[filled : filled + len(part)] = part
        filled += len(part)
        for name, values in block.items():
            ends[name].append(values)
    return xgboost.DMatrix(data, **{n: np.concatenate(v) for n, v in ends.items()}, **common)


def _iterator(rows: Rows, cache: str = "") -> Any:
    """The blocks as XGBoost asks for them; with a cache it keeps its own pages on disk."""
    import xgboost

    class Blocks(xgboost.DataIter):
        def __init__(self) -> None:
            self._left: Iterator[dict[str, Floats]] = iter(())
            super().__init__(str(rows.path.with_name(f"{cache}-pages")) if cache else None)

        def next(self, give: Any) -> bool:
            block = next(self._left, None)
            if block is None:
                return False
            give(**block)
            return True

        def reset(self) -> None:
            self._left = rows.blocks(_PAGE if cache else _BLOCK)

    return Blocks()
