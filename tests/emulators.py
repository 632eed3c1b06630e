"""AWS on this machine: one moto server a test process, and an account of its own for each test."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from ml_control.settings import AwsSettings

REGION = "eu-west-1"
_KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@cache
def moto_url() -> str:
    """Address of this process's moto server, started when it is first asked for.

    Its thread ends with the process.
    """
    from moto.server import ThreadedMotoServer

    from ml_control.testing.dynamodb import atomic_transactions

    atomic_transactions()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def fresh_settings(url: str | None = None, **changes: object) -> AwsSettings:
    """Settings of a project that nobody else has, whose services all answer at ``url`` (moto)."""
    url = url or moto_url()
    services = (
        "s3", "sqs", "dynamodb", "kinesis", "sns", "iam", "events", "sts", "kms", "logs",
        "cloudwatch", "sagemaker", "sagemaker-runtime", "scheduler",
    )  # fmt: skip
    return AwsSettings(
        region=REGION,
        project=f"t{secrets.token_hex(6)}",
        environment="test",
        endpoint_urls=dict.fromkeys(services, url),
        **changes,
    )


@contextmanager
def credentials() -> Iterator[None]:
    """Credentials in the environment that emulators take, and no others."""
    before = {name: os.environ.get(name) for name in (*_KEYS, "AWS_PROFILE", "AWS_SESSION_TOKEN")}
    os.environ.update(_KEYS)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
