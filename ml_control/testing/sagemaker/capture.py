"""Data capture of instance endpoints: requests and answers as JSON lines in S3."""

from __future__ import annotations

import base64
import contextlib
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from ml_control.testing.sagemaker.director import Director
from ml_control.testing.sagemaker.state import Account, Record
from ml_control.testing.sagemaker.storage import Missing, Storage

_KINDS = {"CsvContentTypes": "CSV", "JsonContentTypes": "JSON"}


class Capture:
    """Writes what configurations ask to have captured, at once and one object for each request."""

    def __init__(self, account: Account, storage: Storage, director: Director) -> None:
        self._account = account
        self._storage = storage
        self._director = director

    def take(
        self, record: Record, variant: str, request: tuple[str, bytes], answer: tuple[str, bytes]
    ) -> None:
        """Capture one invocation if it is drawn; (content type, body) of both sides.

        Nothing is raised for a bucket that refuses: AWS drops what it cannot write.
        """
        config = record["_config"].get("DataCaptureConfig", {})
        if not config.get("EnableCapture"):
            return
        if self._director.percent() >= config["InitialSamplingPercentage"]:
            return
        modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        if "InputAndOutput" in modes:
            modes = {"Input", "Output"}
        now = self._account.clock()
        data = {}
        for mode, side in (("Input", request), ("Output", answer)):
            if mode in modes:
                data[f"endpoint{mode}"] = _side(mode, *side, config)
        event = {
            "captureData": data,
            "eventMetadata": {
                "eventId": str(uuid.uuid4()),
                "inferenceTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            },
            "eventVersion": "0",
        }
        hour = time.strftime("%Y/%m/%d/%H", time.gmtime(now))
        where = f"{config['DestinationS3Uri'].rstrip('/')}/{record['EndpointName']}/{variant}"
        file = f"{time.strftime('%M-%S', time.gmtime(now))}-{uuid.uuid4()}.jsonl"
        with contextlib.suppress(Missing):
            self._storage.write(
                f"{where}/{hour}/{file}",
                json.dumps(event).encode() + b"\n",
                config.get("KmsKeyId", ""),
            )


def _side(mode: str, kind: str, body: bytes, config: Mapping[str, Any]) -> Record:
    media = kind.split(";", maxsplit=1)[0].strip().lower()
    encoding, data = "BASE64", base64.b64encode(body).decode()
    for member, name in _KINDS.items():
        if media in config.get("CaptureContentTypeHeader", {}).get(member, []):
            encoding, data = name, body.decode(errors="replace")
    return {
        "observedContentType": kind,
        "mode": mode.upper(),
        "data": data,
        "encoding": encoding,
    }
