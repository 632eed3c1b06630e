"""``up``: Dagster, the gateway and the endpoint servers, kept alive until told to stop."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from ml_control.errors import Conflict, PlatformFailed
from ml_control.local.files import read_json, write_json
from ml_control.local.processes import STARTED_FOR, alive, end, identity, spawn
from ml_control.resources.instance import prepare_dagster_home
from ml_control.settings import Settings

STATE_FILE = "up.json"
_LOCATION = "ml_control"
_START_SECONDS = 90.0
_HEALTHY_SECONDS = 30.0
_REVIVE_SECONDS = 3.0
_KEEPER_SECONDS = 45.0  # less than `down` waits
Say = Callable[[str], None]


@dataclass
class Child:
    """A supervised process: how it is started, and which one runs now."""

    name: str
    arguments: list[str]
    log: Path
    pid: int = 0
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches us first."""
        self.pid, self.started = spawn(self.arguments, self.log, env=dict(os.environ))

    @property
    def running(self) -> bool:
        """Whether the process that we started still runs."""
        return self.pid != 0 and alive(self.pid, self.started)


@dataclass
class Supervisor:
    """Starts Dagster's processes and the gateway for a home, restarts what dies, ends them all."""

    settings: Settings
    ui_port: int
    gateway_port: int
    say: Say
    revive: Callable[[], None]  # brings back endpoint servers that died
    children: list[Child] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def ui(self) -> str:
        """Address of the Dagster UI."""
        return f"http://127.0.0.1:{self.ui_port}"

    @property
    def gateway(self) -> str:
        """Address of the gateway, from this machine."""
        return f"http://{reachable(self.settings.gateway_host)}:{self.gateway_port}"

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Run until SIGINT or SIGTERM. Raises ``Conflict`` when this home is up already."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        with (self.settings.home / "up.lock").open("w") as lock:
            self._refuse_second(lock)
            self._run(on_ready)

    def _run(self, on_ready: Callable[[], None] | None) -> None:
        self._end_left_over()
        os.environ[STARTED_FOR] = str(self.settings.home)
        home = prepare_dagster_home(self.settings)
        logs = self.settings.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        workspace = home / "workspace.yaml"
        code_port = free_port()
        workspace.write_text(_workspace(code_port), "utf-8")
        python = sys.executable
        self.children = [
            Child(
                "code",
                [python, "-m", "dagster", "code-server", "start", "-m", "ml_control.definitions",
                 "--host", "127.0.0.1", "--port", str(code_port), "--location-name", _LOCATION],
                logs / "code.log",
            ),
            Child(
                "web",
                [python, "-m", "dagster_webserver", "--host", "127.0.0.1",
                 "--port", str(self.ui_port), "-w", str(workspace)],
                logs / "web.log",
            ),
            Child(
                "daemon",
                [python, "-m", "dagster._daemon", "run", "-w", str(workspace)],
                logs / "daemon.log",
            ),
            Child(
                "gateway",
                [python, "-m", "ml_control.gateway", "--port", str(self.gateway_port)],
                logs / "gateway.log",
            ),
        ]  # fmt: skip
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            self.children[0].start()
            self._write_state(ready=False)
            _wait_for(lambda: _listening(code_port), self.children[0])
            for child in self.children[1:]:
                child.start()
            self._write_state(ready=False)
            _wait_for(self._gateway_ready, self.children[3])
            _wait_for(self._web_ready, self.children[1])
            if on_ready is not None:
                on_ready()
            self._write_state(ready=True)
            self._watch()
        finally:
            self._end_all()

    def _watch(self) -> None:
        keeper = threading.Thread(target=self._keep, name="endpoint keeper", daemon=True)
        keeper.start()
        while not self._stopping.wait(0.5):
            for child in self.children:
                if child.running or time.monotonic() < child.not_before:
                    continue
                ran = time.time() - child.started
                child.failures = 1 if ran > _HEALTHY_SECONDS else child.failures + 1
                child.not_before = time.monotonic() + 2.0 ** min(child.failures - 1, 6)
                self.say(f"{child.name} ended; starting it again (see {child.log})")
                child.start()
                self._write_state(ready=True)
        keeper.join(_KEEPER_SECONDS)  # a server that it is starting now must be there to be ended

    def _keep(self) -> None:
        """Bring endpoint servers back, beside the children: one may take minutes to start."""
        while not self._stopping.wait(_REVIVE_SECONDS):
            self.revive()

    def _stop(self, *_: Any) -> None:
        self._stopping.set()

    def _web_ready(self) -> bool:
        if self._stopping.is_set():
            raise KeyboardInterrupt
        try:
            return httpx.get(f"{self.ui}/server_info", timeout=2.0).status_code == 200
        except httpx.HTTPError:
            return False

    def _gateway_ready(self) -> bool:
        if self._stopping.is_set():
            raise KeyboardInterrupt
        return answers(self.gateway)

    def _write_state(self, *, ready: bool) -> None:
        me = os.getpid()
        write_json(
            self.settings.home / STATE_FILE,
            {
                "pid": me,
                "started": identity(me),
                "ui": self.ui,
                "gateway": self.gateway,
                "ready": ready,
                "children": {
                    c.name: {"pid": c.pid, "started": c.started} for c in self.children if c.pid
                },
            },
        )

    def _refuse_second(self, lock: IO[str]) -> None:
        """Hold the home's lock for as long as this process lives."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            state = running_state(self.settings) or {}
            raise Conflict(
                str(self.settings.home),
                f"is up already (process {state.get('pid')}, {state.get('ui')})",
                "use it, or end it with 'ml-control down'",
            ) from error
        ports = (self.ui_port, "--port"), (self.gateway_port, "--gateway-port")
        for port, option in ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise Conflict(
                        f"port {port}", "is in use", f"name another with {option}"
                    ) from error

    def _end_left_over(self) -> None:
        """End what an ``up`` that was killed left running: a second daemon would launch twice."""
        state = read_json(self.settings.home / STATE_FILE) or {}
        left = state.get("children", {}).values()
        end_trees([(int(child["pid"]), float(child["started"])) for child in left])

    def _end_all(self) -> None:
        end_trees([(child.pid, child.started) for child in self.children if child.pid])
        (self.settings.home / STATE_FILE).unlink(missing_ok=True)


def running_state(settings: Settings) -> dict[str, Any] | None:
    """What a living ``up`` of this home wrote about itself."""
    state: dict[str, Any] = read_json(settings.home / STATE_FILE) or {}
    if "pid" not in state or not alive(int(state["pid"]), float(state["started"])):
        return None
    return state


def reachable(host: str) -> str:
    """How a host that is listened on is reached from this machine, as part of an address."""
    if host in ("", "0.0.0.0"):  # noqa: S104 - it is compared, not listened on
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def answers(gateway: str) -> bool:
    """Whether a gateway answers at this address."""
    try:
        return httpx.get(f"{gateway}/healthz", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def end_trees(roots: list[tuple[int, float]]) -> None:
    """End these processes and everything they started."""
    tree: list[tuple[int, float]] = []
    for pid, started in roots:
        if not alive(pid, started):
            continue
        try:
            found = psutil.Process(pid).children(recursive=True)
            tree += [(child.pid, child.create_time()) for child in found]
        except psutil.NoSuchProcess:
            continue
    for pid, started in [*roots, *tree]:
        end(pid, started, grace=5.0)


def processes_of(home: Path) -> list[tuple[int, float]]:
    """Every process that was started for this home, but not this one or its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid in own or process.environ().get(STARTED_FOR) != str(home):
                continue
            found.append((process.pid, process.create_time()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(ready: Callable[[], bool], child: Child) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if not child.running or time.monotonic() > deadline:
            end_of_log = child.log.read_text("utf-8", "replace")[-1500:]
            raise PlatformFailed(
                f"{child.name} server", f"did not start: {end_of_log}", f"see {child.log}"
            )
        time.sleep(0.1)


def _workspace(port: int) -> str:
    return (
        "load_from:\n"
        "  - grpc_server:\n"
        "      host: 127.0.0.1\n"
        f"      port: {port}\n"
        f"      location_name: {_LOCATION}\n"
    )
