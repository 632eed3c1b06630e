"""The console's addresses: pages for people, and forms that do what the management routes do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from ml_control.core.digests import sha256
from ml_control.errors import BadObject, InvalidSpec, MlControlError
from ml_control.gateway.audit import Audit
from ml_control.gateway.console.render import FORMS, POLICY, pipeline_page, render
from ml_control.gateway.console.session import Session, Sessions, cookie
from ml_control.gateway.state import State
from ml_control.registry.tokens import matching
from ml_control.services.reading import console
from ml_control.serving.handlers import management
from ml_control.serving.handlers.bodies import Strict
from ml_control.serving.handlers.desk import Desk
from ml_control.serving.handlers.messages import Answer, Caller, Refusal, Request, refused
from ml_control.serving.handlers.routes import Route
from ml_control.serving.handlers.steps import Do, Steps

HTML = "text/html; charset=utf-8"
FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 20
_REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Form(Strict):
    """Fields of an HTML form of the console."""


class Console:
    """Pages of a gateway. Sessions live in this process; a token is asked for its role each time.

    ``ui`` gives the address of the Dagster UI, if one runs.
    """

    def __init__(self, state: State, audit: Audit, ui: Callable[[], str | None]) -> None:
        self._state = state
        self._audit = audit
        self._ui = ui
        self._sessions = Sessions(state.platform.registry.clock)
        self._closed = state.platform.settings.gateway_keys

    def routes(self) -> list[Route]:
        """Every address of the console. None is part of the OpenAPI document: they are pages."""

        def get(path: str, summary: str, handler: Callable[..., Steps]) -> Route:
            return Route("GET", path, "open", summary, handler, kind=HTML, page=True)

        def post(path: str, summary: str, handler: Callable[..., Steps]) -> Route:
            return Route(
                "POST", path, "open", summary, handler, Form, kind=HTML, accepts=FORM, page=True
            )

        return [
            get("/", "The console", self._home),
            get("/console", "Every pipeline", self._index),
            get("/console/login", "A form that takes a token", self._login_form),
            post("/console/login", "Begin a session", self._login),
            post("/console/logout", "End the session", self._logout),
            get("/console/{pipeline}", "One pipeline", self._pipeline),
            *(
                get(f"/console/{{pipeline}}/report/{which}", f"Report of {which}", handler)
                for which, handler in (
                    (which, partial(self._report, which=which)) for which in ("candidate", "a", "b")
                )
            ),
            *(
                post(
                    f"/console/{{pipeline}}/{form['name']}",
                    form["says"],
                    partial(self._act, name=form["name"]),
                )
                for form in FORMS
            ),
        ]

    def _home(self, request: Request, desk: Desk) -> Steps:  # noqa: ARG002 - as every handler
        yield from ()
        return _go("/console")

    def _index(self, request: Request, desk: Desk) -> Steps:  # noqa: ARG002
        session = yield from self._seen(request)
        if session is None and self._closed:
            return _go("/console/login")
        found = list(self._state.folder.found.values())
        lines = yield Do(lambda: console.overview(self._state.platform, found))
        lines += [
            {"name": name, "error": str(error)} for name, error in self._state.folder.broken.items()
        ]
        return _page(render("index.html", lines=lines, session=session, refresh=15))

    def _pipeline(self, request: Request, desk: Desk, *, pipeline: str) -> Steps:  # noqa: ARG002
        session = yield from self._seen(request)
        if session is None and self._closed:
            return _go("/console/login")
        try:
            found = self._state.pipeline(pipeline)
            page = yield Do(lambda: console.page(self._state.platform, found, self._ui()))
        except (Refusal, MlControlError) as error:
            return _refusal(error, "/console", session)
        # A page that a person may be typing into is not taken away from under their hands.
        refresh = 0 if session else 15
        return _page(pipeline_page(page, session=session, refresh=refresh))

    def _report(self, request: Request, desk: Desk, *, pipeline: str, which: str) -> Steps:  # noqa: ARG002
        session = yield from self._seen(request)
        if session is None and self._closed:
            return _go("/console/login")
        try:
            found = self._state.pipeline(pipeline)
            html = yield Do(lambda: console.report(self._state.platform, found, which))
        except (Refusal, MlControlError) as error:
            return _refusal(error, f"/console/{quote(pipeline)}", session)
        return _page(html, policy=_REPORT_POLICY)

    def _login_form(self, request: Request, desk: Desk) -> Steps:  # noqa: ARG002
        yield from ()
        return _page(render("login.html", refused=""))

    def _login(self, request: Request, desk: Desk) -> Steps:  # noqa: ARG002
        try:
            own_site(request.headers)
            text = fields(request.body).get("token", "").strip()
        except Refusal as error:
            return _refusal(error, "/console/login", None)
        known = yield Do(self._tokens)
        token = matching(known, text)
        if token is None or token.state(self._state.platform.registry.clock()) != "valid":
            note = partial(self._note, Caller(address=request.caller.address), "login", "", {})
            yield Do(partial(note, _no_token()))
            said = "This is no valid token. Make one with: ml-control token create"
            return _page(render("login.html", refused=said), status=401)
        session = self._sessions.begin(token.name, sha256(token.hash.encode()), token.role)
        return _go("/console", cookie(session, secure=_secure(request.headers)))

    def _logout(self, request: Request, desk: Desk) -> Steps:  # noqa: ARG002
        session = yield from self._seen(request)
        try:
            own_site(request.headers)
            given = fields(request.body)
        except Refusal as error:
            return _refusal(error, "/console", session)
        if session is not None and session.sealed("logout", given.get("seal", "")):
            self._sessions.end(session)
        return _go("/console", cookie(None, secure=_secure(request.headers)))

    def _act(self, request: Request, desk: Desk, *, pipeline: str, name: str) -> Steps:
        """Do what the management route does, and write it down as that route does."""
        session = yield from self._seen(request)
        back = f"/console/{quote(pipeline)}"
        caller = Caller(session.token, session.role, request.caller.address) if session else None
        body: dict[str, Any] = {}
        try:
            own_site(request.headers)
            given = fields(request.body)
            if session is None or caller is None:
                return _go("/console/login")
            _may(session, f"{pipeline}/{name}", given.pop("seal", ""))
            if name not in desk.commands:
                raise InvalidSpec(name, "there is no such command here", "see /openapi.json")
            body = _typed({key: text.strip() for key, text in given.items()})
            asked = Request(
                "POST", request.path, request.headers, json.dumps(body).encode(), caller
            )
            answer = yield from management.command(asked, desk, pipeline=pipeline, name=name)
        except (Refusal, MlControlError) as error:
            yield Do(
                partial(self._note, caller or request.caller, name, pipeline, body, refused(error))
            )
            return _refusal(error, back, session)
        yield Do(partial(self._note, caller, name, pipeline, body, answer))
        return _go(back)

    def _note(
        self, caller: Caller, name: str, pipeline: str, body: Mapping[str, Any], answer: Answer
    ) -> None:
        self._audit.note(caller, name, pipeline, json.dumps(body).encode(), answer)

    def _seen(self, request: Request) -> Any:
        """The session of a request, with the role that its token has now; None without one."""
        session = self._sessions.get(request.headers.get("cookie", ""))
        if session is None:
            return None
        known = yield Do(self._tokens)
        token = known.get(session.token)
        now = self._state.platform.registry.clock()
        same = token is not None and sha256(token.hash.encode()) == session.secret
        if token is None or not same or token.state(now) != "valid":
            self._sessions.end(session)
            return None
        return session

    def _tokens(self) -> dict[str, Any]:
        return {token.name: token for token in self._state.platform.registry.tokens.all()}


def own_site(headers: Mapping[str, str]) -> None:
    """Raise ``Refusal`` (403) for a form that another site's page sent."""
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin", "")
    foreign = origin not in ("", "null") and urlsplit(origin).netloc != headers.get("host", "")
    if site not in ("same-origin", "none") or foreign or origin == "null":
        raise Refusal(
            403, InvalidSpec("form", "comes from another site", "open the console itself")
        )


