"""Asking SageMaker's endpoints, and what their answers mean."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ml_control.aws.client import Clients, code_of, translate
from ml_control.errors import MlControlError, PlatformFailed, Retryable
from ml_control.ports import Reply

_LATE = 5.0  # times as long as usual
_AGAIN = 0.25  # of that time, before what is not the model asked for is looked at again
_ANSWER_SECONDS = 70.0  # SageMaker gives up after 60
_NEXT = "see 'ml-control status', or deploy its model again"


class Invocations:
    """Requests to endpoints. ``may_answer`` gives the digests of what may answer a name now."""

    def __init__(
        self,
        clients: Clients,
        may_answer: Callable[[str], set[str] | None],
        fresh_seconds: float,
    ) -> None:
        self._clients = clients
        self._may_answer = may_answer
        self._fresh = fresh_seconds
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._seen: dict[str, tuple[float, set[str] | None]] = {}

    def url(self, real: str) -> str:
        """Where the endpoint is asked, signed."""
        runtime = self._clients.client("sagemaker-runtime")
        return f"{runtime.meta.endpoint_url}/endpoints/{real}/invocations"

    def forget(self, name: str) -> None:
        """Look again before the next request."""
        self._seen.pop(name, None)

    def invoke(
        self,
        name: str,
        real: str,
        body: bytes,
        content_type: str,
        accept: str,
        archive: str,
        seconds: float,
    ) -> Reply:
        """One request; see ``SageMakerEndpoints.invoke``."""
        if archive:
            self._require(name, archive, seconds or _ANSWER_SECONDS)
        # A caller with a deadline has another variant to ask: one try, and no longer.
        runtime = self._clients.client(
            "sagemaker-runtime",
            attempts=1 if seconds else 0,
            read_timeout=seconds or _ANSWER_SECONDS,
        )
        try:
            answer = runtime.invoke_endpoint(
                EndpointName=real, Body=body, ContentType=content_type, Accept=accept
            )
            return Reply(200, answer["Body"].read(), str(answer.get("ContentType", "")))
        except Exception as error:
            reply, known = _meaning(error, name)
            if reply is not None:
                return reply
            if known is None:
                raise
            raise known from error

    def _require(self, name: str, archive: str, seconds: float) -> None:
        """Raise ``Retryable`` unless nothing but this archive can answer."""
        asked = time.monotonic()
        at, digests = self._look(name, 0.0, seconds)
        if digests != {archive} and asked > (due := at + _AGAIN * self._fresh):
            _, digests = self._look(name, due, seconds)  # it may have come to serve since
        if digests == {archive}:
            return
        if digests is None:
            raise Retryable(f"endpoint {name}", "is not serving", _NEXT)
        why = "serves another model than the one asked for"
        if archive in digests:
            why = "is being updated to another model than the one asked for"
        raise Retryable(f"endpoint {name}", why, _NEXT)

    def _look(self, name: str, after: float, wait: float) -> tuple[float, set[str] | None]:
        """When it was looked, and the digests that were seen; looked at by one thread at a time.

        What was seen counts for ``fresh`` seconds, a little longer while another thread looks
        or SageMaker cannot be asked: no endpoint comes to serve another model in so short a time.
        A look from before ``after`` counts for nothing, and another thread's is waited for
        ``wait`` seconds. Raises ``Retryable``.
        """
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        if (seen := self._known(name, after, self._fresh)) is not None:
            return seen
        late = self._known(name, after, _LATE * self._fresh)
        if not lock.acquire(timeout=0.0 if late else wait):
            if late is None:
                raise Retryable(f"endpoint {name}", "SageMaker does not tell its state", _NEXT)
            return late
        try:
            if (seen := self._known(name, after, self._fresh)) is not None:
                return seen
            began = time.monotonic()
            try:
                found = began, self._may_answer(name)
            except Retryable:
                if late is None:
                    raise
                return late
            self._seen[name] = found
            return found
        finally:
            lock.release()

    def _known(
        self, name: str, after: float, seconds: float
    ) -> tuple[float, set[str] | None] | None:
        """What was seen not longer than so many seconds ago, and not before ``after``."""
        seen = self._seen.get(name)
        if seen is None or seen[0] < after or time.monotonic() - seen[0] > seconds:
            return None
        return seen


def _meaning(error: Exception, name: str) -> tuple[Reply | None, MlControlError | None]:
    """What a failed invocation means: a reply of the container's, or a typed error."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    code = code_of(error)
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
    words = str(response.get("Error", {}).get("Message", ""))
    if code == "ModelError":
        original = int(response.get("OriginalStatusCode", 0) or 0)
        if original >= 400:
            said = str(response.get("OriginalMessage", "")) or words
            return Reply(original, said.encode(), "text/plain"), None
        why = f"its model gave no answer: {words}"
        return None, Retryable(f"endpoint {name}", why, _NEXT, code=code)
    if status == 413:
        return Reply(413, words.encode(), "text/plain"), None
    if code in ("ValidationError", "ValidationException") and "not found" in words:
        return None, Retryable(f"endpoint {name}", "is not serving", _NEXT, code=code)
    known = translate(error, f"endpoint {name}", _NEXT)
    if isinstance(known, PlatformFailed) and status == 424:
        known = Retryable(known.object, known.reason, known.next, **known.detail)
    return None, known
