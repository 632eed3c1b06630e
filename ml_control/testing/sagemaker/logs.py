"""CloudWatch Logs: reading what jobs and endpoints wrote, and writing logs of one's own."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_control.testing.sagemaker.refused import Refused
from ml_control.testing.sagemaker.state import Record

TRAINING = "/aws/sagemaker/TrainingJobs"
TRANSFORM = "/aws/sagemaker/TransformJobs"
ENDPOINTS = "/aws/sagemaker/Endpoints"
_LONGEST = 256 << 10
_PAGE = 10_000
_STREAMS_PAGE = 50


@dataclass(frozen=True)
class _Event:
    index: int
    at: int  # milliseconds
    text: str


class Logs:
    """Log groups and their streams; they appear with their first line."""

    def __init__(self, arn: Callable[[str], str], clock: Callable[[], float]) -> None:
        self._arn = arn
        self._clock = clock
        self._lock = threading.Lock()
        self._count = itertools.count()
        self._groups: dict[str, dict[str, list[_Event]]] = {}
        self.operations = {
            "DescribeLogGroups": self.describe_groups,
            "DescribeLogStreams": self.describe_streams,
            "GetLogEvents": self.get,
            "FilterLogEvents": self.filter,
            "DeleteLogGroup": self.delete_group,
            "CreateLogGroup": self.create_group,
            "CreateLogStream": self.create_stream,
            "PutLogEvents": self.put,
            "PutRetentionPolicy": self.retain,
        }

    def write(self, group: str, stream: str, text: str) -> None:
        """Append lines; tabs are shown as SageMaker shows them, ``#011``."""
        at = int(self._clock() * 1000)
        with self._lock:
            events = self._groups.setdefault(group, {}).setdefault(stream, [])
            for line in text.splitlines():
                shown = line.replace("\t", "#011")[:_LONGEST]
                events.append(_Event(next(self._count), at, shown or " "))

    def describe_groups(self, request: Mapping[str, Any]) -> Record:
        """DescribeLogGroups by prefix or pattern, in one page."""
        with self._lock:
            names = sorted(self._groups)
        prefix, part = request.get("logGroupNamePrefix", ""), request.get("logGroupNamePattern", "")
        return {
            "logGroups": [
                {"logGroupName": name, "arn": self._arn(f"log-group:{name}:*")}
                for name in names
                if name.startswith(prefix) and part in name
            ]
        }

    def describe_streams(self, request: Mapping[str, Any]) -> Record:
        """DescribeLogStreams by prefix, ordered by name or by the last line."""
        with self._lock:
            group = self._group(request)
            found = [(name, list(events)) for name, events in group.items() if events]
        prefix = request.get("logStreamNamePrefix", "")
        by_time = request.get("orderBy") == "LastEventTime"
        if by_time and prefix:
            raise Refused(
                "InvalidParameterException",
                "Cannot order by LastEventTime with a logStreamNamePrefix.",
            )
        found = [item for item in found if item[0].startswith(prefix)]
        found.sort(
            key=lambda item: (item[1][-1].index, item[0]) if by_time else (0, item[0]),
            reverse=bool(request.get("descending", False)),
        )
        start = _offset(request.get("nextToken"), "s")
        size = int(request.get("limit", _STREAMS_PAGE))
        answer: Record = {"logStreams": [_stream(*item) for item in found[start : start + size]]}
        if start + size < len(found):
            answer["nextToken"] = f"s/{start + size}"
        return answer

    def get(self, request: Mapping[str, Any]) -> Record:
        """GetLogEvents: from the end unless ``startFromHead``, with tokens in both directions."""
        with self._lock:
            group, name = self._group(request), request.get("logStreamName", "")
            if name not in group:
                raise _absent("log stream")
            events = [event for event in group[name] if _within(event, request)]
        size, token = int(request.get("limit", _PAGE)), request.get("nextToken")
        if token is None:
            start = 0 if request.get("startFromHead") else max(0, len(events) - size)
            end = start + size
        elif token.startswith("f/"):
            start = _offset(token, "f")
            end = start + size
        else:
            end = _offset(token, "b")
            start = max(0, end - size)
        shown = events[start:end]
        return {
            "events": [
                {"timestamp": event.at, "message": event.text, "ingestionTime": event.at}
                for event in shown
            ],
            # At an end, AWS gives the token that was passed in: that is how a reader knows.
            "nextForwardToken": f"f/{start + len(shown)}",
            "nextBackwardToken": f"b/{start}",
        }

    def filter(self, request: Mapping[str, Any]) -> Record:
        """FilterLogEvents over streams; a pattern is words or quoted text that must all occur."""
        with self._lock:
            group = self._group(request)
            chosen, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix", "")
            found = [
                (event, stream)
                for stream, events in group.items()
                if stream.startswith(prefix) and (chosen is None or stream in chosen)
                for event in events
                if _within(event, request) and _matches(event.text, request)
            ]
        found.sort(key=lambda item: item[0].index)
        start, size = _offset(request.get("nextToken"), "e"), int(request.get("limit", _PAGE))
        answer: Record = {
            "events": [
                {
                    "logStreamName": stream,
                    "timestamp": event.at,
                    "message": event.text,
                    "ingestionTime": event.at,
                    "eventId": str(event.index),
                }
                for event, stream in found[start : start + size]
            ],
            "searchedLogStreams": [],
        }
        if start + size < len(found):
            answer["nextToken"] = f"e/{start + size}"
        return answer

    def delete_group(self, request: Mapping[str, Any]) -> Record:
        """DeleteLogGroup."""
        with self._lock:
            self._group(request)
            del self._groups[request["logGroupName"]]
        return {}

    def create_group(self, request: Mapping[str, Any]) -> Record:
        """CreateLogGroup."""
        with self._lock:
            if request["logGroupName"] in self._groups:
                raise _present("log group")
            self._groups[request["logGroupName"]] = {}
        return {}

    def create_stream(self, request: Mapping[str, Any]) -> Record:
        """CreateLogStream."""
        with self._lock:
            group = self._group(request)
            if request["logStreamName"] in group:
                raise _present("log stream")
            group[request["logStreamName"]] = []
        return {}

    def put(self, request: Mapping[str, Any]) -> Record:
        """PutLogEvents, in the order of their times as AWS wants them."""
        told = request["logEvents"]
        if any(a["timestamp"] > b["timestamp"] for a, b in itertools.pairwise(told)):
            raise Refused(
                "InvalidParameterException",
                "Log events in a single PutLogEvents request must be in chronological order.",
            )
        with self._lock:
            group, name = self._group(request), request["logStreamName"]
            if name not in group:
                raise _absent("log stream")
            group[name] += [
                _Event(next(self._count), int(one["timestamp"]), one["message"]) for one in told
            ]
        return {}

    def retain(self, request: Mapping[str, Any]) -> Record:
        """PutRetentionPolicy of a group that there is; nothing is forgotten here."""
        with self._lock:
            self._group(request)
        return {}

    def _group(self, request: Mapping[str, Any]) -> dict[str, list[_Event]]:
        name = request.get("logGroupName") or _named(request.get("logGroupIdentifier", ""))
        if name not in self._groups:
            raise _absent("log group")
        return self._groups[name]


