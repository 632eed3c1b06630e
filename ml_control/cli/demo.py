"""demo: the whole story on real data in a fresh home."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

import ml_control
from ml_control.cli.context import App
from ml_control.errors import Conflict, InvalidSpec, PlatformFailed

if TYPE_CHECKING:
    from ml_control.cli.observer import Observer

REPORT = "demo.json"
_START = re.compile(r'start: "\d{4}-\d{2}-\d{2}"')


@click.command()
@click.option("--keep-up", is_flag=True, help="Leave everything running at the end.")
@click.option("--port", default=0, help="Port of the Dagster UI (default: any free one).")
@click.pass_obj
def demo(app: App, keep_up: bool, port: int) -> None:
    """The whole story on real data: landing, proof, refusals, a killed daemon, a backfill."""
    from rich.console import Console

    from ml_control.cli.acts import Story
    from ml_control.cli.observer import DemoFailed, Observer
    from ml_control.cli.releases import configure
    from ml_control.cli.story import ACTS

    console = Console()
    home = _fresh(app.settings.home / "demo")
    pipelines = home / "pipelines"
    shutil.copytree(examples(), pipelines)
    observer = Observer(home, pipelines)
    story = Story(observer, home / "staging")
    for file in pipelines.glob("*/defs.yaml"):
        # Begin with the story's first day, so that the UI shows how far the partitions are filled.
        text = file.read_text("utf-8")
        file.write_text(_START.sub(f'start: "{story.good_days[0]}"', text), "utf-8")
    configure(pipelines)
    console.print(f"demo home: {home}")
    results: list[dict[str, object]] = []
    supervisor = None
    failed = False
    began = time.monotonic()
    try:
        supervisor = start_up(observer, port)
        console.print(f"up after {time.monotonic() - began:.1f} s: {observer.ui}")
        for number, (title, act) in enumerate(ACTS, start=1):
            start = time.monotonic()
            with console.status(f"({number}) {title} ..."):
                try:
                    detail, ok = act(story), True
                except (DemoFailed, subprocess.TimeoutExpired, ValueError, OSError) as error:
                    detail, ok = f"{type(error).__name__}: {error}", False
            seconds = round(time.monotonic() - start, 1)
            results.append({"act": title, "ok": ok, "seconds": seconds, "detail": detail})
            (home / REPORT).write_text(json.dumps(results, indent=1), "utf-8")
            mark = "[green]ok[/]" if ok else "[red]FAILED[/]"
            console.print(f"({number}) {title}: {mark} in {seconds} s")
            console.print(f"    {detail}", style="dim", highlight=False, markup=False)
            if not ok:
                failed = True
                break
        total = time.monotonic() - began
        console.print(f"{len(results)} acts in {total:.0f} s; written to {home / REPORT}")
    finally:
        if supervisor is not None and not (keep_up and not failed):
            stop_up(observer, supervisor)
    if failed:
        sys.exit(1)
    if keep_up:
        console.print(f"still up at {observer.ui}; end it with: ml-control --home {home} down")


def examples() -> Path:
    """The example pipelines: in the installed package, or beside it in a checkout."""
    package = Path(ml_control.__file__).parent
    for folder in (package / "examples", package.parent / "pipelines"):
        if (folder / "digits" / "defs.yaml").is_file():
            return folder
    raise InvalidSpec(str(package / "examples"), "is missing", "install the package again")


def _fresh(home: Path) -> Path:
    """An empty home; only one that an earlier demo made is replaced."""
    from ml_control.cli.supervisor import running_state
    from ml_control.settings import load_settings

    if home.exists():
        if running_state(load_settings(home=home)) is not None:
            raise Conflict(str(home), "is up", f"end it: ml-control --home {home} down")
        if not (home / "pipelines" / "digits").is_dir():
            raise Conflict(str(home), "was not made by the demo", "move it away")
        shutil.rmtree(home)
    home.mkdir(parents=True)
    return home


def start_up(observer: Observer, port: int) -> subprocess.Popen[str]:
    """Start ``up`` and wait until it says where the UI is."""
    log = observer.home / "up.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [
                sys.executable,
                "-u",
                "-m",
                "ml_control",
                "up",
                "--port",
                str(port),
                "--gateway-port",
                "0",
            ],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=observer.environment,
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text("utf-8").splitlines():
            if line.startswith("up: Dagster at "):
                observer.ui = line.removeprefix("up: Dagster at ")
                return process
        time.sleep(0.2)
    stop_up(observer, process)
    raise PlatformFailed("up", log.read_text("utf-8")[-2000:], f"see {observer.home / 'logs'}")


def stop_up(observer: Observer, process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
    observer.command("down")
