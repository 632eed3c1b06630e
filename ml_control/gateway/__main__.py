"""The gateway's process: ``python -m ml_control.gateway``, on the address that the settings say.

SIGTERM lets requests in progress finish and writes what is pending.
"""

from __future__ import annotations

import argparse
import sys

from ml_control.errors import BadObject, Conflict, MlControlError, Retryable
from ml_control.gateway.application import READ_SECONDS
from ml_control.gateway.assembly import assemble
from ml_control.gateway.pages import pages
from ml_control.gateway.tasks import tasks
from ml_control.platform import open_platform
from ml_control.serving import server
from ml_control.serving.handlers.messages import Refusal, refused
from ml_control.serving.http import log
from ml_control.serving.protocol import GuardedProtocol
from ml_control.settings import load_settings

_LONGEST_COMMAND = 130.0  # seconds: a promotion may have to start a server first


class GatewayProtocol(GuardedProtocol):
    """What is refused before the application sees it has the form of every other refusal."""

    no_request = "these bytes are no HTTP/1.1 request; see /openapi.json"

    @staticmethod
    def refusal(status: int, message: str) -> bytes:
        """See ``GuardedProtocol``."""
        reason, _, step = message.partition("; ")
        kind = Retryable if status in (408, 503) else BadObject
        return refused(Refusal(status, kind("request", reason, step))).body


def serve(port: int | None, read_seconds: float) -> None:
    """Serve until SIGTERM or SIGINT. Raises ``Conflict`` when the address is taken."""
    platform = open_platform(load_settings())
    settings = platform.settings
    port = settings.gateway_port if port is None else port
    try:
        listener = server.bind(settings.gateway_host, port)
    except OSError as error:
        raise Conflict(
            f"{settings.gateway_host} port {port}",
            f"cannot be listened on: {error.strerror}",
            "set gateway_port or gateway_host",
        ) from error
    gateway = assemble(platform, background=tasks, more=pages, read_seconds=read_seconds)

    gateway.state.warm()

    def ready() -> None:
        gateway.background.start()
        host, bound = listener.getsockname()[:2]
        log(f"answering on {host}:{bound}", "gateway")

    try:
        server.run(
            gateway.application,
            listener,
            ready,
            read_seconds=read_seconds,
            request_seconds=2 * read_seconds + _LONGEST_COMMAND,
            protocol=GatewayProtocol,
            name="gateway",
        )
    finally:
        gateway.close()


def main(arguments: list[str] | None = None) -> int:
    """The command line. 0 after a signal, 1 when it was refused."""
    parser = argparse.ArgumentParser(prog="ml_control.gateway", description=__doc__)
    parser.add_argument("--port", type=int, help="port, instead of the setting gateway_port")
    parser.add_argument(
        "--read-seconds", type=float, default=READ_SECONDS, help="time a body may take to arrive"
    )
    options = parser.parse_args(arguments)
    try:
        serve(options.port, options.read_seconds)
    except MlControlError as error:
        log(f"refused to start: {error}", "gateway")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