def _named(identifier: str) -> str:
    return identifier.rpartition("log-group:")[2].removesuffix(":*")


def _absent(what: str) -> Refused:
    return Refused("ResourceNotFoundException", f"The specified {what} does not exist.")


def _present(what: str) -> Refused:
    return Refused("ResourceAlreadyExistsException", f"The specified {what} already exists.")


def _within(event: _Event, request: Mapping[str, Any]) -> bool:
    return bool(request.get("startTime", 0) <= event.at < request.get("endTime", float("inf")))


def _matches(text: str, request: Mapping[str, Any]) -> bool:
    words = re.findall(r'"([^"]*)"|(\S+)', request.get("filterPattern", ""))
    return all((quoted or plain) in text for quoted, plain in words)


def _offset(token: str | None, mark: str) -> int:
    if token is None:
        return 0
    kind, _, number = token.partition("/")
    if kind != mark or not number.isdecimal():
        raise Refused("InvalidParameterException", "The specified nextToken is invalid.")
    return int(number)


def _stream(name: str, events: list[_Event]) -> Record:
    return {
        "logStreamName": name,
        "creationTime": events[0].at,
        "firstEventTimestamp": events[0].at,
        "lastEventTimestamp": events[-1].at,
        "lastIngestionTime": events[-1].at,
    }
