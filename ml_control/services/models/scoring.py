"""Offline scoring: a published partition's rows through a proven model, kept in the lake once."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.core.artifact import unpack
from ml_control.core.containers import container
from ml_control.core.digests import canonical, digest_of
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import FileRef, Published
from ml_control.errors import BadObject, MlControlError, NotProven, PlatformFailed
from ml_control.lake import file_digest
from ml_control.platform import Platform
from ml_control.ports import ScoringJob
from ml_control.services.data.dataset import load_processed, read_parquet
from ml_control.services.models.gatekeeper import Proven, require_once_proven
from ml_control.services.models.progress import Say

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from ml_control.core.features import FeatureSpec

SUMMARY = "scores.json"  # written last: with it the scores are whole
_SECONDS = 900.0  # for one part, of at most 500,000 rows


@dataclass(frozen=True)
class Scored:
    """Where a partition's scores are, and of what."""

    partition: str
    data_version: str
    model_version: str
    rows: int
    files: tuple[FileRef, ...]
    folder: str  # lake key
    adopted: bool  # they were there already

    def to_json(self, uri: str) -> dict[str, Any]:
        """Plain data."""
        return {
            "partition": self.partition,
            "data_version": self.data_version,
            "model_version": self.model_version,
            "rows": self.rows,
            "files": [file.to_json() for file in self.files],
            "uri": uri,
            "adopted": self.adopted,
        }


def score(
    platform: Platform, pipeline: Pipeline, partition: str, say: Say, version: str | None = None
) -> Scored:
    """Score every row of a published partition, a file at a time, with the model's own container.

    The name is (data version, model version), so the same question has one answer: what is there
    is taken, and a run that died is done again to the same bytes. The model is the champion unless
    named. Raises ``NotProven`` for a model without a passing verdict for exactly its bytes, or when
    none is live, and ``BadObject`` for a partition that is not published or was changed.
    """
    champion = platform.registry.rollouts.get(pipeline.name).champion
    if version is None and champion is None:
        raise NotProven(
            pipeline.name, "no model is live", "name one with --version, or deploy one first"
        )
    proven = require_once_proven(platform, pipeline, version or champion or "")
    data = _published(platform, pipeline, partition)
    folder = (
        f"logs/{pipeline.name}/scores/dt={partition}/{data.digest[:16]}-{proven.model.version[:16]}"
    )
    if platform.lake.exists(f"{folder}/{SUMMARY}"):
        return _adopted(platform, folder, partition, data, proven)
    manifest = load_processed(platform, data.path, data.digest)
    files = [
        _score_part(platform, pipeline, file, f"{folder}/part-{number:05d}.parquet", proven, say)
        for number, file in enumerate(manifest.files)
    ]
    done = Scored(
        partition=partition,
        data_version=data.digest,
        model_version=proven.model.version,
        rows=sum(file.rows for file in files),
        files=tuple(files),
        folder=folder,
        adopted=False,
    )
    platform.lake.put(f"{folder}/{SUMMARY}", canonical(_summary(done)))
    return done


def _published(platform: Platform, pipeline: Pipeline, partition: str) -> Published:
    found = platform.registry.partitions.get(pipeline.name, partition).processed
    if found is None:
        raise BadObject(
            f"{pipeline.name} partition {partition}",
            "is not published",
            f"see the partitions in 'ml-control events {pipeline.name}', then 'ml-control run'",
        )
    return found


def _summary(done: Scored) -> dict[str, Any]:
    found = done.to_json("")
    return {name: found[name] for name in ("data_version", "model_version", "rows", "files")}


def _adopted(
    platform: Platform, folder: str, partition: str, data: Published, proven: Proven
) -> Scored:
    """The scores that are there. Raises ``BadObject`` if they are of something else."""
    told = json.loads(platform.lake.get(f"{folder}/{SUMMARY}"))
    about = (told.get("data_version"), told.get("model_version"))
    if about != (data.digest, proven.model.version):
        raise BadObject(
            f"{folder}/{SUMMARY}", "is about other data or another model", f"remove {folder}"
        )
    return Scored(
        partition=partition,
        data_version=data.digest,
        model_version=proven.model.version,
        rows=int(told["rows"]),
        files=tuple(FileRef.model_validate(file) for file in told["files"]),
        folder=folder,
        adopted=True,
    )


