"""One job for one name: created, or adopted where it runs or ran already.

SageMaker never gives a name twice, so a replay finds the job that an earlier caller started. A job
that failed keeps its name too; what is tried anew has the next one (``<name>-2``, ``<name>-3``),
which every caller finds alike. What a job is for stands in its own environment: a name that
another installation of the account uses is passed over, and one of ours with other settings is a
conflict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ml_control.aws.client import Clients, code_of, translated
from ml_control.core.digests import digest_of
from ml_control.errors import Conflict, InvalidSpec, MlControlError, PlatformFailed, Retryable

REQUEST, OWNER = "ML_CONTROL_REQUEST", "ML_CONTROL_OWNER"
TRIES = 50
_USABLE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_ABSENT = re.compile(r"not found|could not find|cannot find|does not exist", re.IGNORECASE)
_TAKEN = re.compile(r"already exist", re.IGNORECASE)
LIVE, DONE = frozenset({"InProgress"}), frozenset({"Completed"})


class Kind(Protocol):
    """A kind of job: training, tuning, transform."""

    longest: int  # characters of a name

    def describe(self, name: str) -> dict[str, Any] | None:
        """What AWS says of the job, or None when there is none."""
        ...

    def create(self, name: str) -> bool:
        """Start it; False when the name is taken."""
        ...

    def status(self, told: dict[str, Any]) -> str:
        """InProgress, Completed, Failed, Stopping or Stopped."""
        ...

    def environment(self, told: dict[str, Any]) -> dict[str, str]:
        """The environment that the job was created with."""
        ...


@dataclass(frozen=True)
class Mark:
    """What a job is for: who owns it, and the digest of what was asked."""

    owner: str
    request: str

    @property
    def environment(self) -> dict[str, str]:
        """As the job carries it."""
        return {OWNER: self.owner, REQUEST: self.request}


@dataclass(frozen=True)
class Claim:
    """The job that stands for a name."""

    name: str
    adopted: bool  # another caller started it


def owner(clients: Clients) -> str:
    """This installation, among others of the account."""
    return f"{clients.settings.project}/{clients.settings.environment}"


def is_name(name: str) -> bool:
    """Whether this can be a job's name."""
    return _USABLE.fullmatch(name) is not None


def check_name(name: str, what: str) -> None:
    """Raise ``InvalidSpec`` for what cannot be a job's name."""
    if not is_name(name):
        raise InvalidSpec(
            f"{what} {name!r}",
            "is not a usable name",
            "use 1 to 63 letters, digits, '-' and '_', with a letter or digit at both ends",
        )


def attempts(name: str, longest: int) -> Iterator[str]:
    """The names of the first and of later attempts, in SageMaker's letters and length."""
    base = re.sub(r"_", "-", name)
    if len(base) > longest:
        base = f"{base[: longest - 9].rstrip('-')}-{digest_of(name)[:8]}"
    yield base
    for number in range(2, TRIES + 1):
        end = f"-{number}"
        if len(base) + len(end) <= longest:
            yield f"{base}{end}"
        else:
            yield f"{base[: longest - len(end) - 9].rstrip('-')}-{digest_of(name)[:8]}{end}"


def claim(kind: Kind, name: str, mark: Mark, what: str) -> Claim:
    """The running or finished job of this name, or a new one.

    Raises ``Conflict`` when the name belongs to a job with other settings, ``PlatformFailed`` when
    it failed too often, and AWS's refusals as ours. A creation whose answer was lost is found
    again by its name, by this caller or the next.
    """
    for attempt in attempts(name, kind.longest):
        made = False
        told = kind.describe(attempt)
        if told is None:
            try:
                made = kind.create(attempt)
            except Retryable:
                told = _seen(kind, attempt)
                if told is None:
                    raise
            if made:
                return Claim(attempt, adopted=False)
            told = told or kind.describe(attempt)
        if told is None:
            raise Retryable(
                what, f"the name {attempt} is taken, and AWS does not show the job yet", "try again"
            )
        found = kind.environment(told)
        if found.get(OWNER) != mark.owner:
            continue
        if found.get(REQUEST) != mark.request:
            raise Conflict(
                what,
                "exists with another container, other hyperparameters or other channels",
                "name a job by a digest of everything that decides its result",
            )
        if kind.status(told) in LIVE | DONE:
            return Claim(attempt, adopted=True)
    raise PlatformFailed(
        what,
        f"{TRIES} jobs of this name failed or were stopped",
        "see their failure reasons in the SageMaker console, correct the cause, change the job",
    )


def current(kind: Kind, name: str, mark_owner: str) -> str | None:
    """The name of the attempt that runs now, or None."""
    for attempt in attempts(name, kind.longest):
        told = kind.describe(attempt)
        if told is None:
            return None
        ours = kind.environment(told).get(OWNER) == mark_owner
        if ours and kind.status(told) in LIVE:
            return attempt
    return None


def _seen(kind: Kind, name: str) -> dict[str, Any] | None:
    try:
        return kind.describe(name)
    except MlControlError:
        return None  # the error of the creation is the one to tell


def absent_as_none(call: Any, what: str, **arguments: Any) -> dict[str, Any] | None:
    """The answer of a Describe call; None when there is no such thing."""
    with translated(what):
        try:
            answer: dict[str, Any] = call(**arguments)
        except Exception as error:
            code = code_of(error)
            said = code == "ValidationException" and _ABSENT.search(str(error))
            if said or code in ("ResourceNotFound", "ResourceNotFoundException"):
                return None
            raise
        return answer


def unless_taken(call: Any, what: str, step: str, **arguments: Any) -> bool:
    """Whether a Create call made something; False when its name is taken."""
    with translated(what, step):
        try:
            call(**arguments)
        except Exception as error:
            code = code_of(error)
            if code == "ResourceInUse" or (
                code == "ValidationException" and _TAKEN.search(str(error))
            ):
                return False
            raise
        return True
