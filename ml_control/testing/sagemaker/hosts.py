"""The servers of an endpoint: for each variant the container's own loading, in its own XGBoost."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_control.core.containers import Container
from ml_control.core.digests import sha256
from ml_control.local.files import read_json
from ml_control.serving.deployed import MAX_CONTENT_LENGTH
from ml_control.testing.sagemaker.images import container_of
from ml_control.testing.sagemaker.models import archive_of
from ml_control.testing.sagemaker.programs import Program
from ml_control.testing.sagemaker.storage import Missing, Storage

_ENVIRONMENT = ("MAX_CONTENT_LENGTH", "SAGEMAKER_INFERENCE_OUTPUT")
_COUNT = itertools.count()


class Unextractable(Exception):
    """Model data that is not there or no gzip tar; the text is AWS's."""


class Host:
    """One server process of a model. It answers at ``url`` once ``ready``."""

    def __init__(
        self,
        storage: Storage,
        model: Mapping[str, Any],
        folder: Path,
        region: str,
        write: Callable[[str], None],
    ) -> None:
        """Fetch, extract and start. Raises ``Unextractable``."""
        self.folder = folder / f"{next(_COUNT):06d}"
        self.url = ""
        given = model["PrimaryContainer"]
        container: Container = container_of(given["Image"], region)
        uri = archive_of(given)
        try:
            data = storage.read(uri)
        except Missing as error:
            raise Unextractable(
                f'Failed to download model data from URL "{uri}": {error}'
            ) from error
        _extract(data, self.folder / "model", uri)
        settings = given.get("Environment", {})
        deployment = {
            "name": model["ModelName"],
            "model_version": uri,
            "container": container.tag,
            "archive_sha256": sha256(data),
            "instance": self.folder.name,
            "environment": {key: settings[key] for key in _ENVIRONMENT if key in settings},
        }
        self.limit = int(settings.get("MAX_CONTENT_LENGTH", MAX_CONTENT_LENGTH))
        (self.folder / "deployment.json").write_text(json.dumps(deployment))
        self._program = Program("serve", container, ["--dir", str(self.folder)], self.folder, write)

    def ready(self) -> bool:
        """Whether it answers; then ``url`` is known."""
        if not self.url and (found := read_json(self.folder / "server.json")):
            self.url = f"http://127.0.0.1:{found['port']}"
        return bool(self.url)

    def ended(self) -> bool:
        """Whether its process is gone, having said why."""
        return self._program.code() is not None

    def end(self, grace: float = 0.0) -> None:
        """End the process and drop its folder; with seconds of grace requests may finish."""
        self._program.end(grace)
        shutil.rmtree(self.folder, ignore_errors=True)


def _extract(data: bytes, folder: Path, uri: str) -> None:
    folder.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise Unextractable(
            f'Failed to extract model data archive from URL "{uri}". Please ensure that the object '
            f"located at the URL is a valid tar.gz archive. ({error})"
        ) from error
