"""A training job's channels, from S3 to a folder laid out like ``/opt/ml``.

With several instances each host is given its own shard (``ShardedByS3Key``) or everything
(``FullyReplicated``), as in AWS. One process then trains on the union, which is the same data that
the hosts would train on together; a replicated channel counts once.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_control.testing.sagemaker.refused import Refused, invalid
from ml_control.testing.sagemaker.storage import Missing, Storage

_PARQUET = ("application/x-parquet", "parquet")


def check(storage: Storage, channels: Sequence[Mapping[str, Any]], role: str) -> None:
    """Raise ``Refused`` at creation for what AWS refuses then: names twice, nothing there."""
    names = [channel["ChannelName"] for channel in channels]
    for name in names:
        if names.count(name) > 1:
            raise invalid(f"Duplicate channel name '{name}' in InputDataConfig.")
    for channel in channels:
        source = channel["DataSource"].get("S3DataSource")
        if source is None:
            raise invalid("Only S3DataSource is supported by this double.")
        uri = source["S3Uri"]
        try:
            found = storage.keys(uri)
        except Missing:
            found = []
        if not found:
            bucket = uri.partition("://")[2].partition("/")[0]
            raise invalid(
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please '
                f"ensure that the bucket exists in the selected region ({storage.region}), that "
                f'objects exist under that S3 prefix, and that the role "{role}" has '
                f'"s3:ListBucket" permissions on bucket "{bucket}".'
            )


def shards(
    storage: Storage, channel: Mapping[str, Any], hosts: Sequence[str]
) -> dict[str, list[str]]:
    """Which objects each host reads of a channel. Raises ``Missing``."""
    source = channel["DataSource"]["S3DataSource"]
    if source["S3DataType"] == "S3Prefix":
        found = storage.keys(source["S3Uri"])
    elif source["S3DataType"] == "ManifestFile":
        found = storage.manifest(source["S3Uri"])
    else:
        raise Missing(f"{source['S3DataType']} is not a data type that XGBoost's container reads")
    if source.get("S3DataDistributionType", "FullyReplicated") == "FullyReplicated":
        return dict.fromkeys(hosts, found)
    return {host: found[index :: len(hosts)] for index, host in enumerate(hosts)}


def download(
    storage: Storage, channel: Mapping[str, Any], hosts: Mapping[str, Sequence[str]], folder: Path
) -> int:
    """Put the union of the hosts' shards into a folder; how many bytes. Raises ``Missing``."""
    folder.mkdir(parents=True)
    seen: set[str] = set()
    size = 0
    for host, uris in hosts.items():
        for uri in uris:
            if uri in seen:
                continue
            seen.add(uri)
            data = _as_csv(storage.read(uri), channel, uri)
            size += len(data)
            stem = Path(uri).name.split(".")[0]
            (folder / f"{len(seen):05d}-{host}-{stem}.csv").write_bytes(data)
    return size


def content_type(channel: Mapping[str, Any]) -> str:
    """The content type that the training program is told; Parquet has become CSV by then."""
    kind = str(channel.get("ContentType", "text/libsvm"))
    return "text/csv" if _is_parquet(kind) else kind


def _as_csv(data: bytes, channel: Mapping[str, Any], uri: str) -> bytes:
    if channel.get("CompressionType") == "Gzip":
        data = gzip.decompress(data)
    if not _is_parquet(str(channel.get("ContentType", ""))):
        return data
    import polars as pl
    from polars.exceptions import PolarsError

    try:
        text = pl.read_parquet(io.BytesIO(data)).write_csv(include_header=False, null_value="")
    except PolarsError as error:
        raise Refused("AlgorithmError", f"Failed to load parquet data of {uri}: {error}") from error
    return text.encode()


def _is_parquet(kind: str) -> bool:
    return kind.split(";", maxsplit=1)[0].strip().lower() in _PARQUET
