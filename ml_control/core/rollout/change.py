"""What each action makes of the Rollout. Doing one twice is doing it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_control.core.digests import digest_of
from ml_control.core.records import VARIANTS, Rollout, Variant
from ml_control.core.rollout.seen import EFFECTS, Action

PHASES = {"canary": "canary", "ab_test": "experiment", "all_at_once": "shadow"}


def variant_of(state: Rollout, version: str | None) -> str | None:
    """The variant that the Rollout names for a model version."""
    return next((v for v, e in state.variants.items() if e.model_version == version), None)


def champion_variant(state: Rollout) -> str | None:
    """The champion's variant."""
    return variant_of(state, state.champion) if state.champion else None


def idle_variant(state: Rollout) -> str:
    """Where a new model goes: the variant that is not the champion's."""
    champion = champion_variant(state)
    return next(v for v in VARIANTS if v != champion and not state.weights.get(v))


def target_of(state: Rollout) -> str | None:
    """The variant that still holds what a rollback would go to."""
    previous = state.previous
    if previous is None or previous.model_version in state.rolled_back:
        return None
    found = variant_of(state, previous.model_version)
    return found if found in state.losing_since else None


def apply(state: Rollout, action: Action, now: float, entry: Variant | None = None) -> Rollout:
    """The Rollout after an action, its version one higher; the same one where nothing changes.

    ``entry`` is the proven variant that a ``deploy`` put up. An action that was decided for
    another rollout, or was done already, changes nothing.
    """
    if action.kind in EFFECTS:
        return state
    if action.kind == "deploy":
        change = _deploy(state, action, entry)
    else:
        change = _CHANGES[action.kind](state, action, now)
    if not change:
        return state
    after = state.model_copy(update=change)
    if after == state:
        return state
    return after.model_copy(update={"version": state.version + 1, "updated_at": now})


def _ours(state: Rollout, action: Action) -> bool:
    """Whether the action is about the rollout that is under way."""
    return state.id == action.rollout and state.state != "idle" and state.challenger is not None


def _deploy(state: Rollout, action: Action, entry: Variant | None) -> dict[str, Any]:
    if entry is None or state.state != "idle" or action.variant == champion_variant(state):
        return {}
    if state.variants.get(action.variant) == entry:
        return {}
    losing = {v: at for v, at in state.losing_since.items() if v != action.variant}
    return {
        "variants": {**state.variants, action.variant: entry},
        "weights": {**state.weights, action.variant: 0.0},
        "losing_since": losing,
    }


def _start(state: Rollout, action: Action, now: float) -> dict[str, Any]:
    entry = state.variants.get(action.variant)
    fits = entry is not None and entry.model_version == action.version
    if state.state != "idle" or not fits or action.version == state.champion:
        return {}
    return {
        "id": _new_id(state, action, now),
        "state": "in_progress",
        "phase": "shadow",
        "strategy": action.strategy,
        "challenger": action.variant,
        "step": 0,
        "started_at": now,
        "step_at": now,
        "losing_since": {v: at for v, at in state.losing_since.items() if v != action.variant},
        "ended": "",
        "halted_because": "",
    }


def _share(state: Rollout, action: Action, now: float) -> dict[str, Any]:
    champion = champion_variant(state)
    if not _ours(state, action) or champion is None or state.challenger is None:
        return {}
    phase = PHASES[state.strategy]
    if (state.phase, state.share) == (phase, action.share):
        return {}
    return {
        "weights": {champion: 1.0 - action.share, state.challenger: action.share},
        "phase": phase,
        "step": state.step + (state.phase == "canary" and action.share > state.share),
        "step_at": now,
    }


def _promote(state: Rollout, action: Action, now: float) -> dict[str, Any]:
    """The challenger, or a proven model on the idle variant, becomes the champion."""
    entry = state.variants.get(action.variant)
    if entry is None or entry.model_version != action.version or action.version == state.champion:
        return {}
    busy = state.state != "idle"
    if busy and not (_ours(state, action) and state.challenger == action.variant):
        return {}
    loser = champion_variant(state)
    change = _ended(state, "promoted", now)
    if not busy:
        change |= {"id": _new_id(state, action, now), "strategy": action.strategy}
    return {
        **change,
        "ended": "promoted",
        "state": "idle",
        "champion": action.version,
        "weights": {v: 1.0 if v == action.variant else 0.0 for v in state.variants},
        "previous": state.variants[loser] if loser else state.previous,
        "losing_since": {loser: now} if loser else {},
        "set_aside": tuple(v for v in state.set_aside if v != action.version),
        "step_at": now,
    }


