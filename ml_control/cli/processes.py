"""up and down: the processes of a home."""

from __future__ import annotations

import click

from ml_control.cli.context import App
from ml_control.errors import MlControlError


@click.command()
@click.option("--port", default=3000, show_default=True, help="Port of the Dagster UI (0: any).")
@click.pass_obj
def up(app: App, port: int) -> None:
    """Dagster UI and daemon and the endpoint servers, in the foreground; Ctrl-C ends all."""
    from ml_control.cli.supervisor import Supervisor, free_port

    for name in app.folder.found:
        (app.settings.landing / name).mkdir(parents=True, exist_ok=True)
    supervisor = Supervisor(app.settings, port or free_port(), click.echo)

    def on_ready() -> None:
        serve_all(app)
        click.echo(f"up: Dagster at {supervisor.ui}")
        click.echo(f"drop files into {app.settings.landing}/<pipeline>/; Ctrl-C ends all")

    try:
        supervisor.run(on_ready)
    finally:
        if supervisor.children:
            stop_all(app)


def serve_all(app: App) -> None:
    """Bring back every variant from disk; one that is refused does not stop the others."""
    from ml_control.services.deployment import ensure_serving

    for name, pipeline in app.folder.found.items():
        try:
            for variant, state in ensure_serving(app.platform, pipeline).items():
                click.echo(f"{name} variant {variant}: {state.state} {state.url}{state.reason}")
        except MlControlError as error:
            click.echo(f"error: {error.kind}: {error.object}: {error.reason}", err=True)


def stop_all(app: App) -> int:
    """End every endpoint server of the home; gives how many there were."""
    stopped = 0
    for folder in sorted((app.settings.home / "endpoints").glob("*")):
        if folder.is_dir() and app.platform.endpoints.describe(folder.name).state == "InService":
            app.platform.endpoints.stop(folder.name)
            stopped += 1
    return stopped


@click.command()
@click.pass_obj
def down(app: App) -> None:
    """End every process of this home."""
    from ml_control.cli.supervisor import end_trees, processes_of, running_state
    from ml_control.local.processes import end

    state = running_state(app.settings)
    if state is not None:
        end(int(state["pid"]), float(state["started"]), grace=60.0)
    stopped = stop_all(app)
    left = processes_of(app.settings.home)
    end_trees(left)
    said = "up was running" if state else "up was not running"
    click.echo(f"down: {said}; ended {stopped} endpoint servers and {len(left)} other processes")
