"""Metrics to CloudWatch, as log events in its embedded metric format: one request for hundreds."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from ml_control.aws.client import Clients, code_of, translated
from ml_control.ports import Sample

_METRICS, _DIMENSIONS, _TEXT = 100, 30, 1024  # of one document
_EVENTS, _BYTES, _OVERHEAD = 10_000, 1_000_000, 26  # of one request
_SPAN_MS = 23 * 3600 * 1000  # events of one request lie within 24 hours
_RETENTION_DAYS = 30  # of the log; the metrics live 15 months
_logger = logging.getLogger("ml_control")


class CloudWatchMetrics:
    """``ports.Metrics`` over the log group ``/ml-control/<project>-<environment>/metrics``.

    The group is made where it is absent. Each process writes to a log stream of its own. What is
    no finite number is left out.
    """

    def __init__(self, clients: Clients) -> None:
        settings = clients.settings
        self._clients = clients
        self._group = f"/ml-control/{settings.project}-{settings.environment}/metrics"
        self._stream = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._made = False
        self._lock = threading.Lock()

    @property
    def group(self) -> str:
        """The log group."""
        return self._group

    def emit(self, samples: Sequence[Sample]) -> None:
        """See ``ports.Metrics``."""
        events = list(_events(samples, self._clients.settings.metrics_namespace))
        with self._lock:
            for batch in _batches(events):
                self._put(batch)

    def _put(self, events: list[dict[str, Any]]) -> None:
        with self._errors():
            if not self._made:
                self._make()
            try:
                answer = self._send(events)
            except Exception as error:
                if code_of(error) != "ResourceNotFoundException":
                    raise
                self._make()  # someone removed it
                answer = self._send(events)
        if refused := answer.get("rejectedLogEventsInfo"):
            _logger.warning("%s did not take all events: %s", self._group, refused)

    def _send(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        answer: dict[str, Any] = self._logs.put_log_events(
            logGroupName=self._group, logStreamName=self._stream, logEvents=events
        )
        return answer

    def _make(self) -> None:
        """Make the group with its retention, and our stream, where they are absent."""
        settings = self._clients.settings
        more = {"kmsKeyId": settings.kms_key} if settings.kms_key.startswith("arn:") else {}
        try:
            self._logs.create_log_group(logGroupName=self._group, tags=settings.all_tags, **more)
            self._logs.put_retention_policy(
                logGroupName=self._group, retentionInDays=_RETENTION_DAYS
            )
        except Exception as error:
            if code_of(error) != "ResourceAlreadyExistsException":
                raise
        try:
            self._logs.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
        except Exception as error:
            if code_of(error) != "ResourceAlreadyExistsException":
                raise
        self._made = True

    @property
    def _logs(self) -> Any:
        return self._clients.client("logs")

    def _errors(self) -> Any:
        return translated(f"log group {self._group}")


def _events(samples: Sequence[Sample], namespace: str) -> Iterator[dict[str, Any]]:
    """Log events in the order of their times, one for each set of dimensions."""
    groups: dict[tuple[int, tuple[tuple[str, str], ...]], list[Sample]] = {}
    for sample in samples:
        if math.isfinite(sample.value):
            given = [(k, v[:_TEXT]) for k, v in sorted(sample.dimensions.items()) if v]
            key = (round(sample.at * 1000), tuple(given[:_DIMENSIONS]))
            groups.setdefault(key, []).append(sample)
    for (at, dimensions), found in sorted(groups.items(), key=lambda one: one[0]):
        for document in _documents(found):
            told = {
                "_aws": {
                    "Timestamp": at,
                    "CloudWatchMetrics": [
                        {
                            "Namespace": namespace,
                            "Dimensions": [[name for name, _ in dimensions]],
                            "Metrics": [{"Name": one.name, "Unit": one.unit} for one in document],
                        }
                    ],
                },
                **dict(dimensions),
                **{one.name: one.value for one in document},
            }
            yield {"timestamp": at, "message": json.dumps(told)}


def _documents(samples: list[Sample]) -> Iterator[list[Sample]]:
    """At most 100 metrics each, a name once."""
    left = samples
    while left:
        chosen: dict[str, Sample] = {}
        rest: list[Sample] = []
        for sample in left:
            if sample.name in chosen or len(chosen) == _METRICS:
                rest.append(sample)
            else:
                chosen[sample.name] = sample
        yield list(chosen.values())
        left = rest


def _batches(events: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for event in events:
        length = len(event["message"].encode()) + _OVERHEAD
        late = bool(batch) and event["timestamp"] - batch[0]["timestamp"] > _SPAN_MS
        if batch and (late or len(batch) == _EVENTS or size + length > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += length
    if batch:
        yield batch
