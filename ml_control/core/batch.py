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

_NUMBERS = frozenset({float, int, type(None)})
_TEXTS = frozenset({str, type(None)})


def encode_records(
    features: FeatureSpec, records: Sequence[Mapping[str, Any]]
) -> NDArray[np.float32]:
    """The records as float32 of shape (records, width).

    Raises ``BadObject`` with ``row`` (from 1) and ``column`` for the first that does not fit.
    """
    columns = _columns(features, records)
    if columns is None:
        return _one_by_one(features, records)
    try:
        return encode_columns(features, columns)
    except (ValueError, OverflowError, TypeError):
        return _one_by_one(features, records)  # which says whose fault it is


def encode_columns(
    features: FeatureSpec, columns: Sequence[tuple[Any, ...]]
) -> NDArray[np.float32]:
    """The same from the values of each feature, of which there is at least one.

    Raises ``ValueError``, ``OverflowError`` or ``TypeError`` when a value does not fit; which one
    that is, encoding one record after the other tells.
    """
    import numpy as np

    if all(isinstance(feature, NumberFeature) for feature in features.features):
        return _numbers(features, columns)
    matrix = np.empty((len(columns[0]), features.width), dtype=np.float32)
    at = 0
    missing = frozenset(features.missing)
    for feature, values in zip(features.features, columns, strict=True):
        end = at + len(feature.columns)
        matrix[:, at:end] = _block(feature, values, missing)
        at = end
    return matrix


def _columns(
    features: FeatureSpec, records: Sequence[Mapping[str, Any]]
) -> list[tuple[Any, ...]] | None:
    """The values by feature, or None where a record has not exactly the features as keys."""
    names = [feature.name for feature in features.features]
    if any(isinstance(feature, ImageFeature) for feature in features.features):
        return None
    if not records or set(map(len, records)) != {len(names)}:
        return None
    try:
        if len(names) == 1:
            return [tuple(record[names[0]] for record in records)]
        return list(zip(*map(itemgetter(*names), records), strict=True))
    except KeyError:
        return None


def _numbers(features: FeatureSpec, columns: Sequence[tuple[Any, ...]]) -> NDArray[np.float32]:
    """All columns at once, where every feature is a number."""
    import numpy as np

    if not set(map(type, chain.from_iterable(columns))) <= _NUMBERS:
        missing = frozenset(features.missing)
        blocks = [_block(f, c, missing) for f, c in zip(features.features, columns, strict=True)]
        return np.concatenate(blocks, axis=1)
    values = np.array(columns, dtype=np.float64)
    for feature, row in zip(features.features, values, strict=True):
        if isinstance(feature, NumberFeature):
            _clip(feature, row)
    return _narrow(np.ascontiguousarray(values.T))


def _block(
    feature: NumberFeature | CategoryFeature | ImageFeature,
    values: tuple[Any, ...],
    missing: frozenset[str],
) -> NDArray[np.float32]:
    """One feature's columns. Raises ``ValueError`` for a value that does not fit."""
    import numpy as np

    kinds = set(map(type, values))
    if isinstance(feature, NumberFeature) and kinds <= _NUMBERS:
        numbers = np.array(values, dtype=np.float64)
        _clip(feature, numbers)
        return _narrow(numbers)[:, np.newaxis]
    if isinstance(feature, CategoryFeature) and kinds <= _TEXTS:
        cells = {value: feature.cells(value, missing) for value in set(values)}
        return np.array([cells[value] for value in values], dtype=np.float32)
    if isinstance(feature, ImageFeature):
        raise TypeError("an image is no cell")
    return np.array([feature.cells(value, missing) for value in values], dtype=np.float32)


def _clip(feature: NumberFeature, values: NDArray[np.float64]) -> None:
    """Make what lies outside the feature's range missing, in place. Raises ``ValueError`` for
    infinite numbers.
    """
    import numpy as np

    if np.isinf(values).any():
        raise ValueError("infinite")
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
