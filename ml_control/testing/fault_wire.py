"""What an AWS request asks for, and how its service says no on the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

Protocol = Literal["json", "cbor", "rest-json", "query", "rest-xml"]
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/([^/]+)/aws4_request")
_RPC = re.compile(r"/service/([^/]+)/operation/(\w+)")
_NAMES = {"monitoring": "cloudwatch"}
_INVOKE = re.compile(r"/endpoints/[^/]+/(async-)?invocations")
# A bucket's or an object's requests by method and by the first of these in the query.
_S3: dict[tuple[str, bool], dict[str, str]] = {
    ("GET", True): {"uploadId": "ListParts", "tagging": "GetObjectTagging", "": "GetObject"},
    ("HEAD", True): {"": "HeadObject"},
    ("PUT", True): {"partNumber": "UploadPart", "tagging": "PutObjectTagging", "": "PutObject"},
    ("POST", True): {"uploads": "CreateMultipartUpload", "uploadId": "CompleteMultipartUpload"},
    ("DELETE", True): {"uploadId": "AbortMultipartUpload", "": "DeleteObject"},
    ("GET", False): {
        "versions": "ListObjectVersions",
        "list-type": "ListObjectsV2",
        "location": "GetBucketLocation",
        "": "ListObjects",
    },
    ("HEAD", False): {"": "HeadBucket"},
    ("PUT", False): {"": "CreateBucket"},
    ("POST", False): {"delete": "DeleteObjects"},
    ("DELETE", False): {"": "DeleteBucket"},
}


@dataclass(frozen=True)
class Request:
    """One request, as far as faults need to know it."""

    service: str  # boto3's name, e.g. "dynamodb"
    operation: str  # e.g. "PutItem"
    protocol: Protocol
    content_type: str = ""

    @property
    def name(self) -> str:
        """``service.Operation``."""
        return f"{self.service}.{self.operation}"


def recognised(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
    """Which operation of which service a request asks for.

    ``target`` is its path and query, ``headers`` have names in lower case.
    """
    url, kind = urlsplit(target), headers.get("content-type", "")
    query = parse_qs(url.query, keep_blank_values=True)
    service = _service(headers, query)
    if called := _RPC.search(url.path):
        return Request(service, called[2], "cbor", kind)
    if said := headers.get("x-amz-target", ""):
        return Request(service, said.rpartition(".")[2], "json", kind)
    if "application/x-www-form-urlencoded" in kind or "Action" in query:
        form = parse_qs(body.decode(errors="replace")) if body else query
        return Request(service, form.get("Action", query.get("Action", ["?"]))[0], "query", kind)
    if service == "s3":
        return Request(service, _s3(method, url.path, query, headers), "rest-xml", kind)
    if _INVOKE.fullmatch(url.path):
        return Request("sagemaker-runtime", "InvokeEndpoint", "rest-json", kind)
    return Request(service, f"{method} {url.path.split('/')[1]}", "rest-json", kind)


def _service(headers: Mapping[str, str], query: Mapping[str, list[str]]) -> str:
    found = _SCOPE.search(headers.get("authorization", ""))
    if found is None and "X-Amz-Credential" in query:  # a presigned address
        found = _SCOPE.search(f"Credential={unquote(query['X-Amz-Credential'][0])}")
    name = found[1] if found else "s3"  # only buckets are read without credentials
    return _NAMES.get(name, name)


def _s3(method: str, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str]) -> str:
    bucket, _, key = path.lstrip("/").partition("/")
    if not bucket:
        return "ListBuckets"
    if method == "PUT" and key and "x-amz-copy-source" in headers:
        return "UploadPartCopy" if "partNumber" in query else "CopyObject"
    names = _S3.get((method, bool(key)), {})
    chosen = next((names[part] for part in names if part and part in query), "")
    # Every other part of a bucket's settings has an operation of its own.
    settings = next((part for part in query if not query[part][0] and part not in names), "")
    if not chosen and not key and settings:
        return f"{method} {settings}"
    return chosen or names.get("", f"{method} object")


@dataclass(frozen=True)
class Refusal:
    """An answer that says no in the words of the service."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str]


def throttled(request: Request, message: str) -> Refusal:
    """Too many requests, as this service says it."""
    code, status = {
        "rest-xml": ("SlowDown", 503),
        "query": ("Throttling", 400),
        "rest-json": ("ThrottlingException", 429),
    }.get(request.protocol, ("ThrottlingException", 400))
    return refusal(request, code, message, status)


def expired(request: Request) -> Refusal:
    """The credentials have run out, as this service says it."""
    code, status = {"rest-xml": ("ExpiredToken", 400), "query": ("ExpiredToken", 403)}.get(
        request.protocol, ("ExpiredTokenException", 400)
    )
    return refusal(request, code, "The security token included in the request is expired", status)


def refusal(request: Request, code: str, message: str, status: int) -> Refusal:
    """An error of this code in the request's protocol."""
    id = {"x-amzn-RequestId": "injected"}
    if request.protocol == "cbor":
        body = _cbor({"__type": code, "message": message})
        return Refusal(status, "application/cbor", body, {**id, "smithy-protocol": "rpc-v2-cbor"})
    if request.protocol in ("json", "rest-json"):
        text = json.dumps({"__type": code, "message": message})
        kind = request.content_type if "x-amz-json" in request.content_type else "application/json"
        return Refusal(status, kind, text.encode(), {**id, "x-amzn-ErrorType": code})
    told = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
    if request.protocol == "query":
        told = f"<ErrorResponse><Error><Type>Sender</Type>{told}</Error></ErrorResponse>"
    else:
        told = f'<?xml version="1.0" encoding="UTF-8"?><Error>{told}</Error>'
    return Refusal(status, "text/xml", told.encode(), id)


def _cbor(texts: Mapping[str, str]) -> bytes:
    """A map of a few texts in CBOR (RFC 8949): one byte of kind, the length, the bytes."""
    out = bytearray([0xA0 | len(texts)])
    for text in (part for pair in texts.items() for part in pair):
        data = text.encode()
        out += bytes([0x79]) + len(data).to_bytes(2, "big") + data
    return bytes(out)
