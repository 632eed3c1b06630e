"""Parts that no published manifest lists: of runs that died, refused or were overtaken.

A manifest stays in the lake for ever, beside the parts of its partition. So what any dataset,
model, training window or restored backup may ever need is what some manifest there lists; all
else is waste once no run can still be at work on it.
"""

from __future__ import annotations

from pydantic import ValidationError

from ml_control.core.records import ProcessedManifest
from ml_control.errors import PlatformFailed, Retryable
from ml_control.lake import Lake

#: No run stages for so long; a part that is staged again counts as new.
SPARED_SECONDS = 24 * 3600


def remove_leftovers(lake: Lake, parts: str, newest: ProcessedManifest) -> list[str]:
    """Remove old parts of a partition that none of its manifests lists; gives their keys.

    *parts* is the folder of the partition's parts, *newest* its manifest, just published. To be
    called under the partition's lease. If a manifest cannot be read, or the lake lets nothing be
    removed, everything stays and the next publication tries again.
    """
    try:
        written = lake.dated(parts.rpartition("/")[0])
        # The manifest was just written, so the store's own clock says what is old.
        limit = max(written.values(), default=0.0) - SPARED_SECONDS
        old = {
            key
            for key, at in written.items()
            if key.startswith(f"{parts}/part-") and key.endswith(".parquet") and at < limit
        }
        old -= {file.path for file in newest.files}
        for key in written if old else ():
            if key.endswith("/manifest.json"):
                listed = ProcessedManifest.model_validate_json(lake.get(key))
                old -= {file.path for file in listed.files}
        for key in sorted(old):
            lake.delete(key)
    except (PlatformFailed, Retryable, ValidationError):
        return []  # waste is harmless, and the partition is published
    return sorted(old)
