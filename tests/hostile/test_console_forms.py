"""The console: what other sites, old cookies and strange forms can do, which is nothing."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from gateways import RunningGateway

FORM = "application/x-www-form-urlencoded"


class Browser:
    """Follows no redirect, keeps its cookie, and may lie about where it comes from."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""

    def ask(
        self, method: str, path: str, fields: dict[str, str] | bytes | None = None, **headers: str
    ) -> tuple[int, str, Any]:
        """(status, text, headers) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            sent["cookie"] = self.cookie
        body = fields if isinstance(fields, bytes | None) else urlencode(fields).encode()
        if body is not None:
            sent.setdefault("content-type", FORM)
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if given := response.headers.get("set-cookie"):
            self.cookie = given.partition(";")[0]
        return response.status, text, response.headers

    def log_in(self, token: str) -> None:
        """Show a token."""
        status, _, headers = self.ask("POST", "/console/login", {"token": token})
        assert (303, "/console") == (status, headers["location"])

    def seal(self, form: str) -> str:
        """What the pipeline's page carries in one of its forms."""
        _, text, _ = self.ask("GET", "/console/tumours")
        pattern = rf'action="/console/tumours/{form}".*?name="seal" value="(\w+)"'
        found = re.search(pattern, text, re.DOTALL)
        assert found, text
        return found[1]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, trained_template: Any) -> Any:
    """A gateway whose pipeline has a proven model and nothing live, and a token for each role."""
    home = trained_template.copy_to(tmp_path_factory.mktemp("console"))
    running = RunningGateway(home)
    tokens = {
        role: home.platform.registry.tokens.create(f"a-{role}", role)[1]
        for role in ("manager", "reader")
    }
    yield running, tokens
    running.end()


@pytest.fixture
def browser(gateway: Any) -> Browser:
    """Somebody who has not logged in."""
    return Browser(gateway[0].port)


def audited(running: RunningGateway) -> list[dict[str, Any]]:
    """The audit file's lines."""
    file = running.home.path / "logs" / "audit.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def paused(running: RunningGateway) -> bool:
    """Whether a person paused the pipeline."""
    return bool(running.home.platform.registry.rollouts.get("tumours").paused)


def test_a_page_is_shown_to_anyone_and_its_forms_to_managers(
    gateway: Any, browser: Browser
) -> None:
    """Without a session there is nothing to press; a reader's session has nothing either."""
    status, text, headers = browser.ask("GET", "/console/tumours")

    assert 200 == status
    assert "because" not in re.findall(r'name="(\w+)"', text)
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    browser.log_in(gateway[1]["reader"])
    _, text, _ = browser.ask("GET", "/console/tumours")
    assert "a-reader" in text
    assert "because" not in re.findall(r'name="(\w+)"', text)


def test_a_managers_form_does_what_it_says_under_the_tokens_name(
    gateway: Any, browser: Browser
) -> None:
    """A pause from the page stands in the Rollout and in the audit file, with who and why."""
    running, tokens = gateway
    browser.log_in(tokens["manager"])
    form = {"seal": browser.seal("pause"), "because": "we look at something"}

    status, _, headers = browser.ask("POST", "/console/tumours/pause", form)

    assert (303, "/console/tumours") == (status, headers["location"])
    assert paused(running)
    last = audited(running)[-1]
    assert ("a-manager", "pause", "we look at something", 200) == (
        last["who"], last["command"], last["because"], last["status"],
    )  # fmt: skip
    form = {"seal": browser.seal("resume"), "because": "seen"}
    browser.ask("POST", "/console/tumours/resume", form)
    assert not paused(running)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
    ids=str,
)
def test_a_form_from_another_site_is_refused(
    gateway: Any, browser: Browser, headers: dict[str, str]
) -> None:
    """Even with the manager's cookie and seal, what comes from elsewhere changes nothing."""
    running, tokens = gateway
    browser.log_in(tokens["manager"])
    form = {"seal": browser.seal("pause"), "because": "gotcha"}

    status, text, _ = browser.ask("POST", "/console/tumours/pause", form, **headers)

    assert 403 == status
    assert "another site" in text
    assert not paused(running)


@pytest.mark.parametrize("seal", ["", "0" * 64, "ä", "of another form"])
def test_a_form_without_its_own_seal_is_refused(gateway: Any, browser: Browser, seal: str) -> None:
    """A seal is of one session, one pipeline and one form."""
    running, tokens = gateway
    browser.log_in(tokens["manager"])
    given = browser.seal("resume") if seal == "of another form" else seal

    status, _, _ = browser.ask(
        "POST", "/console/tumours/pause", {"seal": given, "because": "gotcha"}
    )

    assert 403 == status
    assert not paused(running)
    assert ("pause", 403) == (audited(running)[-1]["command"], audited(running)[-1]["status"])


