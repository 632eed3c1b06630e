"""What AWS answers instead of a result: an error code, a message and an HTTP status."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A refusal in AWS's words; boto3 raises it as ``ClientError`` with this code."""

    def __init__(self, code: str, message: str, status: int = 400, **more: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.more = more  # further members of the error's shape


class Dropped(Exception):
    """The connection is to be closed without an answer, though the call may have been done."""


def invalid(message: str) -> Refused:
    """A ``ValidationException``."""
    return Refused("ValidationException", message)
