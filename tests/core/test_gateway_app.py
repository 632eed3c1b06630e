"""The gateway as an application: tokens, roles, audit, limits, pages of other origins, document."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from gateways import ThreadedGateway, fuzz

from ml_control.errors import Conflict, NotProven
from ml_control.gateway.background import Background, Task
from ml_control.gateway.guard import Rates
from ml_control.gateway.openapi import document
from ml_control.serving.handlers.management import BODIES, bind
from ml_control.serving.handlers.messages import Caller, Refusal
from ml_control.serving.handlers.routes import ROLES, routes

DOCS = Path(__file__).parents[2] / "docs" / "gateway.md"
ORIGIN = "https://shop.example"
BECAUSE = {"because": "better on Mondays"}
HISTORY = "/pipelines/tumours/history"


def commands(calls):
    """Commands that note how they were called; two of them refuse."""

    def called(name):
        def call(platform, pipeline, **given):
            calls.append((name, pipeline.name, given))
            if name == "reject":
                raise NotProven("model", "nothing waits for approval", "see 'ml-control status'")
            if name == "rollback":
                raise Conflict("rollout", "was rolled back already", "see its history")
            return {"done": name}

        return call

    return {name: called(name) for name in BODIES}


@pytest.fixture
def calls():
    """What commands were given."""
    return []


@pytest.fixture
def start(home, calls):
    """Starts gateways with these settings."""
    running = []

    def begin(**changes):
        running.append(ThreadedGateway(home, commands(calls), **changes))
        return running[-1]

    yield begin
    for gateway in running:
        gateway.end()


def make(home, role, seconds=None):
    """A new token of a role."""
    return home.platform.registry.tokens.create(role, role, seconds)[1]


def audited(home):
    """The lines of the audit file."""
    text = (home.path / "logs" / "audit.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_management_is_refused_until_a_managers_token_exists(home, start, calls):
    """Nothing is made silently: the refusal says how to make one."""
    gateway = start()

    status, answer, _ = gateway.ask("POST", "/pipelines/tumours/promote", BECAUSE)

    assert (401, []) == (status, calls)
    assert "ml-control token create NAME --role manager" in answer["error"]["next"]


def test_a_managers_call_is_carried_out_and_audited(home, start, calls):
    """Who and why go to the command and, with the status, into the audit file; refused ones too."""
    token = make(home, "manager")
    reader = home.platform.registry.tokens.create("ro", "reader")[1]
    gateway = start()
    path = "/pipelines/tumours/"

    done = gateway.ask("POST", path + "promote", BECAUSE, token=token)
    refused = gateway.ask("POST", path + "rollback", BECAUSE, token=token)
    nobody = gateway.ask("POST", path + "pause", BECAUSE)
    forbidden = gateway.ask("POST", path + "pause", BECAUSE, token=reader)
    unclear = gateway.ask("POST", path + "traffic", {**BECAUSE, "share": 2}, token=token)

    assert [200, 409, 401, 403, 400] == [a[0] for a in (done, refused, nobody, forbidden, unclear)]
    assert {"done": "promote"} == done[1]["result"]
    who = {"actor": "token:manager", **BECAUSE}
    promoted = {**who, "version": None}
    assert [("promote", "tumours", promoted), ("rollback", "tumours", who)] == calls
    lines = audited(home)
    assert [
        ("promote", "manager", 200), ("rollback", "manager", 409), ("pause", None, 401),
        ("pause", "ro", 403), ("traffic", "manager", 400),
    ] == [(line["command"], line["who"], line["status"]) for line in lines]  # fmt: skip
    assert {BECAUSE["because"]} == {line["because"] for line in lines if line["because"]}
    assert "Conflict" in lines[1]["refused"]
    assert 0o600 == (home.path / "logs" / "audit.jsonl").stat().st_mode & 0o777


def test_a_reason_cannot_forge_a_line_of_the_audit_file(home, start, calls):
    """Whatever is sent, a call is one line of JSON."""
    token = make(home, "manager")
    gateway = start()
    forged = 'nice"}\n{"who": "root", "status": 200}\u2028\u001b[2J'

    status, _, _ = gateway.ask("POST", "/pipelines/tumours/pause", {"because": forged}, token=token)
    gateway.ask("POST", "/pipelines/x%0Ay/pause", BECAUSE, token=token)

    assert (400, []) == (status, calls)
    lines = (home.path / "logs" / "audit.jsonl").read_bytes().splitlines()
    assert [forged, BECAUSE["because"]] == [json.loads(line)["because"] for line in lines]


def test_roles_may_what_they_may(home, start):
    """With ``gateway_keys`` nobody may anything without a token; each role its own."""
    tokens = {role: make(home, role) for role in ("caller", "reader", "manager")}
    gateway = start(gateway_keys=True)
    asked = {
        "open": ("GET", "/healthz", None),
        "read": ("GET", HISTORY, None),
        "infer": ("POST", "/outcomes/tumours", {"request_id": "r", "outcomes": [None]}),
        "manage": ("POST", "/pipelines/tumours/pause", BECAUSE),
    }

    for role, token in [("", None), *tokens.items()]:
        for access, request in asked.items():
            refusal = 403 if role else 401
            wanted = 200 if access in ROLES[role] else refusal

            assert (role, access, wanted) == (role, access, gateway.ask(*request, token=token)[0])


def test_a_token_ends_when_it_expires_or_is_revoked(home, start):
    """An expired token is refused at once, a revoked one within two seconds."""
    short, revoked = make(home, "reader", 1.5), make(home, "manager")
    gateway = start()
    assert 200 == gateway.ask("GET", HISTORY, token=short)[0]
    assert 200 == gateway.ask("GET", HISTORY, token=revoked)[0]

    home.platform.registry.tokens.revoke("manager")
    time.sleep(1.6)
    first = gateway.ask("GET", HISTORY, token=short)
    deadline = time.monotonic() + 3
    while gateway.ask("GET", HISTORY, token=revoked)[0] != 401:
        assert time.monotonic() < deadline
        time.sleep(0.2)

    assert (401, "is expired") == (first[0], first[1]["error"]["reason"])


def test_who_asks_too_often_is_told_when_to_come_again(home, start):
    """A burst of ten seconds, then 429; another caller is not concerned."""
    token = make(home, "reader")
    gateway = start(rate_limit=0.3)

    statuses = [gateway.ask("GET", "/healthz")[0] for _ in range(4)]
    _, answer, headers = gateway.ask("GET", "/healthz")

    assert [200, 200, 200, 429] == statuses
    assert "Retryable" == answer["error"]["kind"]
    assert 1 <= int(headers["retry-after"]) <= 5
    assert 200 == gateway.ask("GET", HISTORY, token=token)[0]


def test_guessing_tokens_counts(home, start):
    """Wrong tokens use up the address's rate."""
    gateway = start(rate_limit=0.3)

    statuses = [gateway.ask("GET", HISTORY, token=f"mlc_x_{i}")[0] for i in range(5)]

    assert [401, 401, 401, 429, 429] == statuses


