"""What ``/invocations`` accepts and answers: the pure part of the endpoint server.

The rules are those of the SageMaker XGBoost container, with one deliberate difference: rows
with fewer columns than the model has are refused (400), where the container answers 200 with a
prediction made from features that were never sent. ``docs/serving.md`` has the whole table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_control.serving import selection
from ml_control.serving.delimited import parse_csv
from ml_control.serving.libsvm import parse_libsvm
from ml_control.serving.recordio import parse_recordio
from ml_control.serving.refused import Refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CSV = "text/csv"
JSON = "application/json"
JSONLINES = "application/jsonlines"
RECORDIO = "application/x-recordio-protobuf"
LIBSVM = "text/libsvm"
_READERS: dict[str, Callable[[bytes, int], NDArray[np.float32]]] = {
    CSV: parse_csv,
    LIBSVM: parse_libsvm,
    "text/x-libsvm": parse_libsvm,
    RECORDIO: parse_recordio,
}
_SELECTED = {
    CSV: selection.as_csv,
    JSON: selection.as_json,
    JSONLINES: selection.as_jsonlines,
    RECORDIO: selection.as_recordio,
}


@dataclass(frozen=True)
class Output:
    """What of a prediction is answered: its score alone, or the selected ``keys``."""

    keys: tuple[str, ...] = ()
    objective: str = ""
    num_class: int = 0


PLAIN = Output()


def choose_reader(header: str | None) -> Callable[[bytes, int], NDArray[np.float32]]:
    """The function that reads a body of this content type; without one it is libsvm.

    Raises ``Refused`` (415) for any other type and for parameters that would change what is read:
    ``charset`` must be UTF-8 or ASCII, and ``label_size``, where given, must be 1, as in the
    container (where it changes nothing about serving).
    """
    if header == CSV:  # nearly every request
        return parse_csv
    kind, parameters = _media_type(header or LIBSVM)
    if kind not in _READERS:
        raise Refused(
            415,
            f"Content-Type {kind!r} is not supported; send rows without a header as text/csv",
        )
    charset = parameters.get("charset", "utf-8").lower()
    if charset not in {"utf-8", "utf8", "us-ascii", "ascii"}:
        raise Refused(415, f"charset {charset!r} is not supported; send UTF-8")
    size = parameters.get("label_size", "1")
    if size != "1":
        raise Refused(415, f"label_size={size} is not supported; leave it out or send 1")
    return _READERS[kind]


def choose_accept(header: str | None, output: Output = PLAIN) -> str:
    """The answer's media type: CSV (the default), JSON, and with selected keys two more.

    Raises ``Refused``: 406 when the header allows none of them, 500, as the container does, when
    it allows only such as exist with selected keys, and there are none.
    """
    if header is None or header in {"*/*", CSV}:
        return CSV
    wanted: list[tuple[float, str]] = []
    for part in (header or "*/*").split(","):
        kind, parameters = _media_type(part)
        try:
            weight = float(parameters.get("q", "1"))
        except ValueError:
            weight = 0.0
        if kind and weight > 0:
            wanted.append((weight, kind))
    needs_keys = ""
    # sorted() is stable, so equal weights keep the order in which they were written.
    for _, kind in sorted(wanted, key=lambda item: -item[0]):
        if kind in {"*/*", "text/*", CSV}:
            return CSV
        if kind in {"application/*", JSON}:
            return JSON
        if kind in _SELECTED:
            if output.keys:
                return kind
            needs_keys = kind
    if needs_keys:
        raise Refused(
            500,
            f"{needs_keys} is answered only with {selection.VARIABLE}; "
            "ask for text/csv or application/json",
        )
    raise Refused(406, f"Accept {header!r} is not supported; ask for text/csv or application/json")


def render(
    predictions: NDArray[np.float32], accept: str | None = None, output: Output = PLAIN
) -> tuple[int, str, bytes]:
    """(status, content type, body) of predictions of shape (rows,) or (rows, classes).

    Each number is written in full, so that reading it back gives the same 32-bit float. Raises
    ``Refused``: 406 for an unsupported ``accept``, 500 when the model answered no finite number.
    """
    import numpy as np

    kind = choose_accept(accept, output)
    if not np.isfinite(predictions).all():
        raise Refused(500, "the model answered something that is not a finite number")
    named = f"{CSV}; charset=utf-8" if kind == CSV else kind
    if output.keys:
        selected = selection.select(
            predictions.tolist(), output.keys, output.objective, output.num_class
        )
        return 200, named, _SELECTED[kind](selected)
    return 200, named, _plain(predictions, kind)


def _plain(predictions: NDArray[np.float32], kind: str) -> bytes:
    """The scores alone, made of one long JSON array, which orjson writes fastest."""
    import numpy as np
    import orjson

    # As 64-bit numbers, like the container: 0.1 as a 32-bit float is 0.10000000149011612.
    scores = np.ascontiguousarray(predictions, np.float64)
    numbers = orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY)
    if predictions.ndim > 1:
        rows = numbers[2:-2]
        if kind == CSV:
            return rows.replace(b"],[", b"\n") + b"\n"
        return b'{"predictions":[{"score":[' + rows.replace(b"],[", b']},{"score":[') + b"]}]}"
    if kind == CSV:
        return numbers[1:-1].replace(b",", b"\n") + b"\n"
    return b'{"predictions":[{"score":' + numbers[1:-1].replace(b",", b'},{"score":') + b"}]}"


def _media_type(header: str) -> tuple[str, dict[str, str]]:
    """The lower-case media type of a header, and its parameters."""
    kind, *rest = header.split(";")
    parameters = {}
    for part in rest:
        name, _, value = part.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"')
    return kind.strip().lower(), parameters
