"""predict and verify: ask what serves, prove what might."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, print_table
from ml_control.errors import BadObject, error_from
from ml_control.services.authoring.samples import format_of

if TYPE_CHECKING:
    from ml_control.core.pipeline import Pipeline

_TOKEN = "ML_CONTROL_TOKEN"  # noqa: S105 - the variable's name
_MAX_INPUT = 64 * 1024 * 1024
_MAX_ARCHIVE = 1 << 30


@click.command()
@click.argument("pipeline")
@click.option(
    "--input",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    help="CSV with a header, JSON records, .jsonl, .parquet, an image, or a folder of images.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def predict(app: App, pipeline: str, source: Path, as_json: bool) -> None:
    """Predictions of the live model for raw records."""
    from ml_control.services.releases.deployment import predict as ask

    found = app.pipeline(pipeline)
    names, records = read_records(found, source)
    answer = _through_gateway(app, pipeline, records) or ask(app.platform, found, records)
    if as_json:
        print_json(answer)
        return
    rows = [
        [name, item["label"], f"{item['score']:.4f}"]
        for name, item in zip(names, answer["predictions"], strict=True)
    ]
    title = f"{pipeline} variant {answer['variant']} model {answer['model_version'][:12]}"
    print_table(title, ["record", "label", "score"], rows)


def _through_gateway(
    app: App, pipeline: str, records: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """The gateway's answer; None when this home is not up, or it does not take so much at once.

    Raises the typed error of its refusal.
    """
    import httpx
    import orjson

    from ml_control.cli.supervisor import running_state
    from ml_control.serving.handlers.bodies import MAX_BODY, MAX_RECORDS

    gateway = (running_state(app.settings) or {}).get("gateway")
    body = orjson.dumps({"records": records})
    if not gateway or len(records) > MAX_RECORDS or len(body) > MAX_BODY:
        return None
    headers = {"content-type": "application/json"}
    if token := os.environ.get(_TOKEN):
        headers["authorization"] = f"Bearer {token}"
    try:
        reply = httpx.post(
            f"{gateway}/inference/{pipeline}",
            content=body,
            headers=headers,
            timeout=60.0,
            trust_env=False,
        )
    except httpx.TransportError:
        return None  # it is starting again, or ends
    answer: dict[str, Any] = reply.json()
    if reply.status_code == 200:
        return answer
    raise error_from(answer["error"])


def read_records(pipeline: Pipeline, source: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Names and raw records of an input file or folder. Raises ``BadObject``."""
    import base64

    if not source.exists():
        raise BadObject(str(source), "there is no such file", "name an existing file or folder")
    if pipeline.spec.source.format == "images":
        files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        if not files:
            raise BadObject(str(source), "holds no image", "name a folder with PNG or JPEG files")
        return (
            [file.name for file in files],
            [{"image": base64.b64encode(read_input(file)).decode()} for file in files],
        )
    data = read_input(source)
    kind = format_of(source)
    records: Any
    if kind in {"parquet", "jsonl"}:
        records = _typed_records(pipeline, source, data, kind)
    elif data.lstrip()[:1] in (b"{", b"["):
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadObject(str(source), f"is not JSON: {error}", "correct the file") from error
        records = found.get("records") if isinstance(found, dict) else found
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise BadObject(str(source), "holds no list of records", 'write {"records": [{...}]}')
    else:
        from ml_control.core.tabular import read_csv

        frame = read_csv(data, pipeline.spec, str(source), require_target=False)
        records = frame.drop(pipeline.spec.columns.target, strict=False).to_dicts()
    if not records:
        raise BadObject(str(source), "holds no record", "give at least one")
    return [str(i + 1) for i in range(len(records))], records


def _typed_records(
    pipeline: Pipeline, source: Path, data: bytes, kind: str
) -> list[dict[str, Any]]:
    """Records as the pipeline would take them from a Parquet or JSON-lines file."""
    import polars as pl

    from ml_control.core.jsonl import JsonlReader
    from ml_control.core.parquet import ParquetReader

    if kind == "parquet":
        blocks = ParquetReader(source, str(source), pipeline.spec, require_target=False).blocks()
    else:
        blocks = JsonlReader([data], str(source), pipeline.spec, require_target=False).blocks()
    frame = pl.concat(blocks)
    return frame.drop(pipeline.spec.columns.target, strict=False).to_dicts()


def read_input(file: Path, most: int = _MAX_INPUT) -> bytes:
    """An input file's bytes. Raises ``BadObject`` when it is too large or cannot be read."""
    try:
        if file.stat().st_size > most:
            raise BadObject(str(file), f"is larger than {most:,} bytes", "use a smaller one")
        return file.read_bytes()
    except OSError as error:
        raise BadObject(
            str(file), f"cannot be read: {error.strerror}", "name a readable file"
        ) from error


def _archive(path: Path) -> bytes:
    """An archive's bytes; a folder is refused with the archive that may be meant."""
    if path.is_dir():
        inside = sorted(found.name for found in path.glob("*.tar.gz"))
        meant = f"name {path / inside[0]}" if inside else "pack its xgboost-model as model.tar.gz"
        raise BadObject(str(path), "is a folder, not an archive", meant)
    return read_input(path, _MAX_ARCHIVE)


@click.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--container", default="3.2-0", show_default=True, help="Container version.")
@click.option(
    "--golden", type=click.Path(path_type=Path), help="golden.json with rows and predictions."
)
@click.option(
    "--features", type=click.Path(path_type=Path), help="features.json that must fit the model."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    archive: Path, container: str, golden: Path | None, features: Path | None, as_json: bool
) -> None:
    """Prove or refuse any model.tar.gz for a container version. Exit status 1 if refused."""
    from ml_control.services.models import verify as service

    report = service.verify(
        _archive(archive),
        container,
        read_input(golden) if golden else None,
        name=str(archive),
        features=read_input(features) if features else None,
    )
    if as_json:
        print_json(report.to_dict())
        if not report.passed:
            raise SystemExit(1)
        return
    if report.booster is not None and not report.passed:
        title = f"{archive.name} in container {container}: refused"
        rows = [[f.rule, f.object.removeprefix(f"{archive}:"), f.reason, f.next]
                for f in report.findings]  # fmt: skip
        print_table(title, ["rule", "object", "reason", "next"], rows)
    service.raise_if_refused(report)
    compared = ""
    if report.golden:
        compared = (
            f"; {report.golden['rows']} golden rows, "
            f"largest difference {report.golden['max_abs_difference']:.3g}"
        )
    click.echo(f"proven: {archive} for container {container} in {report.seconds:.1f} s{compared}")
