"""AWS on this machine: one moto server and, where it is asked for, one ministack a test process;
an account of its own for each test.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from ml_control.aws.client import Clients
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


@cache
def ministack_url() -> str:
    """Address of this process's ministack, started when it is first asked for.

    It runs in an environment of its own (``requirements/ministack.lock``), checks signatures and
    policies, keeps nothing, and ends with this process.
    """
    from isolated import environment_of

    python = environment_of("ministack")
    place = Path(tempfile.mkdtemp(prefix="ministack-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(place),
        "TMPDIR": str(place),
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
        "LAMBDA_EXECUTOR": "local",
        "LOG_LEVEL": "WARNING",
        "S3_DATA_DIR": str(place / "s3"),
        "STATE_DIR": str(place / "state"),
    }
    log = place / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [python, "-m", "ministack"], env=environment, cwd=place, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(5)
        shutil.rmtree(place, ignore_errors=True)

    atexit.register(end)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        with suppress(OSError), urllib.request.urlopen(f"{url}/_ministack/health", timeout=5):
            return url
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"ministack did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


@cache
def _session(key: str) -> Any:
    import boto3

    return boto3.Session(key, key, region_name=REGION)


def clients_of(settings: AwsSettings) -> Clients:
    """Clients of their own, over one session: the models of the services are read once.

    The credentials are those of the environment now.
    """
    clients = Clients(settings)
    clients._session = _session(os.environ["AWS_ACCESS_KEY_ID"])
    return clients


@contextmanager
def credentials(key: str = "testing") -> Iterator[None]:
    """Credentials in the environment that emulators take, and no others. ministack's is test."""
    before = {name: os.environ.get(name) for name in (*_KEYS, "AWS_PROFILE", "AWS_SESSION_TOKEN")}
    os.environ.update(_KEYS, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=key)
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