def _revert(state: Rollout, action: Action, now: float) -> dict[str, Any]:
    """The version before the champion serves again; the champion has lost live."""
    entry = state.variants.get(action.variant)
    loser = champion_variant(state)
    same = state.previous is not None and state.previous.model_version == action.version
    fits = same and entry is not None and entry.model_version == action.version
    if state.id != action.rollout or state.state != "idle" or not fits:
        return {}
    if state.champion is None or state.ended == "rolled_back":
        return {}
    return {
        "champion": action.version,
        "weights": {v: 1.0 if v == action.variant else 0.0 for v in state.variants},
        "previous": None,
        "losing_since": {loser: now} if loser else {},
        "rolled_back": _with(state.rolled_back, state.champion),
        "ended": "rolled_back",
        "step_at": now,
    }


def _roll_back(state: Rollout, action: Action, now: float) -> dict[str, Any]:
    if not _ours(state, action) or state.challenger is None:
        return {}
    version = state.variants[state.challenger].model_version
    lost = _with(state.rolled_back, version)
    return {**_ended(state, "rolled_back", now), "rolled_back": lost}


def _keep(state: Rollout, action: Action, now: float) -> dict[str, Any]:
    if not _ours(state, action) or state.challenger is None:
        return {}
    version = state.variants[state.challenger].model_version
    return {**_ended(state, "kept", now), "set_aside": _with(state.set_aside, version)}


def _ended(state: Rollout, how: str, now: float) -> dict[str, Any]:
    """All traffic to the champion; the challenger stays up for a while."""
    champion = champion_variant(state)
    challenger = state.challenger or ""
    return {
        "state": "idle",
        "phase": "",
        "challenger": None,
        "step": 0,
        "weights": {v: 1.0 if v == champion else 0.0 for v in state.variants},
        "losing_since": {**state.losing_since, challenger: now},
        "halted_because": "",
        "ended": how,
        "step_at": now,
    }


def _dropped(state: Rollout, action: Action, now: float) -> dict[str, Any]:  # noqa: ARG001
    """A variant without traffic is not named any more."""
    name, entry = action.variant, state.variants.get(action.variant)
    used = name in (state.challenger, champion_variant(state)) or bool(state.weights.get(name))
    if entry is None or used or entry.model_version != action.version:
        return {}
    return {
        "variants": {v: e for v, e in state.variants.items() if v != name},
        "weights": {v: w for v, w in state.weights.items() if v != name},
        "losing_since": {v: at for v, at in state.losing_since.items() if v != name},
    }


def _halt(state: Rollout, action: Action, now: float) -> dict[str, Any]:  # noqa: ARG001
    if not _ours(state, action) or state.state == "halted":
        return {}
    return {"state": "halted", "halted_because": action.because}


def _pause(state: Rollout, action: Action, now: float) -> dict[str, Any]:  # noqa: ARG001
    return {"paused": True}


def _resume(state: Rollout, action: Action, now: float) -> dict[str, Any]:  # noqa: ARG001
    """Go on where it stood; a halted or paused step is held anew, for nobody watched it."""
    change: dict[str, Any] = {"paused": False}
    if state.state == "halted":
        change |= {"state": "in_progress", "halted_because": ""}
    if state.paused or state.state == "halted":
        change["step_at"] = now
    return change


def _rebase(state: Rollout, action: Action, now: float) -> dict[str, Any]:  # noqa: ARG001
    """Count from now what would be counted from the future."""
    return {
        "started_at": min(state.started_at, now),
        "step_at": min(state.step_at, now),
        "losing_since": {v: min(at, now) for v, at in state.losing_since.items()},
    }


def _with(versions: tuple[str, ...], version: str) -> tuple[str, ...]:
    return versions if version in versions else (*versions, version)


def _new_id(state: Rollout, action: Action, now: float) -> str:
    """Never given twice, also not after the registry went back in time: entities and counts of
    another rollout must not be taken for this one's.
    """
    number = state.version + 1
    return f"{state.pipeline}-{number}-{digest_of([state.id, action.version, now])[:8]}"


_CHANGES: dict[str, Callable[[Rollout, Action, float], dict[str, Any]]] = {
    "start": _start,
    "share": _share,
    "promote": _promote,
    "revert": _revert,
    "roll_back": _roll_back,
    "keep": _keep,
    "release": _dropped,
    "retire": _dropped,
    "halt": _halt,
    "pause": _pause,
    "resume": _resume,
    "rebase": _rebase,
}
