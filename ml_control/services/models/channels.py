"""The transform step: published rows as the numeric, label-first files that a container reads."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.core.digests import digest_of
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Dataset
from ml_control.errors import PlatformFailed
from ml_control.platform import Platform
from ml_control.services.data.dataset import load_processed, read_parquet
from ml_control.services.data.seals import require_sealed, seal
from ml_control.services.models.golden import GoldenRows, synthetic

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from ml_control.core.features import FeatureSpec

SHARD_BYTES = 256 << 20  # a channel goes on in another file after so much
KEPT = 3  # channel folders of a pipeline that stay, the newest
_RUBBLE_SECONDS = 86_400.0
SPLITS = ("train", "validation", "test")
HELD_OUT = ("validation", "test")
RECORDS = "golden_records.json"


@dataclass(frozen=True)
class Channels:
    """Files of one (dataset, FeatureSpec): training channels, golden rows, held-out rows."""

    folder: Path
    golden_records: list[dict[str, Any]]

    @property
    def training(self) -> dict[str, list[Path]]:
        """The channels that the training job sees; the test split is not among them."""
        return {name: sorted(self.folder.glob(f"{name}-*.csv")) for name in SPLITS[:2]}

    def features(self, name: str) -> Path:
        """Feature rows without label: golden, validation or test."""
        return self.folder / f"{name}_features.csv"

    def target(self, split: str) -> np.ndarray:
        """Encoded target of a held-out split, in the order of its feature rows."""
        import numpy as np

        target: np.ndarray = np.load(self.folder / f"{split}_target.npy")
        return target

    def weight(self) -> np.ndarray | None:
        """Weights of the validation rows, or None where every row weighs the same."""
        import numpy as np

        path = self.folder / "validation_weight.npy"
        return np.load(path) if path.exists() else None


def profiles(platform: Platform, dataset: Dataset) -> list[dict[str, Any]]:
    """The profile of each part, oldest first."""
    return [load_processed(platform, p.path, p.digest).profile for p in dataset.parts]


def frames(platform: Platform, dataset: Dataset) -> Iterator[pl.DataFrame]:
    """The published rows, one file at a time, their bytes checked against the manifests."""
    for part in dataset.parts:
        for file in load_processed(platform, part.path, part.digest).files:
            yield read_parquet(platform, file)


def write_channels(
    platform: Platform,
    pipeline: Pipeline,
    dataset: Dataset,
    features: FeatureSpec,
    weights: Sequence[float] | None = None,
) -> Channels:
    """Write the files, or take those that an earlier run finished for the same key.

    ``weights`` of the classes, by code, become the second column of the channels that a training
    job reads. The files are written and synced in a private folder that gets its name when it is
    whole: another run, even one that was frozen here, can never change a file that a training
    job reads. Raises ``PlatformFailed`` when the disk refuses, and nothing is left behind then;
    ``BadObject`` when a file was changed since.
    """
    decides = [dataset.digest, features.digest, pipeline.transform_digest]
    key = digest_of([*decides, list(weights)] if weights else decides)[:20]
    place = f"artifacts/{pipeline.name}/channels/{key}"
    folder = platform.scratch(place)
    if not (folder / RECORDS).is_file():
        private = folder.with_name(f".{key}.{secrets.token_hex(4)}")
        try:
            private.mkdir()
            _write(private, platform, pipeline, dataset, features, weights)
            seal(private)
            _sync(private)
            if not _renamed(private, folder) and not (folder / RECORDS).is_file():
                raise OSError(f"{folder} is in the way")
        except OSError as error:
            with suppress(OSError):  # made empty when its path was asked for
                folder.rmdir()
            raise PlatformFailed(
                place, f"could not be written: {error}", "free space, then train again"
            ) from error
        finally:
            shutil.rmtree(private, ignore_errors=True)
    else:
        require_sealed(folder)
    return Channels(folder, json.loads((folder / RECORDS).read_text("utf-8")))


def _renamed(private: Path, folder: Path) -> bool:
    """Give the whole folder its name; False when another run's is there already."""
    try:
        private.rename(folder)  # replaces an empty folder, and no other
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _sync(folder: Path) -> None:
    """Have the files and their names on the disk itself before the folder gets its name."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def tidy(used: Channels) -> None:
    """Remove channel folders but those in use and the newest, and what a killed writer left.

    A running training job has its own links to its files, so this can never take them away. The
    caller holds the lease under which channels of this pipeline are written and read.
    """
    root = used.folder.parent
    named = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    named.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    kept = {used.folder, *[path for path in named if path != used.folder][: KEPT - 1]}
    old = time.time() - _RUBBLE_SECONDS
    for path in root.iterdir():
        rubble = path.name.startswith(".") and path.stat().st_mtime < old
        if rubble or (path in named and path not in kept):
            shutil.rmtree(path, ignore_errors=True)


class _Shards:
    """A channel's CSV files: the next one begins when the last has so many bytes."""

    def __init__(self, folder: Path, name: str, stack: ExitStack) -> None:
        self._folder, self._name, self._stack = folder, name, stack
        self._next = 0
        self._open()

    def _open(self) -> None:
        path = self._folder / f"{self._name}-{self._next:05d}.csv"
        self._file = self._stack.enter_context(path.open("wb"))
        self._next += 1

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Append chunks of whole lines."""
        for chunk in chunks:
            if self._file.tell() >= SHARD_BYTES:
                self._file.close()
                self._open()
            self._file.write(chunk)


def _write(
    folder: Path,
    platform: Platform,
    pipeline: Pipeline,
    dataset: Dataset,
    features: FeatureSpec,
    weights: Sequence[float] | None,
) -> None:
    """Stream the published rows, one file at a time, into the channel files."""
    import numpy as np

    from ml_control.core.features import csv_lines, csv_row

    by_code = np.asarray(weights or [], dtype=np.float32)
    targets: dict[str, list[np.ndarray]] = {name: [] for name in HELD_OUT}
    chosen = GoldenRows(features)
    with ExitStack() as stack:
        labelled = {name: _Shards(folder, name, stack) for name in SPLITS[:2]}
        bare = {n: stack.enter_context((folder / f"{n}_features.csv").open("wb")) for n in HELD_OUT}
        for frame in frames(platform, dataset):
            for split in SPLITS:
                part = frame.filter(frame["split"] == split)
                if part.height == 0:
                    continue
                matrix = features.encode_frame(part)
                target = features.encode_target(part[pipeline.spec.columns.target])
                if split in labelled:
                    lead = [target, by_code[target.astype(int)]] if weights else [target]
                    labelled[split].writelines(csv_lines(np.column_stack([*lead, matrix])))
                if split in bare:
                    bare[split].writelines(csv_lines(matrix))
                    targets[split].append(target)
                elif split == "train":
                    chosen.add(part)
    for name in HELD_OUT:
        empty = np.zeros(0, dtype=np.float32)
        kept = np.concatenate(targets[name]) if targets[name] else empty
        np.save(folder / f"{name}_target.npy", kept)
        if weights and name == "validation":
            np.save(folder / "validation_weight.npy", by_code[kept.astype(int)])
    records = [*chosen.records(), *synthetic(features)]
    rows = "".join(f"{csv_row(features.encode_record(record))}\n" for record in records)
    (folder / "golden_features.csv").write_text(rows, "utf-8")
    (folder / RECORDS).write_text(json.dumps(records), "utf-8")


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
