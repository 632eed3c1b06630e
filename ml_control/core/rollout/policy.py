"""What to do next with a pipeline's rollout: the same answer for the same truth, at any time.

Missing data is inconclusive, never healthy: it holds, and when ``max_duration`` is over the
champion stays. A rollout is rolled back at most once, nothing goes to an unproven or failed
version, and what contradicts itself halts until a person decides.
"""

from __future__ import annotations

from ml_control.core.records import Rollout
from ml_control.core.rollout.change import (
    champion_variant,
    idle_variant,
    target_of,
    variant_of,
)
from ml_control.core.rollout.seen import Action, Alarmed, Candidate, Decision, Kind, Seen
from ml_control.spec import RolloutSpec

HEALTHY_REQUESTS = 20  # of the challenger within a step; fewer say nothing
SKEW_SECONDS = 60.0  # clocks of two processes may differ by so much


def decide(state: Rollout, seen: Seen, rules: RolloutSpec) -> Decision:
    """The actions that are due now, in order, and why there are no others.

    Level-based: it may be asked at any time, by anyone, also after a crash at any line.
    """
    if state.state == "halted":
        return Decision((), f"halted: {state.halted_because}; a person resumes or decides")
    if state.paused:
        return Decision((), "a person paused it")
    if behind(state, seen.now):
        because = "the clock was set back: what is waited for counts from now"
        return Decision((Action("rebase", because, state.id),), because)
    if state.state == "in_progress":
        return _under_way(state, seen, rules)
    return _idle(state, seen, rules)


def behind(state: Rollout, now: float) -> bool:
    """Whether a time in the record lies in the future: waiting for it could take days."""
    times = (state.started_at, state.step_at, *state.losing_since.values())
    return max(times) > now + SKEW_SECONDS


def elapsed(since: float, now: float) -> float:
    """Seconds since a time, never below zero."""
    return max(now - since, 0.0)


def _do(state: Rollout, kind: Kind, because: str, variant: str = "", **more: object) -> Decision:
    entry = state.variants.get(variant)
    fields = {"version": entry.model_version if entry else "", **more}
    action = Action(kind, because, state.id, variant, **fields)  # type: ignore[arg-type]
    return Decision((action,), because)


# While a challenger is judged


def _under_way(state: Rollout, seen: Seen, rules: RolloutSpec) -> Decision:
    if unknown := contradiction(state, seen):
        return _do(state, "halt", unknown)
    challenger = state.challenger or ""
    if (found := _up(state, seen, champion_variant(state) or "")) is not None:
        return found
    alarms = seen.alarms if state.phase in ("canary", "experiment") else Alarmed()
    if alarms.firing:  # before the challenger is brought back: it goes in any case
        return _do(state, "roll_back", alarms.firing, challenger)
    if (found := _up(state, seen, challenger)) is not None:
        return found
    over = elapsed(state.started_at, seen.now) >= rules.max_duration
    if state.phase == "shadow":
        found = Decision((), "it takes no traffic yet") if over else _shadow(state, seen, rules)
    elif state.phase == "canary":
        found = _canary(state, seen, rules)
    else:
        found = _experiment(state, seen)
    if alarms.unclear and any(action.kind in ("share", "promote") for action in found.actions):
        found = Decision((), f"it holds, for {alarms.unclear}; else: {found.because}")
    if over and not found.actions:  # evidence that decides has the first word
        because = f"inconclusive after {_told(rules.max_duration)}, the champion stays"
        return _do(state, "keep", f"{because}: {found.because}", challenger)
    return found


def contradiction(state: Rollout, seen: Seen) -> str:
    """Why it cannot be told what is true, or nothing."""
    champion = champion_variant(state)
    if champion is None or state.challenger not in state.variants or champion == state.challenger:
        return "the rollout's record names no variant for its champion or its challenger"
    for name in (champion, state.challenger):
        entry, found = state.variants[name], seen.of(name)
        if found.version and found.version != entry.model_version:
            return (
                f"endpoint {entry.endpoint} holds model {found.version[:12]}, the rollout names "
                f"{entry.model_version[:12]}: whose answers were counted cannot be told"
            )
        if not found.proven:
            return f"no passing verdict is known for what endpoint {entry.endpoint} holds"
    return f"the evidence cannot be read: {seen.unreadable}" if seen.unreadable else ""


