"""Endpoints on this machine: one server process for each name, on a loopback port.

    <root>/<name>/lock                   held while the endpoint is being changed
    <root>/<name>/current.json           which deployment serves; replaced at once
    <root>/<name>/token.json             the highest fencing token that was deployed with
    <root>/<name>/failed.json            why the last deployment failed, if it did
    <root>/<name>/<instance>/            one deployment: model.tar.gz, deployment.json,
                                         process.json, server.json, server.log

Any number of processes may share a root. A new server is started beside the old one, and only
when it has answered as itself does ``current.json`` name it and the old one end.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.core.containers import container as container_of
from ml_control.core.digests import sha256
from ml_control.environments import python_for
from ml_control.errors import Conflict, InvalidSpec, MlControlError, PlatformFailed, Retryable
from ml_control.local.files import exclusive, is_locked, read_json, tail, write_json, write_whole
from ml_control.local.processes import alive, end, python_environment, spawn
from ml_control.ports import EndpointState, Reply
from ml_control.spec import Endpoint

if TYPE_CHECKING:
    import httpx

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_POLL_SECONDS = 0.02
_DRAIN_SECONDS = 35.0  # the server itself gives requests in progress 30 s
_ASK_SECONDS = 5.0
_LOCK_SECONDS = 120.0
_TRIES = 3


class LocalEndpoints:
    """Implements :class:`ml_control.ports.Endpoints` with local server processes."""

    on_this_machine = True

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        # name -> (url, instance, digest of its archive), as last seen
        self._targets: dict[str, tuple[str, str, str]] = {}

    def deploy(
        self,
        name: str,
        archive: bytes,
        model_version: str,
        container: str,
        timeout: float,
        token: int = 0,
        shape: Endpoint | None = None,  # noqa: ARG002 - one machine is all there is
    ) -> EndpointState:
        """Serve this archive under this name and wait until it answers; then end the old server.

        Deploying what is serving already changes nothing. ``timeout`` in seconds bounds the wait
        for another deployer and, again, the start. Raises ``PlatformFailed`` with the end of the
        server's log (what served before goes on serving), ``Conflict`` when another deployer does
        not finish in time or one with a higher ``token`` was here since, ``InvalidSpec`` for an
        unusable name or container.
        """
        folder = self._folder(name)
        container_of(container)
        wanted = {
            "name": name,
            "model_version": model_version,
            "container": container,
            "archive_sha256": sha256(archive),
        }
        with exclusive(folder / "lock", timeout, f"endpoint {name}"):
            current = read_json(folder / "current.json")
            _take_turn(folder, token)
            if current and all(current.get(key) == wanted[key] for key in wanted):
                state = self.describe(name)
                if (
                    state.state == "InService"
                    and _stored(folder, current) == wanted["archive_sha256"]
                ):
                    return state
            self._sweep(folder, current)
            instance = secrets.token_hex(8)
            home = folder / instance
            home.mkdir(parents=True)
            write_whole(home / "model.tar.gz", archive)
            write_json(home / "deployment.json", {**wanted, "instance": instance})
            try:
                self._start(home, container, timeout)
            except PlatformFailed as error:
                self._failed(folder, model_version, error)
                self._sweep(folder, current)
                raise
            write_json(
                folder / "current.json",
                {**wanted, "instance": instance, "stopped": False, "at": time.time()},
            )
            (folder / "failed.json").unlink(missing_ok=True)
            self._sweep(folder, {"instance": instance})
            return self.describe(name)

    def describe(self, name: str) -> EndpointState:
        """What the endpoint is doing now, asked of the server itself; never raises if absent."""
        folder = self._folder(name)
        current = read_json(folder / "current.json")
        failed = read_json(folder / "failed.json") or {}
        if current is None or current.get("stopped"):
            if is_locked(folder / "lock"):
                return EndpointState(name, "Creating")
            if failed:
                return EndpointState(
                    name, "Failed", "", str(failed["model_version"]), str(failed["reason"])
                )
            if current is None:
                return EndpointState(name, "Missing", reason="never deployed")
            kept = {key: current[key] for key in ("archive_sha256",)}
            version = str(current["model_version"])
            return EndpointState(name, "Missing", "", version, "stopped", kept)
        version = str(current["model_version"])
        detail = {key: current[key] for key in ("instance", "container", "archive_sha256", "at")}
        if failed:
            detail["last_failure"] = failed
        server = _server(folder / str(current["instance"]))
        if server and self._answers(server):
            detail["pid"] = server["pid"]
            return EndpointState(name, "InService", _url(server), version, detail=detail)
        if is_locked(folder / "lock"):
            return EndpointState(name, "Creating", "", version, detail=detail)
        reason = (
            "its server process runs but does not answer"
            if server
            else ("its server process has ended")
        )
        log = tail(folder / str(current["instance"]) / "server.log", lines=3)
        return EndpointState(name, "Failed", "", version, f"{reason}; its log ends: {log}", detail)

    def invoke(
        self,
        name: str,
        body: bytes,
        content_type: str = "text/csv",
        accept: str = "text/csv",
        archive: str = "",
        seconds: float = 0.0,
    ) -> Reply:
        """One request. An answer from anything but the current deployment is not taken, nor, with
        ``archive``, from one of other bytes.

        Raises ``Retryable`` when the endpoint is not there or does not answer.
        """
        import httpx

        reason = "is not serving"
        for attempt in range(_TRIES):
            target = self._targets.get(name) or self._look_up(name)
            if target is None:
                break
            url, instance, serves = target
            if archive and archive != serves:
                reason = "serves another model than the one asked for"
                self._targets.pop(name, None)
                time.sleep(0.05 * attempt)
                continue
            try:
                response = self._client.post(
                    f"{url}/invocations",
                    content=body,
                    headers={
                        "content-type": content_type,
                        "accept": accept,
                        "x-ml-control-instance": instance,
                    },
                    timeout=seconds or httpx.USE_CLIENT_DEFAULT,
                )
            except httpx.TimeoutException as error:
                reason = f"did not answer in time ({type(error).__name__})"
                break
            except httpx.TransportError as error:
                reason = f"cannot be reached: {error or type(error).__name__}"
            else:
                ours = response.headers.get("x-ml-control-instance") == instance
                if ours:
                    kind = response.headers.get("content-type", "")
                    return Reply(response.status_code, response.content, kind)
                reason = "another program answers on its port"
            # It may have been replaced since we looked it up: look again, then give it a moment.
            self._targets.pop(name, None)
            time.sleep(0.05 * attempt)
        raise Retryable(
            f"endpoint {name}", reason, "see 'ml-control status', or deploy its model again"
        )

    def stop(self, name: str) -> None:
        """End the endpoint's server; deploying the same model again brings it back."""
        folder = self._folder(name)
        if not folder.exists():
            return
        with exclusive(folder / "lock", _LOCK_SECONDS, f"endpoint {name}"):
            current = read_json(folder / "current.json")
            (folder / "failed.json").unlink(missing_ok=True)
            if current is not None:
                write_json(folder / "current.json", {**current, "stopped": True})
                self._end_server(folder / str(current["instance"]))
            self._sweep(folder, current)
            self._targets.pop(name, None)

    def names(self) -> list[str]:
        """The endpoints that this root knows, serving or not, sorted."""
        return sorted(path.parent.name for path in self._root.glob("*/current.json"))

    @cached_property
    def _client(self) -> httpx.Client:
        import weakref

        import httpx

        client = httpx.Client(
            trust_env=False,  # a proxy has no business on loopback
            timeout=httpx.Timeout(70.0, connect=2.0),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
        )
        weakref.finalize(self, client.close)
        return client

    def _answers(self, server: dict[str, Any]) -> bool:
        """Whether this very server answers: its health check, its instance, its own token."""
        import httpx

        try:
            if self._client.get(f"{_url(server)}/ping", timeout=_ASK_SECONDS).status_code != 200:
                return False
            who = self._client.get(f"{_url(server)}/identity", timeout=_ASK_SECONDS)
            return bool(who.json()["instance"] == server["instance"]) and who.headers.get(
                "x-ml-control-proof"
            ) == sha256(str(server["token"]).encode())
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidSpec(
                f"endpoint {name!r}",
                "is not a usable name",
                "use 1 to 63 letters, digits, '-' and '_', with a letter or digit at both ends",
            )
        return self._root / name

    def _look_up(self, name: str) -> tuple[str, str, str] | None:
        """(url, instance, digest of its archive) of what ``current.json`` names, if it runs."""
        folder = self._folder(name)
        current = read_json(folder / "current.json")
        if current is None or current.get("stopped"):
            return None
        server = _server(folder / str(current["instance"]))
        if server is None:
            return None
        self._targets[name] = (
            _url(server),
            str(current["instance"]),
            str(current["archive_sha256"]),
        )
        return self._targets[name]

    def _start(self, home: Path, container: str, timeout: float) -> None:
        """Start the server of a deployment folder and wait until it answers as itself."""
        python = python_for(container_of(container))
        deadline = time.monotonic() + timeout
        (home / "server.json").unlink(missing_ok=True)
        log = home / "server.log"
        command = (python, "-m", "ml_control.serving.endpoint", "--dir", home)
        pid, started = spawn(
            command, log, env=python_environment(python, self._root.parent), cwd=home
        )
        try:
            write_json(home / "process.json", {"pid": pid, "started": started})
        except PlatformFailed:
            end(pid, started, grace=1.0)  # nobody would know it for ours
            raise
        while True:
            server = _server(home)
            if server and server["pid"] == pid and self._answers(server):
                return
            ended = not alive(pid, started)
            if ended or time.monotonic() >= deadline:
                break
            time.sleep(_POLL_SECONDS)
        end(pid, started, grace=1.0)
        what = "ended before it answered" if ended else f"did not answer within {timeout:g} s"
        raise PlatformFailed(
            f"endpoint {home.parent.name}",
            f"the server {what}; its log ends: {tail(log) or '(empty)'}",
            "correct what the log names, then deploy again",
        )

    def _failed(self, folder: Path, model_version: str, error: MlControlError) -> None:
        record = {"model_version": model_version, "reason": error.reason, "at": time.time()}
        write_json(folder / "failed.json", record)

    def _end_server(self, home: Path) -> None:
        for record in ("process.json", "server.json"):
            found = read_json(home / record)
            if found:
                end(int(found["pid"]), float(found["started"]), grace=_DRAIN_SECONDS)

    def _sweep(self, folder: Path, current: dict[str, Any] | None) -> None:
        """End and remove every deployment but the current one, also what a crash left behind."""
        for home in folder.iterdir():
            if home.is_dir() and home.name != (current or {}).get("instance"):
                self._end_server(home)
                shutil.rmtree(home, ignore_errors=True)


def _take_turn(folder: Path, token: int) -> None:
    """Keep the highest token seen. Raises ``Conflict`` for a lower one. Call under the lock."""
    seen = (read_json(folder / "token.json") or {}).get("token", 0)
    if token < seen:
        raise Conflict(
            f"endpoint {folder.name}",
            f"a deployer with token {seen} came after the one with token {token}",
            "end this run; its lease was taken over",
            seen=seen,
        )
    if token > seen:
        write_json(folder / "token.json", {"token": token})


def _stored(folder: Path, current: dict[str, Any]) -> str:
    """The digest of the archive stored for the current deployment; empty when it is gone."""
    try:
        return sha256((folder / str(current["instance"]) / "model.tar.gz").read_bytes())
    except OSError:
        return ""


def _server(home: Path) -> dict[str, Any] | None:
    """What a running server wrote about itself; None when its process is gone."""
    server = read_json(home / "server.json")
    if server is None or not alive(int(server["pid"]), float(server["started"])):
        return None
    return server


def _url(server: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{server['port']}"
