"""The transform step: published rows as the numeric, label-first files that a container reads."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.core.digests import digest_of
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Dataset
from ml_control.platform import Platform
from ml_control.services.dataset import load_processed, read_parquet

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from ml_control.core.features import FeatureSpec

GOLDEN_ROWS = 24


@dataclass(frozen=True)
class Channels:
    """Files of one (dataset, FeatureSpec): training channels, golden rows, held-out rows."""

    folder: Path
    golden_records: list[dict[str, Any]]

    @property
    def training(self) -> dict[str, list[Path]]:
        """The channels that the training job sees; the test split is not among them."""
        return {
            "train": [self.folder / "train.csv"],
            "validation": [self.folder / "validation.csv"],
        }

    def features(self, name: str) -> Path:
        """Feature rows without label: golden, validation or test."""
        return self.folder / f"{name}_features.csv"

    def target(self, split: str) -> np.ndarray:
        """Encoded target of a held-out split, in the order of its feature rows."""
        import numpy as np

        target: np.ndarray = np.load(self.folder / f"{split}_target.npy")
        return target


def profiles(platform: Platform, dataset: Dataset) -> list[dict[str, Any]]:
    """The profile of each part, oldest first."""
    return [load_processed(platform, p.path, p.digest).profile for p in dataset.parts]


def frames(platform: Platform, dataset: Dataset) -> Iterator[pl.DataFrame]:
    """The published rows, one file at a time, their bytes checked against the manifests."""
    for part in dataset.parts:
        for file in load_processed(platform, part.path, part.digest).files:
            yield read_parquet(platform, file)


def write_channels(
    platform: Platform, pipeline: Pipeline, dataset: Dataset, features: FeatureSpec
) -> Channels:
    """Write the files, or take those that an earlier run finished for the same key."""
    import numpy as np

    from ml_control.core.features import csv_lines, csv_row

    key = digest_of([dataset.digest, features.digest, pipeline.transform_digest])[:20]
    folder = platform.lake.local_path(f"artifacts/{pipeline.name}/channels/{key}/done.json").parent
    done = folder / "done.json"
    if done.is_file():
        return Channels(folder, json.loads(done.read_text("utf-8")))

    outputs = {name: io.BytesIO() for name in ("train", "validation", "test")}
    bare = {name: io.BytesIO() for name in ("validation", "test")}
    targets: dict[str, list[np.ndarray]] = {"validation": [], "test": []}
    records: list[dict[str, Any]] = []
    for frame in frames(platform, dataset):
        for split, output in outputs.items():
            part = frame.filter(frame["split"] == split)
            if part.height == 0:
                continue
            matrix = features.encode_frame(part)
            target = features.encode_target(part[pipeline.spec.columns.target])
            output.writelines(csv_lines(np.column_stack([target, matrix])))
            if split in bare:
                bare[split].writelines(csv_lines(matrix))
                targets[split].append(target)
            if split == "train" and len(records) < GOLDEN_ROWS:
                records += _records(part.head(GOLDEN_ROWS - len(records)), features)
    records += synthetic(features)
    golden = "\n".join(csv_row(features.encode_record(record)) for record in records) + "\n"

    for name, output in outputs.items():
        (folder / f"{name}.csv").write_bytes(output.getvalue())
    for name, output in bare.items():
        (folder / f"{name}_features.csv").write_bytes(output.getvalue())
        kept = targets[name]
        empty = np.zeros(0, dtype=np.float32)
        np.save(folder / f"{name}_target.npy", np.concatenate(kept) if kept else empty)
    (folder / "golden_features.csv").write_text(golden, "utf-8")
    partial = folder / "done.json.partial"
    partial.write_text(json.dumps(records), "utf-8")
    partial.replace(done)
    return Channels(folder, records)


def write_test_features(
    platform: Platform, dataset: Dataset, features: FeatureSpec, path: Path
) -> None:
    """The dataset's test rows, encoded by another model's FeatureSpec."""
    from ml_control.core.features import csv_lines

    with path.open("wb") as stream:
        for frame in frames(platform, dataset):
            part = frame.filter(frame["split"] == "test")
            if part.height:
                stream.writelines(csv_lines(features.encode_frame(part)))


def _records(part: pl.DataFrame, features: FeatureSpec) -> list[dict[str, Any]]:
    names = [feature.name for feature in features.features]
    records: list[dict[str, Any]] = part.select(names).to_dicts()
    return records


def synthetic(features: FeatureSpec) -> list[dict[str, Any]]:
    """Records at the edges: everything missing, unseen categories, extremes on both sides."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    unseen: dict[str, Any] = {}
    missing: dict[str, Any] = {}
    for feature in features.features:
        if feature.kind == "image":
            size = feature.height * feature.width * (1 if feature.mode == "grey" else 3)
            low[feature.name], high[feature.name] = [0] * size, [255] * size
            unseen[feature.name] = [(7 * i) % 256 for i in range(size)]
            missing[feature.name] = [128] * size
        elif feature.kind == "number":
            least = feature.min if feature.min is not None else -1e6
            most = feature.max if feature.max is not None else 1e6
            low[feature.name], high[feature.name] = least, most
            unseen[feature.name], missing[feature.name] = most + 1.0, None
        else:
            first = feature.levels[0] if feature.levels else None
            last = feature.levels[-1] if feature.levels else None
            low[feature.name], high[feature.name] = first, last
            unseen[feature.name], missing[feature.name] = "\u0000 never seen", None
    return [low, high, unseen, missing]


def golden_document(
    records: list[dict[str, Any]], features: FeatureSpec, predictions: list[list[float]]
) -> Mapping[str, Any]:
    """What ``golden.json`` holds: raw records, their rows, and the trainer's own answers."""
    from ml_control.core.features import csv_row

    return {
        "format": 1,
        "columns": list(features.columns),
        "records": records,
        "rows": [csv_row(features.encode_record(record)) for record in records],
        "predictions": predictions,
    }