def fields(body: bytes) -> dict[str, str]:
    """The fields of a form. Raises ``Refusal`` (400) for one that is none, or has a field twice."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError as error:
        raise Refusal(400, BadObject("form", "cannot be read", "send it from its page")) from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refusal(400, BadObject("form", "has a field twice", "send it from its page"))
    return found


def _may(session: Session, form: str, seal: str) -> None:
    if not session.sealed(form, seal):
        error = InvalidSpec("form", "is not from this session's page", "open the page again")
        raise Refusal(403, error)
    if session.role != "manager":
        error = InvalidSpec(f"token {session.token}", f"is a {session.role}'s, which may not", "")
        raise Refusal(403, error)


def _typed(given: Mapping[str, str]) -> dict[str, Any]:
    """A form's texts as a command's body: left out where empty, the share as a number."""
    body: dict[str, Any] = {key: text for key, text in given.items() if text}
    if "share" in body:
        try:
            body["share"] = float(body["share"])
        except ValueError as error:
            step = "write a number from 0 to 1"
            raise BadObject("share", f"{body['share'][:40]!r} is no number", step) from error
    return body


def _no_token() -> Answer:
    return refused(Refusal(401, InvalidSpec("token", "is not valid", "make another")))


def _secure(headers: Mapping[str, str]) -> bool:
    return headers.get("x-forwarded-proto", "") == "https"


def _page(html: bytes, status: int = 200, policy: str = POLICY) -> Answer:
    head = {"content-security-policy": policy, "referrer-policy": "same-origin"}
    return Answer(status, html, head, HTML)


def _go(address: str, set_cookie: str = "") -> Answer:
    head = {"location": address, **({"set-cookie": set_cookie} if set_cookie else {})}
    return Answer(303, b"", head, HTML)


def _refusal(error: Refusal | MlControlError, back: str, session: Session | None) -> Answer:
    told = error.error if isinstance(error, Refusal) else error
    status = refused(error).status
    html = render(
        "refused.html",
        kind=told.kind,
        object=told.object,
        reason=told.reason,
        next=told.next,
        back=back,
        session=session,
    )
    return _page(html, status)