def _score_part(
    platform: Platform,
    pipeline: Pipeline,
    file: FileRef,
    key: str,
    proven: Proven,
    say: Say,
) -> FileRef:
    import numpy as np

    from ml_control.core.features import FeatureSpec, csv_lines
    from ml_control.services.models.proving import replay

    features = FeatureSpec.model_validate_json(proven.features)
    frame = read_parquet(platform, file)
    box = container(proven.model.container)
    with tempfile.TemporaryDirectory(prefix="ml-control-scores-") as folder:
        rows = Path(folder) / "rows.csv"
        try:
            with rows.open("wb") as stream:
                stream.writelines(csv_lines(features.encode_frame(frame)))
        except OSError as error:
            raise PlatformFailed(
                str(rows), f"could not be written: {error.strerror}", "free space, then score again"
            ) from error
        # A single missing cell is an empty line, which a platform's jobs pass over.
        if platform.scorer is None or features.width == 1:
            found = replay(unpack(proven.archive, box), box, {"rows": rows}, timeout=_SECONDS)
            predictions = found.predictions["rows"]
        elif frame.height:
            predictions = platform.scorer.predict(_job(pipeline, proven, rows, frame.height))
        else:
            predictions = np.zeros(0, np.float32)
    target = pipeline.spec.columns.target
    kept = [name for name in ("row_id", "split", target) if name in frame.columns]
    scored = frame.select(kept).hstack(answers(features, predictions))
    data = io.BytesIO()
    scored.write_parquet(data, compression="zstd", statistics=False)
    digest = platform.lake.put(key, data.getbuffer())
    say(f"{scored.height} rows to {key}")
    return FileRef(path=key, digest=digest, size=data.getbuffer().nbytes, rows=scored.height)


def _job(pipeline: Pipeline, proven: Proven, rows: Path, count: int) -> ScoringJob:
    """The platform's job for a file of rows, named by everything that decides its answers."""
    golden = proven.golden
    decides = [proven.model.version, file_digest(rows)]
    return ScoringJob(
        name=f"{pipeline.name.replace('_', '-')[:36].rstrip('-')}-score-{digest_of(decides)[:16]}",
        container=proven.model.container,
        archive=proven.archive,
        rows=rows,
        count=count,
        golden=golden["rows"],
        expected=golden["predictions"],
        machines=pipeline.spec.training.sagemaker,
    )


def answers(features: FeatureSpec, predictions: np.ndarray) -> pl.DataFrame:
    """``predicted`` (the label) and ``score`` of many predictions: what ``decode`` says of each.

    Multiclass rows also have their ``probabilities``, in the order of the labels. Raises
    ``PlatformFailed`` when an answer is not finite.
    """
    import numpy as np
    import polars as pl

    if not np.isfinite(predictions).all():
        raise PlatformFailed(
            "model answer", "is not a finite number", "verify the archive with 'ml-control verify'"
        )
    values = predictions.astype(np.float64)
    labels = np.asarray(features.labels, dtype=object)
    if features.task == "regression":
        names: Sequence[Any] = [None] * len(values)
        return pl.DataFrame(
            {"predicted": pl.Series(names, dtype=pl.String), "score": values.reshape(-1)}
        )
    if features.task == "binary":
        values = values.reshape(-1)
        chosen = labels[(values >= 0.5).astype(int)]
        return pl.DataFrame({"predicted": pl.Series(chosen, dtype=pl.String), "score": values})
    values = values.reshape(-1, len(labels))
    best = values.argmax(axis=1)
    return pl.DataFrame(
        {
            "predicted": pl.Series(labels[best], dtype=pl.String),
            "score": values[np.arange(len(values)), best],
            "probabilities": pl.Series(
                predictions.reshape(-1, len(labels)), dtype=pl.Array(pl.Float32, len(labels))
            ),
        }
    )


def write_out(platform: Platform, done: Scored, file: Path) -> int:
    """The scores as one Parquet file, streamed; gives its size. Raises ``PlatformFailed``."""
    import polars as pl

    draft = file.with_name(f".{file.name}.draft")
    try:
        with ExitStack() as stack:
            paths = [stack.enter_context(platform.lake.local_file(f.path)) for f in done.files]
            pl.scan_parquet(paths).sink_parquet(draft, compression="zstd")
        draft.replace(file)
        return file.stat().st_size
    except MlControlError:
        raise
    except (OSError, pl.exceptions.PolarsError) as error:
        draft.unlink(missing_ok=True)
        raise PlatformFailed(
            str(file), f"could not be written: {error}", "free space or name another file"
        ) from error
