"""A small world that a rollout lives in: endpoints, models and a clock, all in memory.

It does what the platform's services do with each action, and can stop between any two of its
steps. Every write goes through :meth:`World.write`, which checks what must hold at all times.
"""

from __future__ import annotations

from dataclasses import replace

from ml_control.core.records import VARIANTS, Rollout, Variant
from ml_control.core.rollout import (
    HEALTHY_REQUESTS,
    Alarmed,
    Candidate,
    Command,
    Health,
    Judged,
    Replayed,
    Seen,
    Serving,
    apply,
    champion_variant,
    decide,
    is_last,
    obey,
)
from ml_control.spec import RolloutSpec

DAY = 86400.0


class Crash(Exception):
    """The process is gone."""


class World:
    """What is true. ``rules`` are the pipeline file's."""

    def __init__(self, rules: RolloutSpec) -> None:
        self.rules = rules
        self.now = 1_000_000.0
        self.stored = Rollout(pipeline="p", id="p-0")
        self.passes: dict[str, bool] = {}  # whether a model passes when it is judged
        self.verdicts: dict[tuple[str, str | None], bool] = {}  # (model, champion)
        self.consent: dict[str, str] = {}
        self.candidate: str | None = None
        self.endpoints: dict[str, Serving] = {}
        self.dead: set[str] = set()  # models whose servers cannot be started again
        self.mute: set[str] = set()  # models that do not answer a replay
        self.logged = 0  # requests in the log
        self.replayed: dict[str, Replayed] = {}  # by rollout
        self.judged: Judged | None = None
        self.health: Health | None = None
        self.alarms = Alarmed()
        self.refused: dict[str, str] = {}
        self.rollbacks: dict[str, int] = {}
        self.ids: set[str] = set()
        self.actions: list[str] = []

    # What is seen

    def standing(self, version: str) -> Candidate:
        """How a model stands against the present champion."""
        champion = self.stored.champion
        said = self.verdicts.get((version, champion))
        consent = self.consent.get(version, "given")
        if said is None:
            return Candidate(version, "outdated", consent, "the champion changed")
        return Candidate(version, "proven" if said else "refused", consent, "auc")

    def proven(self, version: str) -> bool:
        """Whether any verdict on exactly this model is yes."""
        return any(said for (model, _), said in self.verdicts.items() if model == version)

    def seen(self, asked: str = "") -> Seen:
        """The world as the services observe it."""
        about = asked or self.candidate
        serving = {
            v: replace(s, proven=not s.version or self.proven(s.version),
                       refused=self.refused.get(v, ""))
            for v, s in self.endpoints.items()
        }  # fmt: skip
        return Seen(
            now=self.now,
            candidate=self.standing(about) if about else None,
            serving=serving,
            to_replay=min(self.logged, self.rules.shadow_requests),
            replayed=self.replayed.get(self.stored.id),
            judged=self.judged,
            health=self.health,
            alarms=self.alarms,
        )

    # What is done

    def train(self, version: str, *, passes: bool) -> None:
        """A new candidate, judged against the present champion."""
        self.passes[version] = passes
        self.candidate = version
        self.verdicts.setdefault((version, self.stored.champion), passes)

    def perform(self, action, before: Rollout, stop: int = 9) -> None:
        """Do an action that was decided on ``before``; ``stop`` counts the steps until a crash."""
        kind, variant = action.kind, action.variant
        if stop == 0:
            raise Crash
        entry = None
        if kind == "gate":
            self.verdicts.setdefault(
                (action.version, self.stored.champion), self.passes[action.version]
            )
        elif kind in ("deploy", "revive"):
            entry = self.serve(variant, action.version)
        elif kind == "stop":
            self.endpoints[variant] = Serving("Missing", self.endpoints[variant].version)
        elif kind == "replay":
            failed = int(action.version in self.mute)
            self.replayed[action.rollout] = Replayed(self.logged, failed, because="no answer")
        elif kind in ("share", "promote", "revert") and action.share >= 0:
            assert self.serve(variant, action.version) or variant in self.refused
            if variant in self.refused:
                return
        if stop == 1:
            raise Crash
        self.write(before, apply(before, action, self.now, entry), kind)
        if stop == 2:
            raise Crash
        if kind in ("retire", "release") and variant not in self.stored.variants:
            self.endpoints[variant] = Serving("Missing", action.version)

    def serve(self, variant: str, version: str) -> Variant | None:
        """A server with these bytes, which answered its golden records."""
        assert self.proven(version), "only proven bytes are ever started"
        if version in self.dead:
            self.refused[variant] = "it does not start"
            return None
        self.endpoints[variant] = Serving("InService", version)
        self.refused.pop(variant, None)
        return Variant(endpoint=f"p-{variant}", model_version=version, verdict="v",
                       proven_live_at=self.now)  # fmt: skip

    def write(self, before: Rollout, after: Rollout, kind: str) -> bool:
        """Compare-and-set; whether it was written."""
        if after is before:
            return False
        if self.stored.version != before.version:
            return False  # Conflict: someone else moved it
        assert before.version + 1 == after.version
        self.actions.append(kind)
        if after.id != before.id:
            assert after.id not in self.ids, "an id is never given twice"
            self.ids.add(after.id)
        if kind in ("roll_back", "revert"):
            self.rollbacks[after.id] = self.rollbacks.get(after.id, 0) + 1
        assert set(before.rolled_back) <= set(after.rolled_back)
        self.stored = after
        if after.id != before.id:
            self.judged = self.health = None
        self.check()
        return True

    def step(self, stop: int = 9) -> bool:
        """One look and its first action; whether there was one."""
        decision = decide(self.stored, self.seen(), self.rules)
        assert decision.because, "there is always a reason"
        if not decision.actions:
            return False
        self.earned(decision.actions[0])
        self.perform(decision.actions[0], self.stored, stop)
        return True

    def earned(self, action) -> None:
        """More traffic is given on evidence alone: missing data is never healthy."""
        state, health = self.stored, self.health
        assert not state.paused
        assert state.state != "halted"
        if action.kind in ("share", "promote") and state.phase == "canary":
            assert health is not None
            assert health.requests >= HEALTHY_REQUESTS
            assert ("", "") == (health.alarm, health.breach)
            assert self.now - state.step_at >= self.rules.canary.bake
            clear = health.clear_since
            assert clear is None or self.now - clear >= self.rules.canary.bake
        if action.kind == "promote" and state.phase == "experiment":
            assert self.judged is not None
            assert "promote" == self.judged.decision
        if action.kind in ("share", "promote") and state.phase in ("canary", "experiment"):
            assert Alarmed() == self.alarms
        shadowed = self.rules.shadow_requests and self.logged
        if action.kind in ("share", "promote") and state.phase == "shadow" and shadowed:
            replayed = self.replayed.get(state.id)
            assert replayed is not None
            assert 0 == replayed.failed

    def settle(self) -> str:
        """Look and act until nothing is left to do; gives the last reason."""
        for _ in range(40):
            if not self.step():
                return decide(self.stored, self.seen(), self.rules).because
        raise AssertionError(f"it never comes to rest: {self.actions[-40:]}")

    # What must hold

    def check(self) -> None:
        """I2, I3 and the record's own promises."""
        state = self.stored
        for variant, weight in state.weights.items():
            assert 0.0 <= weight <= 1.0
            if weight > 0:
                version = state.variants[variant].model_version
                assert self.proven(version), f"{version} takes traffic without a passing verdict"
                assert version not in state.rolled_back, f"{version} lost live and takes traffic"
        if state.champion is not None:
            assert champion_variant(state) in VARIANTS
            assert 1.0 == sum(state.weights.values())
            assert state.champion not in state.rolled_back
        assert set(state.variants) == set(state.weights)
        assert set(state.losing_since) <= set(state.variants)
        assert champion_variant(state) not in state.losing_since
        assert all(count <= 1 for count in self.rollbacks.values())
        if state.state == "idle":
            assert (None, "") == (state.challenger, state.phase)
        else:
            assert state.challenger in state.variants
            assert state.challenger != champion_variant(state)
        if state.phase == "shadow":
            assert 0.0 == state.share


BAKE = 600.0
FIT = Health(HEALTHY_REQUESTS)


def world(**rules):
    """A pipeline whose first model is live and whose second is proven against it."""
    found = World(RolloutSpec(**rules))
    found.train("one", passes=True)
    found.settle()
    found.train("two", passes=True)
    return found


def command(found, name, version="", share=0.0):
    """Do a person's command to its end; gives the kinds of its actions."""
    done = []
    for _ in range(6):
        asked = Command(name, version, share)
        action, _ = obey(found.stored, found.seen(version), asked)
        if action is None:
            return done
        found.perform(action, found.stored)
        done.append(action.kind)
        if is_last(asked, action):
            return done
    raise AssertionError(done)


def pass_step(found, seconds=BAKE + 1, health=FIT):
    """Let a step bake, with this health; gives why it goes on or not."""
    found.now += seconds
    found.health = health
    return found.settle()