def test_a_readers_form_is_refused(gateway: Any, browser: Browser) -> None:
    """The role is asked again at the action, not only where forms are shown."""
    running, tokens = gateway
    browser.log_in(tokens["reader"])
    _, text, _ = browser.ask("GET", "/console")
    logout = re.search(r'name="seal" value="(\w+)"', text)
    assert logout

    status, _, _ = browser.ask(
        "POST", "/console/tumours/pause", {"seal": logout[1], "because": "gotcha"}
    )

    assert 403 == status
    assert not paused(running)


def test_a_revoked_token_ends_its_session(gateway: Any, browser: Browser) -> None:
    """A cookie lives no longer than the token that it was given for."""
    running, _ = gateway
    registry = running.home.platform.registry
    _, text = registry.tokens.create("brief", "manager")
    browser.log_in(text)
    seal = browser.seal("pause")

    registry.tokens.revoke("brief")
    status, _, headers = browser.ask(
        "POST", "/console/tumours/pause", {"seal": seal, "because": "late"}
    )

    assert (303, "/console/login") == (status, headers["location"])
    assert not paused(running)


@pytest.mark.parametrize(
    "token", ["", "wrong-token", "mlc_a-manager_" + "A" * 43, "<script>", "ä" * 50]
)
def test_a_wrong_token_opens_nothing(gateway: Any, browser: Browser, token: str) -> None:
    """It is refused in words, without saying whether the name exists, and without echoing it."""
    status, text, headers = browser.ask("POST", "/console/login", {"token": token})

    assert 401 == status
    assert "set-cookie" not in headers
    assert not token or token not in text


@pytest.mark.parametrize(
    "body",
    [
        b"seal=1&seal=2",
        b"&".join(b"f%d=1" % i for i in range(50)),
        b"no form at all",
        b"because=%ff%fe",
        b"\xff\xfe",
        b"",
    ],
    ids=["twice", "many", "none", "no UTF-8", "bytes", "empty"],
)
def test_a_strange_form_is_a_refusal(gateway: Any, browser: Browser, body: bytes) -> None:
    """Whatever is sent as a form, the answer is a page that says no, never a failure."""
    running, tokens = gateway
    browser.log_in(tokens["manager"])

    status, text, _ = browser.ask("POST", "/console/tumours/pause", body)

    assert status in (400, 403)
    assert "Traceback" not in text
    assert not paused(running)


def test_a_refused_command_says_what_the_command_says(gateway: Any, browser: Browser) -> None:
    """Rolling back with nothing to go back to is the typed refusal of the command, as a page."""
    running, tokens = gateway
    browser.log_in(tokens["manager"])
    before = running.home.platform.registry.rollouts.get("tumours")
    form = {"seal": browser.seal("rollback"), "because": "<b>why</b>"}

    status, text, _ = browser.ask("POST", "/console/tumours/rollback", form)

    assert status >= 400
    assert "next:" in text
    assert before == running.home.platform.registry.rollouts.get("tumours")


def test_an_unknown_pipeline_is_a_page_that_says_so(browser: Browser) -> None:
    """A wrong address is answered with 404 and escaped."""
    status, text, _ = browser.ask("GET", "/console/%3Cscript%3E")

    assert 404 == status
    assert "<script>" not in text


def test_logging_out_ends_the_session(gateway: Any, browser: Browser) -> None:
    """The old cookie opens nothing afterwards."""
    browser.log_in(gateway[1]["manager"])
    old = browser.cookie
    _, text, _ = browser.ask("GET", "/console")
    seal = re.search(r'name="seal" value="(\w+)"', text)
    assert seal

    browser.ask("POST", "/console/logout", {"seal": seal[1]})
    browser.cookie = old

    assert "Log in to act" in browser.ask("GET", "/console")[1]


def test_behind_keys_pages_need_a_session(tmp_path_factory: Any, trained_template: Any) -> None:
    """With gateway_keys nobody reads the console without a token."""
    home = trained_template.copy_to(tmp_path_factory.mktemp("keys"))
    running = RunningGateway(home, gateway_keys="true")
    try:
        browser = Browser(running.port)
        for path in ("/console", "/console/tumours", "/console/tumours/report/a"):
            status, _, headers = browser.ask("GET", path)

            assert (303, "/console/login") == (status, headers["location"])
        assert 401 == browser.ask("GET", "/metrics")[0]
    finally:
        running.end()


def test_metrics_are_text_that_prometheus_reads(gateway: Any, browser: Browser) -> None:
    """The exposition parses, and tells of the ledger, rollouts and requests."""
    from prometheus_client.parser import text_string_to_metric_families

    status, text, headers = browser.ask("GET", "/metrics")

    names = {family.name for family in text_string_to_metric_families(text)}
    assert 200 == status
    assert headers["content-type"].startswith("text/plain; version=")
    assert {"ml_control_events", "ml_control_rollout_state", "ml_control_requests"} <= names
