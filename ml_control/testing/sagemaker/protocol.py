"""Requests and answers judged by botocore's own description of the service.

Everything a client sends is checked against the service model that the installed botocore has:
members, types, required ones, lengths, ranges, patterns and enumerations. So are our answers: one
that real boto3 could not have got is an error of ours and is said as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from ml_control.testing.sagemaker.refused import Refused, invalid

_MARKS = r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e\u0080-\U0010ffff"
# What Java's patterns have and Python's have not, each somewhat wider than there.
_JAVA = {
    r"\p{ASCII}": r"[\x00-\x7f]",
    r"\p{Print}": r"\x20-\x7e",
    r"\p{Alnum}": "a-zA-Z0-9",
    r"\p{L}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": r"\s",
    **dict.fromkeys((r"\p{M}", r"\p{S}", r"\p{P}"), _MARKS),
    r"\z": r"\Z",
    r"\A": "",
}
# Called required, and not told by AWS before a job has written them.
_NOT_YET = "null at 'modelArtifacts'"
_SHOWN = 200  # characters of a refused value that are repeated
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "list": (list,),
    "map": (dict,),
    "structure": (dict,),
    "timestamp": (int, float, str),
    "blob": (str, bytes),
}


@cache
def service(name: str) -> Any:
    """The botocore model of a service: ``sagemaker``, ``sagemaker-runtime`` or ``logs``."""
    import botocore.session

    return botocore.session.get_session().get_service_model(name)


def check_request(name: str, operation: str, parameters: Mapping[str, Any]) -> None:
    """Raise ``Refused``: UnknownOperationException, SerializationException, ValidationException."""
    model = service(name)
    if operation not in model.operation_names:
        raise Refused("UnknownOperationException", f"there is no operation {operation}")
    shape = model.operation_model(operation).input_shape
    if shape is not None:
        _refuse(_problems(shape, parameters))


def check_answer(name: str, operation: str, answer: Mapping[str, Any]) -> None:
    """Raise ``Refused`` (InternalFailure) when an answer is not what the operation gives."""
    shape = service(name).operation_model(operation).output_shape
    found = _problems(shape, answer) if shape is not None else []
    found = [problem for problem in found if _NOT_YET not in problem]
    if found or (shape is None and answer):
        raise Refused("InternalFailure", f"the fake's answer to {operation} is wrong: {found}", 500)


def _refuse(found: list[str]) -> None:
    if found:
        errors = "error" if len(found) == 1 else "errors"
        raise invalid(f"{len(found)} validation {errors} detected: {'; '.join(found)}")


def _problems(shape: Any, value: Any, path: str = "") -> list[str]:
    allowed = _TYPES[shape.type_name]
    right: bool = isinstance(value, allowed) and (not isinstance(value, bool) or bool in allowed)
    if not right:
        raise Refused(
            "SerializationException",
            f"{type(value).__name__} value at '{path}' cannot be read as {shape.type_name}",
        )
    if shape.type_name == "structure":
        return _members(shape, value, path)
    found = _constraints(shape, value, path)
    if shape.type_name == "list":
        for index, item in enumerate(value, 1):
            found += _problems(shape.member, item, f"{path}.{index}.member")
    elif shape.type_name == "map":
        for key, item in value.items():
            found += _problems(shape.key, key, path)
            found += _problems(shape.value, item, f"{path}.{key}.member")
    return found


def _members(shape: Any, value: Mapping[str, Any], path: str) -> list[str]:
    if getattr(shape, "is_document_type", False):
        return []
    found = [
        _said(None, f"{path}.{_camel(name)}", "must not be null")
        for name in shape.required_members
        if value.get(name) is None
    ]
    for name, item in value.items():
        where = f"{path}.{_camel(name)}".lstrip(".")
        if name not in shape.members:
            found.append(f"Unknown member '{name}' at '{path.lstrip('.') or shape.name}'")
        elif item is not None:
            found += _problems(shape.members[name], item, where)
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        found.append(_said(sorted(value), path, "must have exactly one of its members set"))
    return found


def _constraints(shape: Any, value: Any, path: str) -> list[str]:
    rules, found = shape.metadata, []
    if shape.type_name in {"string", "list", "map"}:
        size, more, less = (
            len(value),
            "must have length greater than or equal to",
            "must have length less than or equal to",
        )
    elif shape.type_name in {"integer", "long", "float", "double"}:
        size, more, less = (
            value,
            "must have value greater than or equal to",
            "must have value less than or equal to",
        )
    else:
        return []
    if "min" in rules and size < rules["min"]:
        found.append(_said(value, path, f"{more} {rules['min']}"))
    if "max" in rules and size > rules["max"]:
        found.append(_said(value, path, f"{less} {rules['max']}"))
    if rules.get("enum") and value not in rules["enum"]:
        found.append(
            _said(value, path, f"must satisfy enum value set: [{', '.join(rules['enum'])}]")
        )
    if "pattern" in rules and not _fits(rules["pattern"], value):
        found.append(
            _said(value, path, f"must satisfy regular expression pattern: {rules['pattern']}")
        )
    return found


def _fits(pattern: str, value: str) -> bool:
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(value) is not None


@cache
def _compiled(java: str) -> re.Pattern[str] | None:
    """A pattern of the model; None for the few that Python cannot read, which judge nothing."""
    for theirs, ours in _JAVA.items():
        java = java.replace(theirs, ours)
    try:
        return re.compile(java)
    except re.error:
        return None


def _said(value: Any, path: str, rule: str) -> str:
    shown = "null" if value is None else f"'{str(value)[:_SHOWN]}'"
    return f"Value {shown} at '{path.lstrip('.')}' failed to satisfy constraint: Member {rule}"


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]
