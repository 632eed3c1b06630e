"""stream: put records, consume them, and see what could not be processed."""

from __future__ import annotations

import json
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, print_table, when
from ml_control.cli.serving import read_input, read_records
from ml_control.errors import BadObject
from ml_control.services.authoring.samples import format_of

if TYPE_CHECKING:
    from ml_control.core.pipeline import Pipeline

_AT_ONCE = 1000  # records put in one transaction
_SHOWN = 100  # parked records
_SHOWN_BYTES = 200


@click.command()
@click.argument("action", type=click.Choice(["put", "status", "consume", "replay"]))
@click.argument("pipeline")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--key", help="For put: the column whose value is the entity's id.")
@click.option("--once", is_flag=True, help="For consume: end when nothing waits that is due.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def stream(
    app: App,
    action: str,
    pipeline: str,
    file: Path | None,
    key: str | None,
    once: bool,
    as_json: bool,
) -> None:
    """Put records into a pipeline's stream, consume them, see and replay what was parked."""
    found = app.pipeline(pipeline)
    if action == "put":
        if file is None:
            raise click.UsageError("'stream put' needs a FILE")
        _put(app, found, file, key, as_json=as_json)
    elif action == "status":
        _status(app, pipeline, as_json=as_json)
    elif action == "consume":
        _consume(app, found, once=once, as_json=as_json)
    else:
        from ml_control.services.traffic.consumer import replay

        again = replay(app.platform, pipeline)
        _say({"pipeline": pipeline, "replayed": again}, f"{again} records wait again", as_json)


def _put(app: App, pipeline: Pipeline, file: Path, key: str | None, *, as_json: bool) -> None:
    from ml_control.ports import StreamRecord
    from ml_control.serving.handlers.envelopes import message

    records = [
        StreamRecord(pipeline.name, entity, message(record))
        for entity, record in _keyed(pipeline, file, key)
    ]
    sequences: list[int] = []
    for begin in range(0, len(records), _AT_ONCE):
        sequences += app.platform.stream.put(records[begin : begin + _AT_ONCE])
    ends = {"first": sequences[0], "last": sequences[-1]}
    _say(
        {"pipeline": pipeline.name, "records": len(records), **ends},
        f"put {len(records)} records, {ends['first']} to {ends['last']}",
        as_json,
    )


def _keyed(pipeline: Pipeline, file: Path, key: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each record with the id of its entity; without a key each is an entity of its own."""
    kind = format_of(file) if file.is_file() else ""
    if kind == "jsonl":
        records = list(_lines(file))
    else:
        _, records = read_records(pipeline, file)
    keys: list[Any] = [record.get(key) for record in records] if key else []
    if key and kind == "csv" and read_input(file).lstrip()[:1] not in (b"{", b"["):
        from ml_control.core.tabular import read_cells

        cells = read_cells(read_input(file), str(file))  # ignored columns are there too
        keys = cells[key].to_list() if key in cells.columns else [None]
    if key:
        for row, entity in enumerate(keys, 1):
            if isinstance(entity, bool) or not isinstance(entity, str | int) or entity == "":
                raise BadObject(
                    str(file),
                    f"record {row} has no text or whole number in {key!r}",
                    "name a column that every record has",
                    row=row,
                    column=key,
                )
    for place, record in enumerate(records):
        yield str(keys[place]) if key else secrets.token_hex(8), record


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file as they are: the consumer judges them."""
    found = False
    for row, line in enumerate(read_input(file).splitlines(), 1):
        if not line.strip():
            continue
        found = True
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadObject(
                str(file), f"line {row} is not JSON: {error}", "correct the file", row=row
            ) from error
        if not isinstance(record, dict):
            raise BadObject(str(file), f"line {row} is no object", "correct the file", row=row)
        yield record
    if not found:
        raise BadObject(str(file), "holds no record", "give at least one")


def _status(app: App, pipeline: str, *, as_json: bool) -> None:
    stream = app.platform.stream
    state = stream.state(pipeline)
    parked = [
        {
            "sequence": one.record.sequence,
            "key": one.record.key,
            "reason": one.reason,
            "tries": one.tries,
            "parked_at": one.at,
            "data": one.record.data[:_SHOWN_BYTES].decode(errors="replace"),
        }
        for one in stream.parked(pipeline, _SHOWN)
    ]
    if as_json:
        print_json({"pipeline": pipeline, **vars(state), "parked_records": parked})
        return
    since = f", the oldest since {when(state.oldest_at)}" if state.oldest_at else ""
    click.echo(
        f"{pipeline}: {state.waiting} records wait{since}; {state.failing} of them failed and are "
        f"tried again; {state.parked} are parked; checkpoint {state.checkpoint}"
    )
    if parked:
        rows = [[one["sequence"], one["key"], one["tries"], one["reason"]] for one in parked]
        title = f"parked: next 'ml-control stream replay {pipeline}'"
        print_table(title, ["record", "key", "tries", "reason"], rows)


def _consume(app: App, pipeline: Pipeline, *, once: bool, as_json: bool) -> None:
    from ml_control.services.releases.deployment import ensure_serving
    from ml_control.services.releases.snapshots import Snapshots
    from ml_control.services.traffic.consumer import Consumer, consume_batch

    ensure_serving(app.platform, pipeline)
    if not once:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        click.echo(f"consuming the stream of {pipeline.name}; Ctrl-C ends it", err=True)
        say = lambda text: click.echo(text, err=True)  # noqa: E731 - one line of output
        Consumer(app.platform, lambda: [pipeline], say).run(stop)
        return
    snapshots = Snapshots(app.platform)
    done = parked = failed = 0
    while True:
        batch = consume_batch(app.platform, pipeline, snapshots=snapshots)
        done, parked, failed = done + batch.done, parked + batch.parked, failed + batch.failed
        if not batch.settled:
            break
    _say(
        {"pipeline": pipeline.name, "done": done, "failed": failed, "parked": parked},
        f"{done} records were answered, {parked} parked; {failed} tries failed",
        as_json,
    )


def _say(document: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(text)
