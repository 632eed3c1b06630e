"""up and down: the processes of a home."""

from __future__ import annotations

import time
from contextlib import suppress

import click

from ml_control.cli.context import App
from ml_control.cli.stalled import SensorWatch
from ml_control.errors import MlControlError, Retryable

_RETRY_SECONDS = 30.0  # a server that cannot start is not tried at every look


@click.command()
@click.option("--port", default=3000, show_default=True, help="Port of the Dagster UI (0: any).")
@click.option("--gateway-port", type=int, help="Port of the gateway, not the setting's (0: any).")
@click.pass_obj
def up(app: App, port: int, gateway_port: int | None) -> None:
    """Dagster, the gateway and the endpoint servers, in the foreground; Ctrl-C ends all."""
    from ml_control.cli.supervisor import Supervisor, free_port

    here = app.settings.platform == "local"
    for name in app.folder.found if here else ():
        (app.settings.landing / name).mkdir(parents=True, exist_ok=True)
    keeper = EndpointKeeper(app)
    asked = app.settings.gateway_port if gateway_port is None else gateway_port
    supervisor = Supervisor(
        app.settings, port or free_port(), asked or free_port(), click.echo, keeper.look
    )

    def on_ready() -> None:
        if here:  # elsewhere an endpoint takes minutes, and is brought back beside all else
            keeper.look()
        click.echo(f"up: Dagster at {supervisor.ui}")
        click.echo(f"up: gateway at {supervisor.gateway}, its console at {supervisor.gateway}/")
        click.echo(f"drop files into {app.settings.door('<pipeline>')}/; Ctrl-C ends all")

    try:
        supervisor.run(on_ready)
    finally:
        if supervisor.children:
            stop_all(app)


class EndpointKeeper:
    """Brings back every variant that should serve, and says what changed."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._said: dict[str, str] = {}
        self._not_before: dict[str, float] = {}
        self._unclaimed: set[str] = set()
        self._sensors = SensorWatch(app)

    def look(self) -> None:
        """One look at every pipeline; a variant that is refused does not stop the others."""
        from ml_control.services.alerts import attend, clear_alerts, raise_alert
        from ml_control.services.releases.deployment import ensure_serving

        platform = self._app.platform
        for name, pipeline in self._app.folder.found.items():
            if time.monotonic() < self._not_before.get(name, 0.0):
                continue
            try:
                states = ensure_serving(platform, pipeline)
                clear_alerts(platform, name, "endpoint")
            except (MlControlError, OSError) as error:
                self._say(name, f"error: {name}: {error}")
                self._not_before[name] = time.monotonic() + _RETRY_SECONDS
                if isinstance(error, MlControlError) and not isinstance(error, Retryable):
                    with suppress(MlControlError):
                        live = "the live variant could not be brought back"
                        said = f"{live}: {error.reason}"
                        raise_alert(platform, name, "endpoint", error.object, said, error.next)
                        attend(platform, name)
                continue
            for variant, state in states.items():
                self._say(
                    f"{name} {variant}",
                    f"{name} variant {variant}: {state.state} {state.url}{state.reason}",
                )

        self._look_for_unclaimed()
        self._sensors.look()

    def _look_for_unclaimed(self) -> None:
        """Tell once of files in a landing folder that belongs to no pipeline."""
        from ml_control.services.alerts import attend, clear_alerts, raise_alert, unclaimed
        from ml_control.services.authoring.pipelines import read_folder

        platform, settings = self._app.platform, self._app.settings
        known = {*self._app.folder.found, *self._app.folder.broken}
        found = unclaimed(platform, known)
        if found or self._unclaimed:  # a pipeline may have been added since the start
            folder = read_folder(settings.pipelines, settings.yaml_env)
            found = unclaimed(platform, {*folder.found, *folder.broken})
        names = {str(error.detail["name"]): error for error in found}
        with suppress(MlControlError):
            for name in self._unclaimed - set(names):
                clear_alerts(platform, name, "unclaimed")
            for name, error in names.items():
                raise_alert(platform, name, "unclaimed", "landing", error.reason, error.next)
                attend(platform, name)
        self._unclaimed = set(names)
        for name, error in names.items():
            self._say(f"{name} landing", f"unclaimed: {error.object}: {error.reason}")

    def _say(self, subject: str, words: str) -> None:
        if self._said.get(subject) != words:
            self._said[subject] = words
            click.echo(words)


def stop_all(app: App) -> int:
    """End every endpoint server of the home; gives how many there were. Those on AWS stay."""
    endpoints, stopped = app.platform.endpoints, 0
    if not endpoints.on_this_machine:
        return 0
    for name in endpoints.names():
        if endpoints.describe(name).state == "InService":
            endpoints.stop(name)
            stopped += 1
    return stopped


@click.command()
@click.pass_obj
def down(app: App) -> None:
    """End every process of this home. What serves on AWS serves on."""
    from ml_control.cli.supervisor import end_trees, processes_of, running_state
    from ml_control.local.processes import end
    from ml_control.local.trainer import LocalTrainer

    state = running_state(app.settings)
    if state is not None:
        end(int(state["pid"]), float(state["started"]), grace=60.0)
    stopped = stop_all(app)
    LocalTrainer(app.settings.home / "jobs").stop()
    left = processes_of(app.settings.home)
    end_trees(left)
    said = "up was running" if state else "up was not running"
    click.echo(f"down: {said}; ended {stopped} endpoint servers and {len(left)} other processes")
    endpoints = app.platform.endpoints
    if not endpoints.on_this_machine:
        serving = [n for n in endpoints.names() if endpoints.describe(n).state == "InService"]
        told = ", ".join(serving) or "none"
        click.echo(f"down: endpoints on SageMaker serve on, and cost on: {told}")
