"""The address of a container's image in a region, from the SageMaker SDK's own table."""

from __future__ import annotations

import json
import os
import secrets
import threading
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from ml_control.core.containers import container
from ml_control.environments import cache_root
from ml_control.errors import InvalidSpec

_lock = threading.Lock()
_known: dict[str, str] = {}


def image_uri(tag: str, region: str) -> str:
    """Where SageMaker finds the XGBoost container of this tag.

    The SDK takes seconds to import, so its answer is kept, by its version, in this process and in
    the cache folder. Raises ``InvalidSpec`` for a tag that is no container of ours (``latest``
    among them), a region that the SDK does not know, or without the extra.
    """
    box = container(tag)
    try:
        release = metadata.version("sagemaker-core")
    except metadata.PackageNotFoundError as error:
        raise InvalidSpec(
            "setting platform",
            "platform aws needs the extra 'aws', which is not installed",
            "install it: pip install 'ml-control[aws]'",
        ) from error
    key = f"{release} {region} {box.tag}"
    with _lock:
        if key not in _known:
            file = cache_root() / "images.json"
            stored = _read(file)
            if key not in stored:
                stored[key] = _asked(box.tag, region)
                _write(file, stored)
            _known[key] = stored[key]
        return _known[key]


def _asked(tag: str, region: str) -> str:
    from sagemaker.core import image_uris

    try:
        return str(image_uris.retrieve("xgboost", region, version=tag))
    except ValueError as error:
        raise InvalidSpec(
            f"XGBoost container {tag} in region {region}",
            f"has no image: {str(error).split('. ')[0]}",
            "name a region where SageMaker has it, or another container",
        ) from error


def _read(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _write(file: Path, stored: dict[str, str]) -> None:
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with suppress(OSError):  # it only saves time
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(stored, out, sort_keys=True, indent=1)
        draft.replace(file)
