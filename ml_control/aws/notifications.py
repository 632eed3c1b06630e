"""Arrivals on AWS: S3 tells EventBridge, that fills a queue, and the queue is read in batches.

A message is deleted only after the ledger holds what it says, or after it is kept elsewhere: for
another pipeline in the registry, and what nobody can read in the lake. Whatever dies in between, it
is received again when its visibility timeout is over; the ledger knows versions that it has.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from ml_control.aws.client import Clients, translated
from ml_control.aws.inbox import Inbox
from ml_control.aws.messages import Word, read
from ml_control.aws.raw_area import RawArea
from ml_control.core.digests import canonical
from ml_control.errors import BadObject, InvalidSpec, MlControlError
from ml_control.lake import Lake
from ml_control.ports import Call, Notice, Stored, Stray, Tables
from ml_control.registry.leases import Leases

_logger = logging.getLogger("ml_control")
_BATCH = 10  # what SQS gives and deletes at once
_POLL_SECONDS = 20.0  # of one intake: it must have recorded all before the messages come again
_DELETE_TRIES = 4
_UNREADABLE = "logs/_arrivals/unreadable"
_KEPT = "inbox "


class SqsNotifications:
    """``ports.Notifications`` over the raw bucket and the arrivals queue."""

    at_once = 1000
    ordered = False  # neither S3 nor SQS promises it

    def __init__(
        self,
        clients: Clients,
        lake: Lake,
        tables: Tables,
        *,
        wait_seconds: int = 1,
        visibility_seconds: int = 120,
        dead_seconds: float = 60.0,
        lease_seconds: float = 30.0,
    ) -> None:
        self._clients = clients
        self._lake = lake
        self._inbox = Inbox(tables)
        self._raw = RawArea(clients, lake)
        self._leases = Leases(tables, time.time, lease_seconds)
        self._wait = wait_seconds  # for the first message: by long polling all of SQS is asked
        self._visibility = visibility_seconds
        self._dead_seconds = dead_seconds
        self._dead_at = -dead_seconds

    @contextmanager
    def exclusive(self, pipeline: str) -> Iterator[None]:
        """See ``ports.Notifications``. A lease: when its holder dies it runs out by itself."""
        holder = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        with self._leases.hold("#arrivals", pipeline, holder):
            yield

    def receive(self, pipeline: str, settle: float, limit: int) -> list[Notice]:  # noqa: ARG002
        """See ``ports.Notifications``. An object of a bucket is whole: nothing has to settle.

        What other pipelines' intakes came upon is first, then the queue is read. What cannot be
        read now comes again, and is no reason to keep back what could be.
        """
        limit = min(limit, self.at_once)
        notices: list[Notice] = []
        trouble: list[MlControlError] = []
        for more in (self._kept, self._read_queue):
            if len(notices) < limit:
                notices += more(pipeline, limit - len(notices), trouble)
        if len(notices) < limit:
            self._read_dead(trouble)
        if trouble and not notices:
            raise trouble[0]
        if trouble:
            said = "what could not be read of the arrivals of %s comes again: %s"
            _logger.warning(said, pipeline, trouble[0])
        return self._raw.in_order(notices)

    def acknowledge(self, notices: Iterable[Notice]) -> None:
        """See ``ports.Notifications``."""
        handles = dict.fromkeys(notice.handle for notice in notices if notice.handle)
        kept = {h.removeprefix(_KEPT) for h in handles if h.startswith(_KEPT)}
        self._inbox.drop(kept)
        self._delete(self._queue(), [h for h in handles if not h.startswith(_KEPT)])

    def calls(self, pipeline: str) -> list[Call]:
        """See ``ports.Notifications``. They came through the queue, whoever read it."""
        found = [
            Call(kept.word.id, kept.word.pipeline, kept.word.at, kept.place)
            for kept in self._inbox.kept(pipeline)
            if kept.word.kind == "call"
        ]
        return sorted(found, key=lambda call: call.at)

    def drop(self, calls: Iterable[Call]) -> None:
        """See ``ports.Notifications``."""
        self._inbox.drop({call.handle for call in calls if call.handle})

    def admit(self, pipeline: str, key: str, file: Path) -> Notice:
        """See ``ports.Notifications``. S3's own event of it names the same version."""
        if not file.is_file():
            raise BadObject(str(file), "is no readable file", "name an existing file")
        relative = PurePosixPath(key)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise BadObject(key, "is no key below the pipeline's folder", "use a relative name")
        if any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in key):
            raise BadObject(repr(key), "has control characters or is not text", "rename the file")
        at = file.stat().st_mtime
        parts = list(relative.parts)
        if not any(part.startswith("dt=") for part in parts[:-1]):
            # S3's event of it will have another time, which must not be another partition.
            parts.insert(0, f"dt={datetime.fromtimestamp(at, UTC).date().isoformat()}")
        return self._raw.put("/".join([pipeline, *parts]), file, at)

    def stored(self, pipeline: str, after: str, limit: int) -> list[Stored]:
        """See ``ports.Notifications``."""
        return self._raw.stored(pipeline, after, limit)

    def identify(self, stored: Stored, key: str) -> Notice | None:
        """See ``ports.Notifications``."""
        return self._raw.identify(stored, key)

    def arrived(self, path: str) -> float | None:
        """See ``ports.Notifications``."""
        return self._raw.arrived(path)

    def later(self, path: str, than: str) -> bool | None:
        """See ``ports.Notifications``."""
        return self._raw.later(path, than)

    def tidy(self, pipeline: str) -> int:
        """See ``ports.Notifications``. Uploads that nobody ended."""
        return self._raw.tidy(pipeline)

    def strays(self, known: Collection[str]) -> list[Stray]:
        """See ``ports.Notifications``. Words for no pipeline, and what nobody could read."""
        found = [
            Stray(
                name,
                f"s3://{self._raw.bucket}/{name}/",
                count,
                f"{count} objects wait here, and there is no pipeline {name}",
                f"add pipelines/{name}/defs.yaml, or put them below a pipeline's name",
            )
            for name, count in sorted(self._inbox.others(known).items())
        ]
        if unread := len(list(self._lake.list(_UNREADABLE))):
            found.append(
                Stray(
                    "",
                    self._lake.uri(_UNREADABLE),
                    unread,
                    f"{unread} messages of the arrivals queue could not be read",
                    "look at them there, put again what they were about, then remove them",
                )
            )
        return found

    def _queue(self) -> str:
        url = self._clients.settings.queue_url
        if not url:
            raise InvalidSpec(
                "setting aws.queue_url",
                "is not set: no word of new objects can come",
                "name the arrivals queue under [aws] in ml-control.toml",
            )
        return url

    def _kept(self, pipeline: str, limit: int, trouble: list[MlControlError]) -> list[Notice]:
        found: list[Notice] = []
        for kept in self._inbox.kept(pipeline):
            if kept.word.kind == "object":
                found += self._noticed(kept.word, f"{_KEPT}{kept.place}", trouble)
            if len(found) == limit:
                break
        return found

    def _noticed(self, word: Word, handle: str, trouble: list[MlControlError]) -> list[Notice]:
        """The notice of a word, or none while S3 cannot be asked about it: then it stays."""
        try:
            return [self._raw.notice(word, handle)]
        except MlControlError as error:
            trouble.append(error)
            return []

    def _read_queue(self, pipeline: str, limit: int, trouble: list[MlControlError]) -> list[Notice]:
        """Read messages, at most as many; those of this pipeline stay in the queue until they are
        acknowledged, the others are kept elsewhere and deleted.
        """
        queue, until = self._queue(), time.monotonic() + _POLL_SECONDS
        notices: list[Notice] = []
        others: list[tuple[dict[str, Any], list[Word]]] = []
        seen = 0
        while seen < limit and time.monotonic() < until:
            try:
                batch = self._receive(queue, min(_BATCH, limit - seen), first=not seen)
            except MlControlError as error:
                trouble.append(error)
                break
            if not batch:
                break
            seen += len(batch)
            for message in batch:
                words = self._words(message)
                if len(words) == 1 and _is_object_of(words[0], pipeline):
                    notices += self._noticed(words[0], message["ReceiptHandle"], trouble)
                else:
                    others.append((message, words))
        self._keep(queue, others)
        return notices

    def _read_dead(self, trouble: list[MlControlError]) -> None:
        """Keep what SQS gave up delivering, marked so; asked for once in a while. It goes into the
        inbox, so that its pipeline's next intake has it.
        """
        queue = self._clients.settings.dead_letter_url
        if not queue or time.monotonic() - self._dead_at < self._dead_seconds:
            return
        self._dead_at = time.monotonic()
        why = "it was received again and again without being recorded (dead-letter queue)"
        try:
            for _ in range(self.at_once // _BATCH):
                batch = self._receive(queue, _BATCH, first=False)
                if not batch:
                    break
                marked = [
                    (message, [replace(word, parked=why) for word in self._words(message)])
                    for message in batch
                ]
                self._keep(queue, marked)
        except MlControlError as error:
            trouble.append(error)

    def _receive(self, queue: str, most: int, *, first: bool) -> list[dict[str, Any]]:
        sqs = self._clients.client("sqs")
        with translated(f"queue {queue}"):
            found: list[dict[str, Any]] = sqs.receive_message(
                QueueUrl=queue,
                MaxNumberOfMessages=most,
                WaitTimeSeconds=self._wait if first else 0,
                VisibilityTimeout=self._visibility,
                AttributeNames=["SentTimestamp"],
            ).get("Messages", [])
        return found

    def _words(self, message: dict[str, Any]) -> list[Word]:
        """What a message says; each word with an id that is the same however often it comes."""
        sent = float(message.get("Attributes", {}).get("SentTimestamp", 0)) / 1000
        return [
            replace(word, id=word.id or message["MessageId"], at=word.at or sent)
            for word in read(message["Body"], self._raw.bucket)
        ]

    def _keep(self, queue: str, messages: list[tuple[dict[str, Any], list[Word]]]) -> None:
        """Put words where they wait for whom they are for, then delete their messages."""
        by_pipeline: dict[str, list[Word]] = {}
        for message, words in messages:
            for word in words:
                if word.kind in ("object", "call"):
                    by_pipeline.setdefault(word.pipeline, []).append(word)
                elif word.kind == "unreadable":
                    self._set_aside(message, word)
        for pipeline, words in by_pipeline.items():
            self._inbox.put(pipeline, words)
        self._delete(queue, [message["ReceiptHandle"] for message, _ in messages])

    def _set_aside(self, message: dict[str, Any], word: Word) -> None:
        key = f"{_UNREADABLE}/{message['MessageId']}.json"
        record = {"reason": word.reason, "parked": word.parked, "body": message["Body"]}
        self._lake.put(key, canonical(record))
        _logger.warning(
            "a message of the arrivals queue could not be read (%s); it is kept in %s",
            word.reason,
            self._lake.uri(key),
        )

    def _delete(self, queue: str, handles: list[str]) -> None:
        """Delete messages. One that cannot be deleted comes again, which is harmless."""
        sqs = self._clients.client("sqs")
        left = handles
        for _ in range(_DELETE_TRIES):
            failed: list[str] = []
            for start in range(0, len(left), _BATCH):
                some = left[start : start + _BATCH]
                try:
                    with translated(f"queue {queue}"):
                        answer = sqs.delete_message_batch(
                            QueueUrl=queue,
                            Entries=[
                                {"Id": str(number), "ReceiptHandle": handle}
                                for number, handle in enumerate(some)
                            ],
                        )
                except MlControlError as error:
                    _logger.warning("messages that were recorded come again: %s", error)
                    return
                # What the sender did wrong, such as a handle that ran out, helps no trying again.
                failed += [
                    some[int(each["Id"])]
                    for each in answer.get("Failed", ())
                    if not each.get("SenderFault")
                ]
            left = failed
            if not left:
                return
        _logger.warning("%d messages that were recorded could not be deleted", len(left))


def _is_object_of(word: Word, pipeline: str) -> bool:
    return word.kind == "object" and word.pipeline == pipeline
