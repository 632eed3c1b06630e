"""Request logic without a server: who answers, what is logged, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from handling import PIPELINE, RECORD, World, rollout
from hypothesis import given
from hypothesis import strategies as st

from ml_control.core.routing import to_challenger
from ml_control.errors import MlControlError, PlatformFailed, Retryable
from ml_control.ports import Reply
from ml_control.serving.handlers.bodies import Promote, Reason
from ml_control.serving.handlers.inference import assign
from ml_control.serving.handlers.messages import STATUS
from ml_control.serving.handlers.routes import Table, routes


def told(answer: Any) -> Any:
    """An answer's body."""
    return json.loads(answer.body)


def entity_of(variant: str, share: float = 0.5) -> str:
    """An entity that belongs to a variant."""
    return next(
        f"e{i}"
        for i in range(1000)
        if to_challenger("income-7", f"e{i}", share) == (variant == "b")
    )


def test_handlers_import_no_heavy_library() -> None:
    """Every handler can be imported without numpy, pandas, polars or xgboost."""
    program = (
        "import sys, pkgutil, importlib, ml_control.serving.handlers as h\n"
        "for found in pkgutil.iter_modules(h.__path__):\n"
        "    importlib.import_module(f'{h.__name__}.{found.name}')\n"
        "heavy = ('numpy', 'pandas', 'polars', 'xgboost', 'dagster', 'uvicorn')\n"
        "print([m for m in heavy if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "[]" == done.stdout.strip()


def test_a_request_is_answered_and_logged_whole() -> None:
    """The answer names request, variant and model; the log has who, what and how long."""
    world = World(rollout(0.5))

    status, answer = world.infer(entity_id=entity_of("b"), request_id="r-1")

    probabilities = {"no": 0.25, "yes": 0.75}
    assert (200, "r-1", "b", "v2") == (
        status, answer["request_id"], answer["variant"], answer["model_version"],
    )  # fmt: skip
    assert [{"label": "yes", "score": 0.75, "probabilities": probabilities}] == answer[
        "predictions"
    ]
    (entry,) = world.logged
    assert ("b", "b", True, 0.5, "income-7", 1, False, "") == (
        entry.assigned, entry.served, entry.challenger, entry.share, entry.rollout_id, entry.rows,
        entry.failed, entry.failure,
    )  # fmt: skip
    assert ([RECORD], [{"label": "yes", "score": 0.75}]) == (
        json.loads(entry.records or b""),
        json.loads(entry.answers),
    )
    assert entry.latency > 0


def test_without_an_entity_the_request_id_decides() -> None:
    """A request without an entity is its own entity."""
    world = World(rollout(0.5))

    for variant in "ab":
        _, answer = world.infer(request_id=entity_of(variant))

        assert variant == answer["variant"]
    assert all(entry.entity_id == entry.request_id for entry in world.logged)


def test_no_header_chooses_a_variant() -> None:
    """Whatever a caller writes into headers, the entity's variant answers."""
    world = World(rollout(0.5))
    for guess in ("x-variant", "x-ml-control-variant", "x-amzn-sagemaker-target-variant"):
        body = {"records": [RECORD], "entity_id": entity_of("a")}

        answer = world.ask(f"/inference/{PIPELINE}", body, headers={guess: "b"})

        assert "a" == told(answer)["variant"]


@given(st.text(min_size=1, max_size=30), st.floats(0.01, 0.99))
def test_the_assignment_is_that_of_the_routing(entity: str, share: float) -> None:
    """Handlers assign as ``core.routing`` does, and the other variant may stand in."""
    found = assign(rollout(share), entity)

    assert found is not None
    challenger = to_challenger("income-7", entity, share)
    assert ("b" if challenger else "a", challenger, share) == (
        found.variant, found.challenger, found.share,
    )  # fmt: skip
    assert ("a" if challenger else "b",) == found.others


def test_in_shadow_the_challenger_answers_nobody() -> None:
    """A challenger without weight is neither assigned nor asked in the champion's place."""
    shadow = rollout(0.5, weights={"a": 1.0, "b": 0.0}, phase="shadow")
    world = World(shadow)
    world.replies["a"] = Retryable("endpoint income-a", "cannot be reached")

    status, _ = world.infer(entity_id=entity_of("b"))

    assert (503, ["a"]) == (status, world.asked)


def test_at_the_last_step_the_champion_still_stands_in() -> None:
    """With all traffic on the challenger, the champion answers when it fails."""
    world = World(rollout(0.5, weights={"a": 0.0, "b": 1.0}))
    world.replies["b"] = Retryable("endpoint income-b", "cannot be reached")

    status, answer = world.infer()

    assert (200, "a", ["b", "a"]) == (status, answer["variant"], world.asked)


@pytest.mark.parametrize(
    "reply",
    [
        Retryable("endpoint income-b", "did not answer within 5 s"),
        Reply(500, b"broken"),
        Reply(200, b"nan\n"),
        Reply(200, b"0.5\n0.5\n"),
        Reply(200, b""),
    ],
    ids=["silent", "500", "nan", "too many", "nothing"],
)
def test_the_champion_answers_for_a_variant_that_fails(reply: Reply | Exception) -> None:
    """The failure is the assigned variant's; the caller has an answer."""
    world = World(rollout(0.5))
    world.replies["b"] = reply

    status, answer = world.infer(entity_id=entity_of("b"))

    assert (200, "a", "v1", ["b", "a"]) == (
        status, answer["variant"], answer["model_version"], world.asked,
    )  # fmt: skip
    (entry,) = world.logged
    assert ("b", "a", True, True) == (entry.assigned, entry.served, entry.failed, entry.challenger)
    assert entry.failure.startswith("b: ")


def test_a_variant_without_a_usable_model_has_failed() -> None:
    """A variant whose features cannot be proven is not asked."""
    world = World(rollout(0.5))
    world.features["b"] = None

    status, answer = world.infer(entity_id=entity_of("b"))

    assert (200, "a", ["a"]) == (status, answer["variant"], world.asked)
    assert "b: gone" == world.logged[0].failure


def test_when_nobody_answers_it_is_a_typed_503_and_logged() -> None:
    """The failed request is in the log, and its id is free for the caller's next try."""
    world = World(rollout())
    world.replies["a"] = Retryable("endpoint income-a", "cannot be reached")

    status, answer = world.infer(request_id="r-1")
    world.replies.clear()
    again, _ = world.infer(request_id="r-1")

    assert (503, "Retryable", 200) == (status, answer["error"]["kind"], again)
    failed, answered = world.logged
    assert ("a", "", True) == (failed.assigned, failed.served, failed.failed)
    assert ("r-1", False) == (answered.request_id, answered.failed)


def test_nothing_live_is_refused() -> None:
    """Before the first promotion inference is a typed 503."""
    world = World(rollout(weights={}, champion=None))

    status, answer = world.infer()

    assert (503, "NotProven", []) == (status, answer["error"]["kind"], world.logged)


@pytest.mark.parametrize(
    "record",
    [{"age": "old"}, {"colour": 1}, {"age": True}, {"work": 1.5}, {"age": [1]}],
    ids=["no number", "unknown key", "bool", "float category", "list"],
)
def test_a_record_that_does_not_fit_is_the_callers(record: dict[str, Any]) -> None:
    """It is a 400 with row and column, counts against nobody and is not logged."""
    world = World(rollout(0.5))

    answer = world.ask(f"/inference/{PIPELINE}", {"records": [RECORD, record]})

    error = told(answer)["error"]
    assert (400, "BadObject", 2) == (answer.status, error["kind"], error["row"])
    assert ([], []) == (world.logged, world.asked)


def test_the_same_request_again_has_the_same_answer() -> None:
    """A retry is answered from the log, whoever would answer it now; nothing is logged twice."""
    world = World(rollout(0.5))
    first = world.infer(request_id="r-1", entity_id=entity_of("b"))
    world.replies = {name: Retryable(name, "gone") for name in "ab"}

    again = world.infer(request_id="r-1", entity_id=entity_of("b"))

    assert first == again
    assert 1 == len(world.logged)


@pytest.mark.parametrize(
    "other",
    [{"records": [{"age": 31}]}, {"records": [RECORD, RECORD]}, {"entity_id": "else"}],
    ids=["record", "count", "entity"],
)
def test_a_used_request_id_with_other_content_is_a_conflict(other: dict[str, Any]) -> None:
    """One id stands for one request."""
    world = World(rollout())
    world.infer(request_id="r-1")

    status, answer = world.infer(**{"request_id": "r-1", **other})

    assert (409, "Conflict", 1) == (status, answer["error"]["kind"], len(world.logged))


def test_of_two_at_once_the_first_logged_is_the_answer() -> None:
    """A request whose id was logged while it was being answered gives the logged answer."""
    world = World(rollout())
    world.infer(request_id="r-1")
    (entry,) = world.logged
    find, calls = world.log.find, []

    def late(pipeline: str, request_id: str) -> Any:
        calls.append(request_id)
        return find(pipeline, request_id) if len(calls) > 1 else None

    world.log.find = late  # type: ignore[method-assign]
    world.replies["a"] = Reply(200, b"0.9\n")

    _, answer = world.infer(request_id="r-1")

    assert 0.25 == answer["predictions"][0]["score"]
    assert [entry] == world.logged


def test_what_is_not_to_be_kept_is_not_kept() -> None:
    """Masked columns and requests beyond the capture rate are not in the log."""
    masked, none = World(rollout(), mask=("work",)), World(rollout(), capture=0.0)

    masked.infer()
    none.infer()

    assert [{"age": 30}] == json.loads(masked.logged[0].records or b"")
    assert none.logged[0].records is None


def test_durable_and_buffered_as_the_pipeline_says() -> None:
    """``log.predictions`` decides whether the answer waits; a log that fails is no answer."""
    for kind, durable in (("durable", True), ("buffered", False)):
        world = World(rollout(), predictions=kind)
        world.infer()

        assert [durable] == world.writes
    world = World(rollout())
    world.log.broken = True

    status, answer = world.infer()

    assert (503, "Retryable") == (status, answer["error"]["kind"])


def test_outcomes_are_joined_once_and_may_come_first() -> None:
    """Waiting before the prediction, joined after, known when told again; null says nothing."""
    world = World(rollout())
    path = f"/outcomes/{PIPELINE}"
    early = told(world.ask(path, {"request_id": "r-0", "outcomes": ["yes"]}))
    world.ask(f"/inference/{PIPELINE}", {"records": [RECORD] * 3, "request_id": "r-1"})

    first = told(world.ask(path, {"request_id": "r-1", "outcomes": ["yes", None, "no"]}))
    again = told(world.ask(path, {"request_id": "r-1", "outcomes": ["yes", "no", "no"]}))
    other = world.ask(path, {"request_id": "r-1", "outcomes": ["no"]})
    beyond = world.ask(path, {"request_id": "r-1", "outcomes": [None, None, None, "no"]})

    assert (0, 1, 0) == (early["joined"], early["waiting"], early["known"])
    assert (2, 0, 0) == (first["joined"], first["waiting"], first["known"])
    assert (1, 0, 2) == (again["joined"], again["waiting"], again["known"])
    assert (409, 400) == (other.status, beyond.status)


@pytest.mark.parametrize(
    "outcomes",
    [
        [1],
        [True],
        [1.5],
        ["x" * 1025],
        [{}],
        [{"revenue": "1"}],
        [["yes"]],
        [],
        "yes",
        [None] * 10_001,
    ],
    ids=[
        "int",
        "bool",
        "float",
        "long",
        "no metric",
        "text metric",
        "list",
        "none",
        "text",
        "many",
    ],
)
def test_an_outcome_of_the_wrong_type_is_refused(outcomes: Any) -> None:
    """A class is told by its label; nothing of the list is noted."""
    world = World(rollout())
    world.infer(request_id="r-1")

    answer = world.ask(f"/outcomes/{PIPELINE}", {"request_id": "r-1", "outcomes": outcomes})

    assert (400, {}) == (answer.status, world.log.told)


def test_metrics_may_be_told() -> None:
    """An outcome may be numbers by metric."""
    world = World(rollout())
    world.infer(request_id="r-1")

    world.ask(f"/outcomes/{PIPELINE}", {"request_id": "r-1", "outcomes": [{"revenue": 12.5}]})

    assert {("r-1", 0): {"revenue": 12.5}} == world.log.told


def test_a_command_is_given_who_and_why() -> None:
    """The token's name is the actor; the body's fields are passed on by name."""
    world = World(rollout())
    commands = {
        "promote": world.command("promote", Promote),
        "pause": world.command("pause", Reason),
    }
    because = {"because": "better on Mondays"}

    answer = world.ask(f"/pipelines/{PIPELINE}/promote", because, commands=commands)
    named = {**because, "version": "abcdef123456"}
    world.ask(f"/pipelines/{PIPELINE}/promote", named, commands=commands)

    assert (200, {"champion": "v1"}) == (answer.status, told(answer)["result"])
    assert [
        (f"promote {PIPELINE}", {"actor": "token:ada", "version": None, **because}),
        (f"promote {PIPELINE}", {"actor": "token:ada", **named}),
    ] == world.done


@pytest.mark.parametrize(
    "body",
    [{}, {"because": ""}, {"because": "   "}, {"because": "a\nb"}, {"because": "\x1b[2J"},
     {"because": "x" * 1001}, {"because": "y", "actor": "root"}, {"because": "y", "version": "zz"}],
    ids=["none", "empty", "blank", "two lines", "escape", "long", "actor", "version"],
)  # fmt: skip
def test_a_command_needs_a_reason_on_one_line(body: Any) -> None:
    """Without one, or with anything beside it, nothing is done."""
    world = World(rollout())
    commands = {"promote": world.command("promote", Promote)}

    answer = world.ask(f"/pipelines/{PIPELINE}/promote", body, commands=commands)

    assert (400, []) == (answer.status, world.done)


def test_a_command_that_is_not_there_has_no_address() -> None:
    """Nothing is pretended."""
    assert {} == Table(routes({})).find(f"/pipelines/{PIPELINE}/promote")[0]


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/inference/income", True),
        ("/inference/", False),
        ("/inference", False),
        ("/inference/income/", False),
        ("/inference/a/b", False),
        ("//inference/income", False),
        ("/pipelines", True),
        ("/pipelines/income/history", True),
        ("/pipelines/income/history/x", False),
        ("", False),
        ("/", False),
    ],
)
def test_a_path_is_one_address_or_none(path: str, known: bool) -> None:
    """There is one spelling of each address."""
    assert known == bool(Table(routes({})).find(path)[0])


def test_every_kind_of_error_has_its_status() -> None:
    """The table from errors to statuses is whole."""
    assert set(MlControlError.__subclasses__()) == set(STATUS)
    assert 502 == STATUS[PlatformFailed]
