"""List operations: filters, order and pages as SageMaker has them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_control.testing.sagemaker.refused import invalid
from ml_control.testing.sagemaker.state import Record

_PAGE = 10
_TIMES = {
    "CreationTimeAfter": ("CreationTime", 1),
    "CreationTimeBefore": ("CreationTime", -1),
    "LastModifiedTimeAfter": ("LastModifiedTime", 1),
    "LastModifiedTimeBefore": ("LastModifiedTime", -1),
}


def page(
    records: Iterable[Record],
    request: Mapping[str, Any],
    *,
    name: str,
    status: str = "",
    answer: str,
    summary: Callable[[Record], Record],
    orders: Mapping[str, str] | None = None,
) -> Record:
    """One page of records as ``{answer: [...], "NextToken": ...}``, newest first by default.

    ``name`` and ``status`` are the members that ``NameContains``, ``StatusEquals`` and ``SortBy``
    look at; ``orders`` are further members by the names that ``SortBy`` has for them.
    Raises ``Refused`` for a token that we did not give.
    """
    chosen = [record for record in records if _wanted(record, request, name, status)]
    known = {"Name": name, "Status": status or name, **(orders or {})}
    by = known.get(request.get("SortBy", ""), "CreationTime")
    # All orders are made whole by the name, so that pages neither repeat nor leave out.
    order = str(request.get("SortOrder", "Descending" if by == "CreationTime" else "Ascending"))
    chosen.sort(key=lambda record: (record[by], record[name]), reverse=order.startswith("Desc"))
    start = _start(request.get("NextToken"))
    size = int(request.get("MaxResults", _PAGE))
    found: Record = {answer: [summary(record) for record in chosen[start : start + size]]}
    if start + size < len(chosen):
        found["NextToken"] = base64.b64encode(json.dumps({"at": start + size}).encode()).decode()
    return found


def _wanted(record: Record, request: Mapping[str, Any], name: str, status: str) -> bool:
    if str(request.get("NameContains", "")).lower() not in record[name].lower():
        return False
    if "StatusEquals" in request and record[status] != request["StatusEquals"]:
        return False
    for member, (field, sign) in _TIMES.items():
        if member in request and sign * (record[field] - float(request[member])) <= 0:
            return False
    return True


def _start(token: str | None) -> int:
    if token is None:
        return 0
    try:
        return int(json.loads(base64.b64decode(token, validate=True))["at"])
    except (ValueError, KeyError, TypeError):
        raise invalid("The pagination token is invalid.") from None
