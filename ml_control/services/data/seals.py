"""Folders of derived files, sealed when they are whole: a changed file is found before its use."""

from __future__ import annotations

import json
from pathlib import Path

from ml_control.errors import BadObject
from ml_control.lake import file_digest

_SEAL = "seal.json"


def seal(folder: Path) -> None:
    """Write down the digest of every file of a folder, in the folder. Raises ``OSError``."""
    digests = {file.name: file_digest(file) for file in sorted(folder.iterdir()) if file.is_file()}
    (folder / _SEAL).write_text(json.dumps(digests), "utf-8")


def require_sealed(folder: Path) -> None:
    """Raise ``BadObject`` naming the first file that is not as it was when it was sealed."""
    try:
        digests = json.loads((folder / _SEAL).read_text("utf-8"))
        known = sorted(digests.items())
    except (OSError, ValueError, AttributeError) as error:
        raise _changed(folder / _SEAL, f"cannot be read: {error}") from error
    for name, digest in known:
        try:
            found = file_digest(folder / name)
        except OSError as error:
            raise _changed(folder / name, f"cannot be read: {error}") from error
        if found != digest:
            raise _changed(folder / name, "was changed after it was written")


def _changed(file: Path, reason: str) -> BadObject:
    return BadObject(
        str(file), reason, f"remove {file.parent}: it is derived, and made anew from the lake"
    )
