"""When to train, in any order of what happens: one at a time, within budget, nothing forgotten."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.retraining import (
    GRACE_SECONDS,
    Measured,
    Observation,
    begun,
    decide,
    ended,
    redeploying,
    requested,
)
from ml_control.core.training_state import TrainingState, Trigger
from ml_control.spec import Retrain

NOW = 1_000_000.0
DAY = 86400.0
KINDS = ("partition drift", "live drift", "prediction drift", "quality")

triggers = st.builds(
    Trigger,
    kind=st.sampled_from(["rows", "schedule", *KINDS]),
    subject=st.sampled_from(["", "m1"]),
    value=st.floats(0, 1),
    at=st.floats(0, 2 * NOW),
    answering=st.integers(0, 2),
    trained=st.booleans(),
)
states = st.builds(
    TrainingState,
    pipeline=st.just("p"),
    dataset=st.none() | st.sampled_from(["d1", "d2"]),
    attempt=st.integers(0, 30),
    outcome=st.sampled_from([None, "requested", "passed", "refused", "failed"]),
    run=st.none() | st.just("r"),
    at=st.floats(0, 2 * NOW),
    number=st.integers(0, 2),
    began=st.floats(0, 2 * NOW),
    asked=st.lists(st.floats(0, 2 * NOW), max_size=5).map(tuple),
    triggers=st.lists(triggers, max_size=4, unique_by=lambda one: one.kind).map(tuple),
)
measurements = st.builds(
    Measured,
    kind=st.sampled_from(KINDS),
    subject=st.sampled_from(["m1", "m2"]),
    value=st.floats(0, 1),
    bound=st.just(0.2),
    beyond=st.booleans(),
    because=st.just("it drifted"),
    over=st.just(0.1),
).map(lambda one: replace(one, beyond=one.beyond and one.value > one.bound))
observations = st.builds(
    Observation,
    published=st.none() | st.sampled_from(["d1", "d2"]),
    ingesting=st.integers(0, 2),
    waiting=st.integers(0, 2),
    training=st.booleans(),
    backfilling=st.booleans(),
    undeployed=st.booleans(),
    now=st.floats(0, 2 * NOW),
    trained=st.none() | st.sampled_from(["d1", "d2"]),
    new_rows=st.integers(0, 2000),
    first_published=st.none() | st.floats(0, 2 * NOW),
    last_published=st.none() | st.floats(0, 2 * NOW),
    paused=st.booleans(),
    measured=st.lists(measurements, max_size=3, unique_by=lambda one: one.kind).map(tuple),
)
policies = st.builds(
    Retrain.model_validate,
    st.fixed_dictionaries(
        {
            "automatic": st.booleans(),
            "max_attempts": st.integers(1, 20),
            "min_new_rows": st.sampled_from([1, 10, 1000]),
            "every": st.sampled_from([None, "1 h", "7 d", "0 3 * * 1"]),
            "on_drift": st.booleans(),
            "quiet": st.sampled_from(["0 s", "60 s"]),
            "max_wait": st.sampled_from(["0 s", "15 min"]),
            "cooldown": st.sampled_from(["0 s", "1 h"]),
            "max_per_day": st.sampled_from([1, 3, 100]),
        }
    ),
)


@settings(max_examples=400, deadline=None)
@given(state=states, seen=observations, policy=policies)
def test_whatever_is_true_these_hold(state, seen, policy):
    """Never while anything is under way or forbidden, never past attempts, cooldown or budget; the
    same answer when asked again, also after its state was written, and never without a reason.
    """
    decision = decide(state, seen, policy)

    assert decision == decide(state, seen, policy)
    again = decide(decision.state, seen, policy)
    assert (decision.train, decision.because) == (again.train, again.because)
    assert decision.because
    if not decision.train:
        return
    assert policy.automatic
    assert seen.published is not None
    assert not any((seen.training, seen.backfilling, seen.paused))
    assert 1 <= decision.attempt <= policy.max_attempts
    if decision.redeploy:
        assert (state.outcome, seen.undeployed) == ("passed", True)
        return
    recent = [at for at in state.asked if min(at, seen.now) > seen.now - DAY]
    assert len(recent) < policy.max_per_day
    last = min(max([state.began, *state.asked], default=0.0), seen.now)
    assert not last or seen.now >= last + policy.cooldown
    if decision.attempt > 1:
        assert state.outcome in (None, "requested", "failed")
        assert state.attempt + 1 == decision.attempt
        waited = seen.now - state.at
        assert waited < 0 or waited >= GRACE_SECONDS * 2.0 ** max(0, state.attempt - 1)


@settings(max_examples=400, deadline=None)
@given(state=states, seen=observations, policy=policies, more=st.integers(0, 3000))
def test_more_new_rows_never_make_a_training_unwanted(state, seen, policy, more):
    """What is trained with so many rows is trained with more of them."""
    few = decide(state, seen, policy)
    many = decide(state, replace(seen, new_rows=seen.new_rows + more), policy)

    assert many.train or not few.train


@dataclass
class World:
    """A platform in which ticks, runs and clocks die and go wrong at any line."""

    policy: Retrain
    state: TrainingState = field(default_factory=lambda: TrainingState(pipeline="p"))
    now: float = NOW
    published: int = 0  # rows
    model: int | None = None  # the rows that the newest model knows
    run: dict | None = None  # the run in flight
    drift: float = 0.0
    busy: bool = False
    calm: float | None = None  # since when nothing is published any more
    began: list = field(default_factory=list)  # (when, rows) of each training
    requests: int = 0

    def dataset(self, rows):
        return None if not rows else f"d{rows}"

    def seen(self):
        drift = Measured(
            "live drift", "m", self.drift, 0.2, self.drift > 0.2, "it drifted", over=0.1
        )
        return Observation(
            published=self.dataset(self.published),
            ingesting=int(self.busy),
            waiting=0,
            training=self.run is not None,
            backfilling=False,
            undeployed=False,
            now=self.now,
            trained=self.dataset(self.model),
            new_rows=self.published - (self.model or 0),
            first_published=NOW,
            last_published=(self.now if self.calm is None else self.calm) - 1,
            measured=(drift,),
        )

    def tick(self, dies=""):
        """One tick; it may die before or after it wrote its decision down."""
        decision = decide(self.state, self.seen(), self.policy)
        if dies == "before":
            return decision
        self.state = decision.state
        if decision.redeploy:
            self.state = redeploying(self.state, decision.attempt, self.now)
        elif decision.train:
            dataset = self.dataset(self.published)
            self.state = requested(self.state, dataset, decision.attempt, "", self.now)
            self.requests += 1
            if dies != "after":
                assert self.run is None
                self.run = {"began": False}
        return decision

    def begin(self):
        if self.run and not self.run["began"]:
            self.run = {"began": True, "rows": self.published}
            self.began.append((self.now, self.published))
            self.state = begun(self.state, self.dataset(self.published), "r", self.now)

    def end(self, how):
        if self.run is None:
            return
        if self.run["began"] and how != "vanished":
            dataset = self.dataset(self.run["rows"])
            self.state = ended(self.state, how, "", self.now, dataset=dataset)
            if how != "failed":
                self.model = self.run["rows"]
        self.run = None

    def do(self, what, value):
        if what == "publish":
            self.published += value
        elif what == "tick":
            self.tick(value)
        elif what == "begin":
            self.begin()
        elif what == "end":
            self.end(value)
        elif what == "wait":
            self.now += value
        elif what == "drift":
            self.drift = value
        elif what == "busy":
            self.busy = value
        elif what == "restart":  # what was read back is what was written
            self.state = TrainingState.model_validate(self.state.to_json())


def steps(*clocks):
    return st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.sampled_from([1, 5, 50])),
            st.tuples(st.just("tick"), st.sampled_from(["", "", "", "before", "after"])),
            st.tuples(st.just("begin"), st.none()),
            st.tuples(st.just("end"), st.sampled_from(["passed", "refused", "failed", "vanished"])),
            st.tuples(st.just("wait"), st.sampled_from([1.0, 61.0, 4000.0, 1e5, *clocks])),
            st.tuples(st.just("drift"), st.sampled_from([0.05, 0.15, 0.25, 0.6])),
            st.tuples(st.just("busy"), st.booleans()),
            st.tuples(st.just("restart"), st.none()),
        ),
        max_size=80,
    )


@settings(max_examples=400, deadline=None)
@given(steps=steps(), policy=policies)
def test_any_history_keeps_to_the_rules_and_forgets_nothing(steps, policy):
    """Whatever happened, once the world is calm all that asked was trained on, or is shown with
    what keeps it from being trained on. Never two in flight, never beyond the day's budget.
    """
    world = World(policy)
    for what, value in steps:
        world.do(what, value)
        times = [at for at, _ in world.began]
        for at in times:
            assert sum(at - DAY < other <= at for other in times) <= policy.max_per_day

    world.busy, world.calm = False, world.now
    world.end("vanished")
    for _ in range(60):
        decision = world.tick()
        if decision.train:
            world.begin()
            world.end("passed")
        elif decision.ended or decision.halted or not policy.automatic:
            break
        world.now += 2 * DAY
    new = world.published - (world.model or 0)
    if decision.ended or decision.train:
        assert 0 == new
    elif policy.automatic and not decision.halted and world.published:
        assert 0 < new < policy.min_new_rows
        assert "new rows" in decision.because


@settings(max_examples=200, deadline=None)
@given(steps=steps(-3600.0, -4e7), policy=policies)
def test_a_clock_that_goes_anywhere_starves_nothing_for_ever(steps, policy):
    """After any jumps of the clock, new data is trained on within days."""
    world = World(policy)
    for what, value in steps:
        world.do(what, value)
    world.busy = False
    world.end("vanished")
    world.published += 5000
    before = world.model
    for _ in range(40):
        if world.tick().train:
            world.begin()
            world.end("refused")
        world.now += 7200.0
    assert (world.model == world.published) == policy.automatic or before == world.published


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0.5, 59.5), min_size=80, max_size=120),
    wait=st.sampled_from(["5 min", "15 min"]),
)
def test_quiet_never_starves_a_training(gaps, wait):
    """However data keeps coming, a training is asked for within ``max_wait`` and one tick."""
    policy = Retrain.model_validate({"quiet": "60 s", "max_wait": wait})
    world, first, decision = World(policy), NOW, None
    for gap in gaps:
        world.published += 1
        world.busy = not world.busy
        decision = world.tick()
        if decision.train:
            break
        world.now += gap

    assert decision.train or world.now - first < policy.max_wait + 60
    assert not decision.train or world.now - first <= policy.max_wait + 60


@settings(max_examples=300, deadline=None)
@given(
    during=st.lists(st.sampled_from(["rows", "schedule", "drift", "tick", "restart"]), max_size=12),
    ends=st.sampled_from(["passed", "refused"]),
)
def test_triggers_during_a_training_give_exactly_one_more(during, ends):
    """In any order and number, with crashes in between."""
    policy = Retrain.model_validate({"on_drift": True, "every": "1 h"})
    world = World(policy, published=10)
    assert world.tick().train
    world.begin()
    for what in during:
        if what == "rows":
            world.published += 1
        elif what == "schedule":
            world.now += 3600
        elif what == "drift":
            world.drift = 0.3
        else:
            world.do(what, "")
    held = world.published > 10 or "schedule" in during
    world.end(ends)

    more = 0
    for _ in range(5):
        if world.tick().train:
            more += 1
            world.begin()
            world.end(ends)
        world.now += 1

    assert int(held) == more