def test_rates_forget_who_came_long_ago():
    """However many addresses ask, what is remembered of them is bounded."""
    rates = Rates(1.0)
    for i in range(10_500):
        rates.take(Caller(address=str(i)))

    assert 10_000 >= len(rates._buckets)
    for _ in range(9):
        rates.take(Caller(address="10499"))
    with pytest.raises(Refusal):
        rates.take(Caller(address="10499"))


def test_only_named_origins_are_let_in(home, start):
    """Preflight and answers carry the origin if it is named, and say that they depend on it."""
    gateway = start(cors_origins=(ORIGIN,))
    asks = {"origin": ORIGIN, "access-control-request-method": "POST"}

    status, _, allowed = gateway.ask("OPTIONS", "/inference/tumours", headers=asks)
    _, _, answer = gateway.ask("GET", "/healthz", headers={"origin": ORIGIN})
    _, _, other = gateway.ask("GET", "/healthz", headers={"origin": "https://evil.example"})

    assert (204, ORIGIN, "POST") == (
        status,
        allowed["access-control-allow-origin"],
        allowed["access-control-allow-methods"],
    )
    assert "authorization" in allowed["access-control-allow-headers"]
    assert (ORIGIN, "origin") == (answer["access-control-allow-origin"], answer["vary"])
    assert (None, "origin") == (other["access-control-allow-origin"], other["vary"])


