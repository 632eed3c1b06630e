"""What a person's command asks for: the next action, or a typed refusal.

Asked again after each action until it gives none, as the policy is; a command that died half way
is repeated by its person.
"""

from __future__ import annotations

from ml_control.core.records import Rollout
from ml_control.core.rollout.change import variant_of
from ml_control.core.rollout.policy import contradiction, place, unfit
from ml_control.core.rollout.seen import Action, Command, Decision, Kind, Seen
from ml_control.errors import Conflict, NotProven, Retryable, Unknown

# The action that a command ends with.
LAST: dict[str, Kind] = {
    "promote": "promote",
    "traffic": "share",
    "pause": "pause",
    "resume": "resume",
}


def obey(state: Rollout, seen: Seen, command: Command) -> tuple[Action | None, str]:
    """The next action for a command and what to say; no action when it is true already.

    For ``promote`` the candidate of ``seen`` is the model that is asked for. Raises ``NotProven``
    for a model that must not serve, ``Conflict`` when something else is under way or was done
    before, ``Unknown`` or ``Retryable`` when its endpoint does not serve what it should.
    """
    found = {
        "promote": _promote,
        "rollback": _rollback,
        "traffic": _traffic,
        "pause": _pause,
        "resume": _resume,
    }[command.name](state, seen, command)
    return (found.actions[0] if found.actions else None), found.because


def is_last(command: Command, action: Action) -> bool:
    """Whether a command is done with this action."""
    if command.name == "rollback":
        return action.kind in ("roll_back", "revert")
    return action.kind == LAST[command.name]


def _promote(state: Rollout, seen: Seen, command: Command) -> Decision:
    wanted = command.version or (seen.candidate.version if seen.candidate else "")
    if state.state != "idle":
        running = state.variants[state.challenger].model_version if state.challenger else ""
        if command.version and command.version not in (running, state.champion):
            raise Conflict(
                _name(state, command.version),
                f"rollout {state.id} of model {running[:12]} is in progress",
                "wait until it ends, or end it with 'ml-control rollback'",
                rollout=state.id,
            )
        if command.version != state.champion or state.champion is None:
            return _promote_challenger(state, seen)
    if wanted and wanted == state.champion:
        return Decision((), f"model {wanted[:12]} is the champion already")
    candidate = seen.candidate
    if candidate is None:
        raise NotProven(_name(state), "no model was trained yet", _run(state))
    if candidate.version in state.rolled_back:
        raise NotProven(
            _name(state, candidate.version),
            "it lost live and was rolled back",
            "train another model; one that failed is not promoted again",
        )
    said = unfit(state.model_copy(update={"set_aside": ()}), candidate)
    if said:
        raise NotProven(_name(state, candidate.version), said, _step(state, candidate.consent))
    if candidate.standing == "outdated":
        raise Conflict(
            _name(state, candidate.version), candidate.because, f"gate it again: {_run(state)}"
        )
    placed = place(state, seen, candidate.version)
    if placed is not None:
        return _possible(state, placed)
    variant = variant_of(state, candidate.version) or ""
    return _action(state, "promote", variant, strategy="all_at_once")


def _promote_challenger(state: Rollout, seen: Seen) -> Decision:
    name = state.challenger or ""
    _require_serving(state, seen, name)
    if state.phase == "shadow" and (seen.replayed is None or seen.replayed.failed):
        raise Conflict(
            _name(state, state.variants[name].model_version),
            "logged requests are being replayed to it; it has not answered them yet",
            "try again when its rollout has left the shadow phase",
            rollout=state.id,
        )
    return _action(state, "promote", name)


def _rollback(state: Rollout, seen: Seen, command: Command) -> Decision:  # noqa: ARG001
    if state.state != "idle" and state.challenger in state.variants:
        return _action(state, "roll_back", state.challenger or "")
    previous = state.previous
    if state.ended == "rolled_back":
        raise Conflict(
            f"{state.pipeline} rollout {state.id}",
            f"it was rolled back already; model {(state.champion or 'none')[:12]} serves",
            "name an older version with 'ml-control promote --version'",
            rollout=state.id,
        )
    if previous is None or state.champion is None:
        raise Conflict(
            _name(state), "no version before the champion is recorded", "promote one by its version"
        )
    version = previous.model_version
    if version in state.rolled_back:
        raise NotProven(
            _name(state, version),
            "the version before the champion lost live itself",
            "name another with 'ml-control promote --version'",
        )
    placed = place(state, seen, version)
    if placed is not None:
        return _possible(state, placed)
    return _action(state, "revert", variant_of(state, version) or "")


def _traffic(state: Rollout, seen: Seen, command: Command) -> Decision:
    if state.state == "idle" or state.challenger is None:
        raise Conflict(
            _name(state), "no challenger takes traffic", f"see 'ml-control status {state.pipeline}'"
        )
    if state.state == "halted":
        raise Conflict(
            f"{state.pipeline} rollout {state.id}",
            f"it is halted: {state.halted_because}",
            "resume it first, or end it with 'ml-control rollback'",
        )
    if state.phase == "shadow":
        raise Conflict(
            f"{state.pipeline} rollout {state.id}",
            "its challenger takes no traffic before it answered the replayed requests",
            "try again when its rollout has left the shadow phase",
        )
    _require_serving(state, seen, state.challenger)
    if state.share == command.share:
        return Decision((), f"the challenger takes {command.share:g} already")
    return _action(state, "share", state.challenger, share=command.share)


def _pause(state: Rollout, seen: Seen, command: Command) -> Decision:  # noqa: ARG001
    if state.paused:
        return Decision((), "it is paused already")
    return _action(state, "pause")


def _resume(state: Rollout, seen: Seen, command: Command) -> Decision:  # noqa: ARG001
    if not state.paused and state.state != "halted":
        return Decision((), "it is neither paused nor halted")
    if state.state == "halted" and (why := contradiction(state, seen)):
        raise Unknown(
            f"{state.pipeline} rollout {state.id}",
            why,
            "put that right first, or end it with 'ml-control rollback'",
        )
    return _action(state, "resume")


def _require_serving(state: Rollout, seen: Seen, variant: str) -> None:
    entry, found = state.variants[variant], seen.of(variant)
    if not found.proven or (found.version and found.version != entry.model_version):
        raise Unknown(
            f"endpoint {entry.endpoint}",
            f"does not hold model {entry.model_version[:12]}, which the rollout names",
            "'ml-control up' serves what the rollout names; or end it with 'ml-control rollback'",
        )
    if found.state != "InService":
        raise Retryable(
            f"endpoint {entry.endpoint}", "does not serve now", "try again when it is back"
        )


def _possible(state: Rollout, decision: Decision) -> Decision:
    if not decision.actions:
        raise Retryable(_name(state), decision.because, "see the endpoint's log, then try again")
    return decision


def _action(state: Rollout, kind: Kind, variant: str = "", **more: object) -> Decision:
    entry = state.variants.get(variant)
    version = entry.model_version if entry else ""
    action = Action(kind, "", state.id, variant, version, **more)  # type: ignore[arg-type]
    return Decision((action,), "")


def _name(state: Rollout, version: str = "") -> str:
    return f"{state.pipeline} model {version[:12]}" if version else state.pipeline


def _run(state: Rollout) -> str:
    return f"'ml-control run {state.pipeline}'"


def _step(state: Rollout, consent: str) -> str:
    if consent == "pending":
        return f"'ml-control approve {state.pipeline}' first"
    return f"see 'ml-control models {state.pipeline}'; train another model"
