"""Many records as one matrix: what ``FeatureSpec.encode_record`` gives for each, column by column.

Records that are plain (all of the same keys, numbers where numbers are, texts where categories
are) are turned at once; whatever else there is goes through the features' own cells, so that the
numbers and the refusals are the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ml_control.core.features import FeatureSpec
from ml_control.core.kinds import CategoryFeature, ImageFeature, NumberFeature
from ml_control.errors import BadObject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NUMBERS = frozenset({float, int})
_TEXTS = frozenset({str, type(None)})


def encode_records(
    features: FeatureSpec, records: Sequence[Mapping[str, Any]]
) -> NDArray[np.float32]:
    """The records as float32 of shape (records, width).

    Raises ``BadObject`` with ``row`` (from 1) and ``column`` for the first that does not fit.
    """
    rows = _rows(features, records)
    if rows is None:
        return _one_by_one(features, records)
    try:
        return encode_rows(features, rows)
    except (ValueError, OverflowError, TypeError):
        return _one_by_one(features, records)  # which says whose fault it is


def encode_rows(features: FeatureSpec, rows: list[tuple[Any, ...]]) -> NDArray[np.float32]:
    """The same from the values of each record, in the features' order.

    Raises ``ValueError``, ``OverflowError`` or ``TypeError`` when one does not fit; which one that
    is, encoding one record after the other tells.
    """
    if all(isinstance(feature, NumberFeature) for feature in features.features):
        return _numbers(features, rows)
    return _by_column(features, rows)


def _rows(
    features: FeatureSpec, records: Sequence[Mapping[str, Any]]
) -> list[tuple[Any, ...]] | None:
    """The values in the features' order, or None where a record has not exactly them as keys."""
    names = [feature.name for feature in features.features]
    if len(names) < 2 or any(isinstance(item, ImageFeature) for item in features.features):
        return None
    if set(map(len, records)) != {len(names)}:
        return None
    try:
        return list(map(itemgetter(*names), records))
    except KeyError:
        return None


def _numbers(features: FeatureSpec, rows: list[tuple[Any, ...]]) -> NDArray[np.float32]:
    """All values at once, where every feature is a number."""
    import numpy as np

    if not set(map(type, chain.from_iterable(rows))) <= _NUMBERS:
        return _by_column(features, rows)
    width = len(features.features)
    flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)
    if not np.isfinite(flat).all():
        raise ValueError("not finite")
    values = flat.reshape(len(rows), width)
    for place, feature in enumerate(features.features):
        if isinstance(feature, NumberFeature) and (feature.min, feature.max) != (None, None):
            _clip(feature, values[:, place])
    return _narrow(values)


def _by_column(features: FeatureSpec, rows: list[tuple[Any, ...]]) -> NDArray[np.float32]:
    """One feature after the other. Raises ``ValueError`` for a value that does not fit."""
    import numpy as np

    missing = frozenset(features.missing)
    columns = zip(*rows, strict=True)
    blocks = [_block(f, c, missing) for f, c in zip(features.features, columns, strict=True)]
    return np.concatenate(blocks, axis=1)


def _block(
    feature: NumberFeature | CategoryFeature | ImageFeature,
    values: tuple[Any, ...],
    missing: frozenset[str],
) -> NDArray[np.float32]:
    """One feature's columns. Raises ``ValueError`` for a value that does not fit."""
    import numpy as np

    kinds = set(map(type, values))
    if isinstance(feature, NumberFeature) and kinds - {type(None)} <= _NUMBERS:
        numbers = np.array(values, dtype=np.float64)
        if np.count_nonzero(~np.isfinite(numbers)) != values.count(None):
            raise ValueError("not finite")
        _clip(feature, numbers)
        return _narrow(numbers)[:, np.newaxis]
    if isinstance(feature, CategoryFeature) and kinds <= _TEXTS:
        cells = {value: feature.cells(value, missing) for value in set(values)}
        return np.array([cells[value] for value in values], dtype=np.float32)
    if isinstance(feature, ImageFeature):
        raise TypeError("an image is no cell")
    return np.array([feature.cells(value, missing) for value in values], dtype=np.float32)


def _clip(feature: NumberFeature, values: NDArray[np.float64]) -> None:
    """Make what lies outside the feature's range missing, in place."""
    import numpy as np

    if feature.min is not None:
        values[values < feature.min] = np.nan
    if feature.max is not None:
        values[values > feature.max] = np.nan


def _narrow(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """As float32; what it cannot hold is missing."""
    import numpy as np

    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    narrow[np.isinf(narrow)] = np.nan
    return narrow


def _one_by_one(features: FeatureSpec, records: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    import numpy as np

    rows = []
    for place, record in enumerate(records, 1):
        try:
            rows.append(features.encode_record(record))
        except BadObject as error:
            detail = {**error.detail, "row": place}
            raise BadObject(f"record {place}", error.reason, error.next, **detail) from None
    return np.array(rows, dtype=np.float32).reshape(len(rows), features.width)
