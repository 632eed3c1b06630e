"""What a rollout is decided from, and what can be done about it. All of it is plain data.

Times are UTC seconds, shares are of entities (0 to 1), versions are model versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Standing = Literal["proven", "refused", "outdated"]
Consent = Literal["given", "pending", "rejected", "expired"]
Kind = Literal[
    "gate",
    "deploy",
    "revive",
    "stop",
    "replay",
    "start",
    "share",
    "promote",
    "revert",
    "roll_back",
    "keep",
    "release",
    "retire",
    "halt",
    "pause",
    "resume",
    "rebase",
]
# What changes something outside the Rollout and leaves the record as it is.
EFFECTS: frozenset[Kind] = frozenset({"gate", "revive", "stop", "replay"})


@dataclass(frozen=True)
class Candidate:
    """A model that may become the challenger.

    ``proven``: its verdict is yes, against the present champion and gates. ``outdated``: they
    moved since, so that it has to be asked again. ``consent`` is ``given`` where none is needed.
    """

    version: str
    standing: Standing
    consent: Consent = "given"
    because: str = ""  # why it is refused, outdated or without consent


@dataclass(frozen=True)
class Serving:
    """What an endpoint really does."""

    state: Literal["Creating", "InService", "Failed", "Missing"] = "Missing"
    version: str = ""  # the model it holds
    proven: bool = True  # a passing verdict of this registry is about exactly its bytes
    refused: str = ""  # why it could not be brought back, if that was tried


@dataclass(frozen=True)
class Replayed:
    """What came of replaying logged requests on the challenger, beside the champion's answers."""

    requests: int
    failed: int = 0  # requests that it did not answer
    differing: int = 0  # records that it answers otherwise
    because: str = ""  # of the first failure


@dataclass(frozen=True)
class Judged:
    """The experiment's word."""

    decision: Literal["promote", "roll_back", "continue", "inconclusive"]
    because: str


@dataclass(frozen=True)
class Health:
    """How the challenger does since the present step began.

    ``breach``: a guardrail is broken beyond doubt. ``alarm``: it is exceeded now, which may be
    chance. Both are reasons in words, or empty.
    """

    requests: int = 0
    breach: str = ""
    alarm: str = ""
    alarm_since: float | None = None
    clear_since: float | None = None


@dataclass(frozen=True)
class Alarmed:
    """What the platform's alarms say while a challenger takes traffic: reasons, or nothing.

    ``firing``: an alarm went off during this rollout. ``unclear``: one has no data, or went off
    before the rollout began, which is not the challenger's doing and no time to go on.
    """

    firing: str = ""
    unclear: str = ""


@dataclass(frozen=True)
class Seen:
    """What the platform says is true."""

    now: float
    candidate: Candidate | None = None
    serving: Mapping[str, Serving] = field(default_factory=dict)  # by variant
    to_replay: int = 0  # logged requests that a replay would ask
    replayed: Replayed | None = None  # of the present challenger
    judged: Judged | None = None
    health: Health | None = None
    alarms: Alarmed = Alarmed()
    unreadable: str = ""  # why the evidence cannot be read, when it never will by itself
    late: str = ""  # why the evidence cannot be read now

    def of(self, variant: str) -> Serving:
        """The variant's endpoint."""
        return self.serving.get(variant, Serving())


@dataclass(frozen=True)
class Action:
    """One thing to do. ``rollout`` is the id of the rollout that it was decided for."""

    kind: Kind
    because: str
    rollout: str = ""
    variant: str = ""
    version: str = ""
    share: float = 0.0
    strategy: str = ""  # of a rollout that begins


@dataclass(frozen=True)
class Decision:
    """What to do next, in this order, and the reason that people are shown."""

    actions: tuple[Action, ...]
    because: str


@dataclass(frozen=True)
class Command:
    """What a person asks for. ``version`` and ``share`` where the command has one."""

    name: Literal["promote", "rollback", "traffic", "pause", "resume"]
    version: str = ""
    share: float = 0.0
