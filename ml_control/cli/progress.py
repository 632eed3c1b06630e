"""Boosting rounds in the terminal: one live line there, every tenth round elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ml_control.ports import Round
from ml_control.services.models.progress import line, watching


@contextmanager
def rounds_shown() -> Iterator[None]:
    """Show each training of this context on stderr, round by round."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        with watching(_print):
            yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[metrics]}"), console=console) as bar:
        tasks: dict[str, TaskID] = {}
        last: Round | None = None

        def show(what: str, rounds: int, step: Round) -> None:
            nonlocal last
            if what not in tasks:
                for before, task in tasks.items():  # one line lives: a search may have hundreds
                    bar.remove_task(task)
                    console.print(f"{before}: {line(last)}" if last else before, markup=False)
                tasks.clear()
                tasks[what] = bar.add_task(what, total=rounds, metrics="")
            last = step
            values = "  ".join(f"{name} {value:.5f}" for name, value in step.metrics.items())
            bar.update(tasks[what], completed=step.index + 1, metrics=values)

        with watching(show):
            yield


def _print(what: str, _rounds: int, step: Round) -> None:
    if step.index % 10 == 0:
        click.echo(f"{what}: {line(step)}", err=True)