def _up(state: Rollout, seen: Seen, name: str) -> Decision | None:
    """Bring a variant back that does not serve; what cannot come back decides."""
    found = seen.of(name)
    if not found.refused:
        if found.state == "InService":
            return None
        return _do(state, "revive", f"variant {name} does not serve", name)
    why = f"variant {name} could not be brought back: {found.refused}"
    if name == state.challenger:
        return _do(state, "roll_back", why, name)
    return _do(state, "halt", why)


def _shadow(state: Rollout, seen: Seen, rules: RolloutSpec) -> Decision:
    name, replayed = state.challenger or "", seen.replayed
    if replayed is None:
        if rules.shadow_requests and seen.to_replay:
            because = f"the last {seen.to_replay} logged requests are replayed before any traffic"
            return _do(state, "replay", because, name)
        said = "no logged requests to replay"
    elif replayed.failed:
        because = (
            f"it did not answer {replayed.failed} of {replayed.requests} replayed requests: "
            f"{replayed.because}"
        )
        return _do(state, "roll_back", because, name)
    else:
        said = f"it answered {replayed.requests} replayed requests, {replayed.differing} otherwise"
    if state.strategy == "all_at_once":
        return _do(state, "promote", f"it passed every gate; {said}", name)
    first = rules.canary.steps[0] if state.strategy == "canary" else rules.challenger_weight
    return _do(state, "share", f"{said}: it takes {first:g} of the entities", name, share=first)


def _canary(state: Rollout, seen: Seen, rules: RolloutSpec) -> Decision:
    name, health, bake = state.challenger or "", seen.health, rules.canary.bake
    if seen.late or health is None:
        return Decision((), f"no evidence: {seen.late or 'nothing was measured yet'}")
    if health.breach:
        return _do(state, "roll_back", health.breach, name)
    if health.alarm:  # not sure enough to roll back for, and never a reason to go on
        since = health.alarm_since if health.alarm_since is not None else seen.now
        return Decision((), f"{health.alarm}, for {elapsed(since, seen.now):.0f} s: it holds")
    baked = elapsed(state.step_at, seen.now)
    if baked < bake:
        return Decision((), f"it takes {state.share:g} for {baked:.0f} s of {_told(bake)}")
    clear = elapsed(health.clear_since, seen.now) if health.clear_since is not None else bake
    if clear < bake:
        return Decision((), f"an alarm cleared {clear:.0f} s ago, it must stay so {_told(bake)}")
    if health.requests < HEALTHY_REQUESTS:
        said = f"{health.requests} requests since the step began, {HEALTHY_REQUESTS} are needed"
        return Decision((), f"no evidence: {said}")
    because = f"{health.requests} requests within {_told(bake)} and no alarm"
    larger = next((step for step in rules.canary.steps if step > state.share), None)
    if larger is None:
        return _do(state, "promote", f"it had all traffic: {because}", name)
    return _do(state, "share", f"{because}: it takes {larger:g}", name, share=larger)


def _experiment(state: Rollout, seen: Seen) -> Decision:
    name = state.challenger or ""
    if seen.late or seen.judged is None:
        return Decision((), f"no evidence: {seen.late or 'no outcome was judged yet'}")
    because = seen.judged.because
    if seen.judged.decision == "promote":
        return _do(state, "promote", because, name)
    if seen.judged.decision == "roll_back":
        return _do(state, "roll_back", because, name)
    if seen.judged.decision == "inconclusive":
        return _do(state, "keep", f"inconclusive, the champion stays: {because}", name)
    return Decision((), because)


# While nothing is judged


def _idle(state: Rollout, seen: Seen, rules: RolloutSpec) -> Decision:
    tidying = _to_tidy(state, seen, rules)
    if tidying is not None:
        return tidying
    champion = champion_variant(state)
    found = seen.of(champion or "")
    if champion is not None and found.refused:
        return Decision((), f"variant {champion} could not be brought back: {found.refused}")
    if champion is not None and (found.state, found.version) != ("InService", state.champion):
        return _do(state, "revive", f"variant {champion} does not serve", champion)
    candidate = seen.candidate
    if candidate is None:
        return Decision((), "no model was trained yet")
    if candidate.version == state.champion:
        return Decision((), "the newest model is live")
    if refusal := unfit(state, candidate):
        return Decision((), refusal)
    if candidate.standing == "outdated":
        because = f"model {candidate.version[:12]} is gated again: {candidate.because}"
        return _do(state, "gate", because, version=candidate.version)
    return begin(state, seen, rules, candidate)


