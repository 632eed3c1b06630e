"""Rollouts under everything that can happen, in any order, for thousands of steps."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rollout_world import DAY, Crash, World

from ml_control.core.rollout import (
    HEALTHY_REQUESTS,
    Alarmed,
    Command,
    Health,
    Judged,
    Serving,
    apply,
    decide,
    is_last,
    obey,
)
from ml_control.errors import MlControlError
from ml_control.spec import RolloutSpec

VARIANT = st.sampled_from(("a", "b"))


class Rollouts(RuleBasedStateMachine):
    """Deploys, alarms, outcomes, crashes, people, clocks and dying servers, all at once."""

    @initialize(
        strategy=st.sampled_from(("all_at_once", "canary", "ab_test")),
        keep=st.sampled_from(("0 s", "1 h", "1 d")),
        shadow=st.sampled_from((0, 50)),
    )
    def begin(self, strategy, keep, shadow):
        """A pipeline with a strategy."""
        self.world = World(
            RolloutSpec(
                strategy=strategy, keep_alive=keep, shadow_requests=shadow, max_duration="3 d"
            )
        )
        self.models = 0
        self.stale = []  # what was decided earlier: (action, the state it was decided on)
        for _ in range(2):
            self.models += 1
            self.world.train(f"model-{self.models}", passes=True)
            if self.models == 1:
                self.world.settle()
        self.world.logged = 300

    # What happens

    @rule(
        passes=st.booleans() | st.just(True),
        consent=st.sampled_from(["given"] * 4 + ["pending"]),
    )
    def train(self, passes, consent):
        """A new model, also while another is being judged."""
        self.models += 1
        version = f"model-{self.models}"
        self.world.consent[version] = consent
        self.world.train(version, passes=passes)

    @rule(answer=st.sampled_from(("given", "rejected", "expired")))
    def approve(self, answer):
        """A person, or time, decides about what waits."""
        for version, consent in self.world.consent.items():
            if consent == "pending":
                self.world.consent[version] = answer

    @rule(looks=st.integers(1, 6))
    def look(self, looks):
        """Looks, each with its first action."""
        for _ in range(looks):
            self.world.step()

    @rule(verdict=st.sampled_from(("healthy", "promote", "roll_back", "inconclusive", "breach")))
    def run(self, verdict):
        """A while in which all goes as it should, until evidence says something."""
        world = self.world
        for _ in range(3):
            world.step()
        if verdict in ("healthy", "breach"):
            self.measure(verdict)
        else:
            self.outcome(verdict)
        world.now += 601.0
        world.step()

    @rule(stop=st.integers(0, 2))
    def crash(self, stop):
        """The process dies before, within or after an action; the next one looks anew."""
        with suppress(Crash):
            self.world.step(stop)

    @rule()
    def decide_and_sleep(self):
        """An action is decided, and its process sleeps."""
        decision = decide(self.world.stored, self.world.seen(), self.world.rules)
        self.stale += [(action, self.world.stored) for action in decision.actions]

    @precondition(lambda self: self.stale)
    @rule(place=st.integers(0, 99))
    def wake(self, place):
        """It wakes: its write is of a record that moved, and changes nothing then."""
        action, before = self.stale[place % len(self.stale)]
        if action.kind in ("deploy", "revive", "stop", "retire", "release", "share", "promote",
                           "revert"):  # fmt: skip
            moved = before.version != self.world.stored.version
            after = apply(before, action, self.world.now)
            assert not (moved and self.world.write(before, after, action.kind))
        else:
            self.world.perform(action, before)

    @rule()
    def twice(self):
        """An action whose answer was lost is done again, on what it made."""
        world = self.world
        decision = decide(world.stored, world.seen(), world.rules)
        for action in decision.actions:
            if action.kind in ("deploy", "revive", "gate", "replay", "stop"):
                continue
            once = apply(world.stored, action, world.now)
            assert once == apply(once, action, world.now + 1)

    def outcome(self, decision):
        """The experiment says something."""
        self.world.judged = Judged(decision, f"outcomes say {decision}")

    @rule(kind=st.sampled_from(("breach", "alarm", "quiet", "healthy", "missing", "healthy")))
    def measure(self, kind):
        """What was counted of the challenger in this step."""
        world, last = self.world, self.world.health
        clear = last.clear_since if last else None
        if kind == "alarm":
            since = last.alarm_since if last and last.alarm else world.now
            world.health = Health(50, alarm="errors above the limit", alarm_since=since)
        elif kind == "missing":
            world.health = None
        else:
            count = {"quiet": HEALTHY_REQUESTS - 1}.get(kind, 500)
            clear = world.now if last and last.alarm else clear
            breach = "errors beyond doubt" if kind == "breach" else ""
            world.health = Health(count, breach=breach, clear_since=clear)

    @rule(kind=st.sampled_from(("firing", "unclear", "ok", "ok")))
    def alarm(self, kind):
        """What the platform's alarms say."""
        self.world.alarms = Alarmed(**({} if kind == "ok" else {kind: "alarm errors"}))

    @rule(variant=VARIANT, how=st.sampled_from(("dies", "dies", "for good", "swapped", "mute")))
    def fail(self, variant, how):
        """A server dies, perhaps for good, or holds what nobody put there; or the newest model
        does not answer logged requests.
        """
        world, found = self.world, self.world.endpoints.get(variant)
        if how == "mute":
            world.mute.add(f"model-{self.models}")
        elif found and how == "swapped":
            world.endpoints[variant] = Serving("InService", "model-1")
        elif found:
            if how == "for good" and found.version != world.stored.champion:
                world.dead.add(found.version)
            world.endpoints[variant] = Serving("Failed", found.version)

    @rule(seconds=st.sampled_from((300.0, 601.0, 3601.0, 4 * DAY, -3600.0, -40 * DAY)))
    def wait(self, seconds):
        """Time passes, or the clock is set."""
        self.world.now += seconds

    @rule(
        name=st.sampled_from(
            ("promote", "rollback", "rollback", "traffic", "pause", "resume", "resume")
        ),
        model=st.integers(0, 9),
        share=st.sampled_from((0.0, 0.1, 0.5, 1.0)),
    )
    def command(self, name, model, share):
        """A person decides; a refusal leaves everything as it was."""
        world = self.world
        version = f"model-{model}" if model and model <= self.models else ""
        command = Command(name, version if name == "promote" else "", share)
        for _ in range(6):
            before = world.stored
            seen = world.seen(version if name == "promote" else "")
            action = self._obeyed(before, seen, command)
            assert before == world.stored
            if action is None:
                return
            assert action.kind != "revert" or world.stored.previous is not None
            world.perform(action, world.stored)
            if is_last(command, action):
                return
            if world.stored is before and action.variant in world.refused:
                return

    def _obeyed(self, state, seen, command):
        """The next action of a command; None when it is done already or refused."""
        found = None
        try:
            found, _ = obey(state, seen, command)
        except MlControlError as error:
            refused = error
        else:
            return found
        assert refused.next, "every refusal names its next step"
        return None

    @rule()
    def settle(self):
        """Left alone, it comes to rest, and the newest model is live or there is a reason."""
        world = self.world
        because = world.settle()
        state = world.stored
        if world.candidate and state.champion != world.candidate:
            assert because not in ("the newest model is live", "no model was trained yet")
        if world.candidate and not state.paused and state.state == "idle":
            standing = world.standing(world.candidate)
            done = world.candidate in (state.champion, *state.rolled_back, *state.set_aside)
            stuck = bool(world.refused)
            assert done or stuck or standing.standing == "refused" or standing.consent != "given"

    @invariant()
    def holds(self):
        """Everything that must hold, does."""
        if hasattr(self, "world"):
            self.world.check()


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=250,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