def test_a_changed_pipeline_file_is_read_again(home, start):
    """A new pipeline is known, a broken file leaves what it said before."""
    gateway = start()
    home.add_pipeline("tumours", as_name="cells")
    file = home.pipelines / "tumours" / "defs.yaml"
    file.write_text("type: [")
    gateway.gateway.state.reread()

    assert 200 == gateway.ask("GET", "/pipelines/cells/history")[0]
    assert 200 == gateway.ask("GET", HISTORY)[0]
    assert ["tumours"] == list(gateway.ask("GET", "/pipelines")[1]["broken"])


def test_nothing_live_is_a_typed_503(home, start):
    """A pipeline that never deployed is refused with the step that helps."""
    status, answer, headers = start().ask("POST", "/inference/tumours", {"records": [{}]})

    assert (503, "NotProven", "1") == (status, answer["error"]["kind"], headers["retry-after"])


def test_the_document_is_never_contradicted(home, start):
    """Schemathesis with a manager's token: every command, allowed and not allowed bodies."""
    token = make(home, "manager")
    gateway = start()

    asked = fuzz(gateway.port, examples=6, token=token)

    assert {f"/pipelines/{{pipeline}}/{name}" for name in BODIES} <= asked


def test_the_page_has_every_route_with_its_role_and_statuses():
    """docs/gateway.md is true of the route table."""
    known = [*routes(bind(dict.fromkeys(BODIES, print)))]
    found = {}
    for line in DOCS.read_text("utf-8").splitlines():
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if match := re.fullmatch(r"`(GET|POST) (/[^`]*)`", first):
            *told, statuses = cells
            found[match[1], match[2]] = (*told, [int(status) for status in statuses.split(",")])

    wanted = {
        (route.method, route.path): (
            route.access,
            f"`{route.takes.__name__}`" if route.takes else "",
            f"`{route.gives.__name__}`" if route.gives else "",
            [200, *route.refusals],
        )
        for route in known
    }
    wanted["GET", "/openapi.json"] = ("open", "", "", [200, 405, 429, 503])
    assert wanted == found


def test_each_operation_of_the_document_has_a_name_of_its_own():
    """Clients can be generated: operation ids differ, references lead somewhere."""
    made = document(routes(bind(dict.fromkeys(BODIES, print))), keys=True)
    text = json.dumps(made)

    ids = [one["operationId"] for path in made["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in made["components"]["schemas"]
    assert [{"token": []}] == made["paths"]["/inference/{pipeline}"]["post"]["security"]


def test_a_task_that_keeps_failing_is_told_once_and_cleared(home):
    """Failures in a row make one alert; when it works again the alert is over."""
    state = {"fail": True, "calls": 0}

    def call():
        state["calls"] += 1
        if state["fail"]:
            raise OSError("disk")

    book = home.platform.registry.alerts
    task = Task("flush", call, 0.01, lambda: ["tumours"])
    background = Background(home.platform, [task])
    background.start()
    deadline = time.monotonic() + 10
    while not book.open("tumours"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    told = [(alert.kind, alert.key) for alert in book.open("tumours")]
    state["fail"] = False
    while book.open("tumours"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    background.stop(5)

    assert [("gateway", "gateway#flush")] == told
    assert state["calls"] > 3