def unfit(state: Rollout, candidate: Candidate) -> str:
    """Why the candidate will not be tried, or not now; nothing when it may be."""
    name = f"model {candidate.version[:12]}"
    if candidate.version in state.rolled_back:
        return f"{name} was rolled back and is not tried again"
    if candidate.version in state.set_aside:
        return f"{name} was tried without a result; only a person promotes it"
    if candidate.standing == "refused":
        return f"{name} is refused: {candidate.because}"
    if candidate.consent == "pending":
        return f"{name} waits for a person's approval"
    if candidate.consent != "given":
        return f"{name} is not deployed: {candidate.because or candidate.consent}"
    return ""


def begin(state: Rollout, seen: Seen, rules: RolloutSpec, candidate: Candidate) -> Decision:
    """Put a proven candidate up, then begin its rollout by the strategy."""
    placed = place(state, seen, candidate.version)
    if placed is not None:
        return placed
    variant = variant_of(state, candidate.version) or ""
    # There is nothing to compare a pipeline's first model with.
    strategy = rules.strategy if state.champion else "all_at_once"
    replay = bool(state.champion and rules.shadow_requests and seen.to_replay)
    if strategy == "all_at_once" and not replay:
        because = "it passed every gate and answered its golden records live"
        return _do(state, "promote", because, variant, strategy=strategy)
    because = f"model {candidate.version[:12]} is the challenger, by {strategy}"
    return _do(state, "start", because, variant, strategy=strategy)


def place(state: Rollout, seen: Seen, version: str) -> Decision | None:
    """Put a model on the idle variant; None when it serves there."""
    variant = variant_of(state, version)
    if variant is not None:
        found = seen.of(variant)
        if found.refused:
            return Decision((), f"variant {variant} could not be brought up: {found.refused}")
        if found.state == "InService" and found.version == version:
            return None
        return _do(state, "revive", f"variant {variant} does not serve", variant)
    idle = idle_variant(state)
    if idle in state.losing_since:
        return _do(state, "release", released(state, idle, version), idle)
    if refused := seen.of(idle).refused:
        return Decision((), f"model {version[:12]} could not be put up: {refused}")
    because = f"variant {idle} is idle"
    return _do(state, "deploy", because, idle, version=version)


def released(state: Rollout, variant: str, version: str) -> str:
    """Why a variant that was kept is given to another model."""
    if target_of(state) == variant:
        return (
            f"rollback target released: variant {variant} is needed for model {version[:12]}; "
            f"the version before stays recorded and can be deployed again"
        )
    return f"variant {variant} holds what lost live; it is needed for model {version[:12]}"


def _to_tidy(state: Rollout, seen: Seen, rules: RolloutSpec) -> Decision | None:
    """Variants that are kept no longer, and servers that no variant names."""
    champion, candidate = champion_variant(state), seen.candidate
    fit = candidate is not None and candidate.standing == "proven" and not unfit(state, candidate)
    wanted = candidate.version if candidate is not None and fit else None
    for name, entry in sorted(state.variants.items()):
        if name == champion:
            continue
        since = state.losing_since.get(name)
        if since is None and entry.model_version != wanted:
            said = "it never took traffic, and another model took its turn"
            return _do(state, "retire", f"variant {name} is not needed: {said}", name)
        if since is not None and elapsed(since, seen.now) >= rules.keep_alive:
            kept = f"it was kept for {_told(rules.keep_alive)}"
            return _do(state, "retire", f"variant {name} is not needed: {kept}", name)
    for name, found in sorted(seen.serving.items()):
        if name not in state.variants and found.state == "InService" and found.version != wanted:
            return _do(state, "stop", f"variant {name} serves, and the rollout names nothing", name)
    return None


def _told(seconds: float) -> str:
    """A duration in the largest unit that it fills."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
