"""Encodings of a small shop's records, for the stream's suites."""

from __future__ import annotations

from ml_control.core.features import FeatureSpec

FEATURES = FeatureSpec.model_validate(
    {
        "task": "binary",
        "labels": ("no", "yes"),
        "features": [
            {"kind": "number", "name": "age", "min": 0, "max": 120},
            {"kind": "number", "name": "income"},
            {"kind": "category", "name": "plan", "levels": ("a", "b"), "encoding": "onehot"},
            {"kind": "category", "name": "city", "levels": ("x", "y"), "encoding": "ordinal"},
        ],
        "missing": ("", "NA"),
        "ignore": ("id", "target"),
    }
)
NUMBERS = FeatureSpec.model_validate(
    {
        "task": "regression",
        "features": [{"kind": "number", "name": "a"}, {"kind": "number", "name": "b", "min": 0}],
    }
)
