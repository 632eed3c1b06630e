"""The gateway's client of endpoints, before servers that do everything wrong."""

from __future__ import annotations

import asyncio

import pytest

from ml_control.errors import Retryable
from ml_control.gateway.upstream import Upstream
from ml_control.ports import EndpointState
from ml_control.serving.handlers.steps import Served

SERVED = Served("a", "income-a", "v1", "sum", None)
GOOD = (
    b"HTTP/1.1 200 OK\r\nx-ml-control-instance: i-1\r\ncontent-type: text/csv\r\n"
    b"content-length: 4\r\n\r\n0.5\n"
)


class Server:
    """Answers each request with what ``answers`` says next; an empty text closes, None is silent.

    The last answer is repeated.
    """

    def __init__(self, *answers, parts=1):
        self.answers, self.parts = list(answers), parts
        self.connections, self.requests = 0, []
        self.described = 0
        self.state = {"model_version": "v1", "state": "InService"}
        self.instance = "i-1"

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(await reader.readexactly(length))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    await asyncio.sleep(5)
                if not answer:
                    break
                step = -(-len(answer) // self.parts)
                for start in range(0, len(answer), step):
                    writer.write(answer[start : start + step])
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def describe(self, name):
        self.described += 1
        return EndpointState(
            name,
            url=f"http://127.0.0.1:{self.port}",
            detail={"instance": self.instance, "archive_sha256": "sum"},
            **self.state,
        )


def asked(*answers, times=1, seconds=1.0, parts=1, change=None):
    """(replies or errors, the server) of requests one after the other."""

    async def run():
        async with Server(*answers, parts=parts) as server:
            if change:
                change(server)
            upstream = Upstream(server.describe, seconds)
            found = []
            for _ in range(times):
                try:
                    found.append(await upstream.invoke(SERVED, b"1,2"))
                except Retryable as error:
                    found.append(error)
            upstream.close()
            return found, server

    return asyncio.run(run())


@pytest.mark.parametrize("parts", [1, 7, 60])
def test_one_connection_serves_many_requests(parts):
    """Answers come whole however they are cut, on one connection, after one look."""
    found, server = asked(GOOD, times=3, parts=parts)

    assert [(200, b"0.5\n")] * 3 == [(reply.status, reply.body) for reply in found]
    assert (1, 1, [b"1,2"] * 3) == (server.connections, server.described, server.requests)


def test_a_connection_that_was_closed_meanwhile_is_replaced():
    """A server that ends idle connections fails no request."""
    found, server = asked(GOOD, b"", GOOD)
    again, server = asked(GOOD, b"", GOOD, times=2)

    assert [200] == [reply.status for reply in found]
    assert [200, 200] == [reply.status for reply in again]
    assert 2 == server.connections


@pytest.mark.parametrize(
    "answer",
    [b"", b"220 smtp ready\r\n", GOOD[:-2], GOOD.replace(b"i-1", b"i-2"),
     GOOD.replace(b"200 OK", b"421 Misdirected")],
    ids=["closed", "no HTTP", "cut off", "another instance", "misdirected"],
)  # fmt: skip
def test_an_answer_that_is_not_the_endpoints_is_not_taken(answer):
    """It is looked up anew, tried again, and then refused, typed."""
    (error,), _ = asked(answer, seconds=0.5)

    assert isinstance(error, Retryable)
    assert "income-a" in error.object


def test_silence_ends_within_the_time_and_is_not_taken_for_the_next_answer():
    """After a timeout the connection is not used again."""
    (error, reply), server = asked(None, GOOD, times=2, seconds=0.3)

    assert "did not answer within 0.3 s" in error.reason
    assert (200, 2) == (reply.status, server.connections)


def test_another_model_under_the_name_is_not_asked():
    """Neither another version nor other bytes get the rows."""
    for wrong in ({"model_version": "v2"}, {}):

        def change(server, wrong=wrong):
            server.state |= wrong
            if not wrong:
                describe = server.describe

                async def other(name):
                    state = await describe(name)
                    state.detail["archive_sha256"] = "else"
                    return state

                server.describe = other

        (error,), server = asked(GOOD, change=change)

        assert "not the one asked for" in error.reason
        assert [] == server.requests


def test_an_endpoint_that_is_gone_is_not_looked_up_for_every_request():
    """Requests fail at once for a moment after a look that found nothing."""
    found, server = asked(GOOD, times=20, change=lambda s: s.state.update(state="Failed"))

    assert {Retryable} == {type(error) for error in found}
    assert 1 == server.described


def test_many_at_once_share_the_connections_there_may_be():
    """Two hundred requests at once are all answered, on at most 64 connections, after one look."""

    async def run():
        async with Server(GOOD) as server:
            upstream = Upstream(server.describe, 5.0)
            replies = await asyncio.gather(
                *(upstream.invoke(SERVED, b"%d" % i) for i in range(200))
            )
            upstream.close()
            return replies, server

    replies, server = asyncio.run(run())

    assert {200} == {reply.status for reply in replies}
    assert 64 >= server.connections
    assert (200, 1) == (len(server.requests), server.described)
