"""Puts a gateway together for a platform, and takes it apart again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from ml_control.gateway import commands as services
from ml_control.gateway.application import READ_SECONDS, Gateway
from ml_control.gateway.audit import Audit
from ml_control.gateway.background import Background, Task
from ml_control.gateway.codec import BatchCodec
from ml_control.gateway.driver import Driver
from ml_control.gateway.journal import Journal
from ml_control.gateway.openapi import document
from ml_control.gateway.remote import THREADS, Remote
from ml_control.gateway.state import State
from ml_control.gateway.upstream import Upstream
from ml_control.gateway.views import LiveViews
from ml_control.platform import Platform
from ml_control.ports import EndpointState, PredictionLog
from ml_control.serving.handlers.desk import Desk
from ml_control.serving.handlers.management import bind
from ml_control.serving.handlers.messages import Answer, Request
from ml_control.serving.handlers.routes import Route, Table, routes
from ml_control.serving.handlers.steps import Steps

_THREADS = 8
_REREAD_SECONDS = 2.0
_END_SECONDS = 20.0


@dataclass
class Assembled:
    """A gateway with what has to be ended after it."""

    application: Gateway
    state: State
    table: Table
    background: Background
    log: PredictionLog
    upstream: Upstream | Remote
    driver: Driver
    pool: ThreadPoolExecutor
    asking: ThreadPoolExecutor

    def close(self) -> None:
        """Write what is pending and end every thread; requests are answered no more."""
        self.background.stop(_END_SECONDS)
        self.driver.close()
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.asking.shutdown(wait=True, cancel_futures=True)
        self.log.close()


def assemble(
    platform: Platform,
    *,
    background: Callable[[State], Sequence[Task]] | None = None,
    commands: Mapping[str, Callable[..., Any]] | None = None,
    more: Callable[[State], Sequence[Route]] | None = None,
    read_seconds: float = READ_SECONDS,
) -> Assembled:
    """A gateway of this platform; nothing runs yet but its log's thread.

    ``commands`` are called as ``name(platform, pipeline, actor=..., because=..., ...)``; without
    any, those of the services. ``more`` adds routes, such as pages. ``background`` gives tasks that
    run beside, once ``Assembled.background`` is started.
    """
    prediction_log = platform.log
    pool = ThreadPoolExecutor(_THREADS, "gateway")
    state = State(platform, pool)
    known = dict(services.functions() if commands is None else commands)
    bound = bind(services.on(state, known))
    settings = platform.settings

    async def describe(name: str) -> EndpointState:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, platform.endpoints.describe, name)

    own = [*routes(bound), *(more(state) if more else ())]
    told = orjson.dumps(document([r for r in own if not r.page], keys=settings.gateway_keys))

    def openapi(request: Request, desk: Desk) -> Steps:  # noqa: ARG001 - as every handler
        yield from ()
        return Answer(200, told)

    table = Table([*own, Route("GET", "/openapi.json", "open", "This document", openapi)])
    journal = Journal(prediction_log)
    asking = ThreadPoolExecutor(THREADS, "asking")  # without a thread until one is asked
    upstream: Upstream | Remote = (
        Upstream(describe, settings.gateway_timeout)
        if platform.endpoints.on_this_machine
        else Remote(platform.endpoints, settings.gateway_timeout, asking)
    )
    driver = Driver(state, upstream, journal, pool)
    desk = Desk(prediction_log, LiveViews(state), bound, BatchCodec(), platform.registry.clock)
    application = Gateway(
        state=state,
        desk=desk,
        table=table,
        driver=driver,
        audit=Audit(settings.home / "logs" / "audit.jsonl"),
        pool=pool,
        clock=platform.registry.clock,
        read_seconds=read_seconds,
    )
    reread = Task("pipeline files", state.reread, _REREAD_SECONDS, lambda: list(state.folder.found))
    tasks = Background(platform, [reread, *(background(state) if background else ())])
    return Assembled(
        application, state, table, tasks, prediction_log, upstream, driver, pool, asking
    )
