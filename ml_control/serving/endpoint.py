"""The endpoint server: one process for one model, under the SageMaker container's contract.

Run as ``<python> -m ml_control.serving.endpoint --dir DIR`` by the interpreter that has exactly
the container's XGBoost. DIR holds ``model.tar.gz`` and ``deployment.json`` (``name``,
``model_version``, ``container``, ``archive_sha256``, ``instance``, and perhaps an
``environment``, see :mod:`ml_control.serving.deployed`). The server refuses to start
on other bytes than those, picks a free loopback port, and once it can answer writes
``DIR/server.json`` (readable by its owner only): ``pid``, ``started``, ``port``, ``instance``
and ``token``. SIGTERM lets requests in progress finish.

It imports little, because the isolated container environments hold little: the standard library,
numpy, xgboost, and of the libraries locked beside them uvicorn, httptools, uvloop, simdjson and
orjson.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from pathlib import Path

from ml_control.core.artifact import unpack
from ml_control.core.containers import container
from ml_control.core.digests import sha256
from ml_control.errors import InvalidSpec, MlControlError, NotProven, PlatformFailed
from ml_control.serving.application import READ_SECONDS, Application
from ml_control.serving.deployed import Deployment
from ml_control.serving.http import log
from ml_control.serving.lean import leave_out_unused
from ml_control.serving.predictor import Predictor

_THREADS = 3
_IMPORTED = time.time()


def load(folder: Path) -> tuple[Deployment, list[Predictor]]:
    """The deployment in a folder and its model thrice, after every check that serving needs.

    Thrice, because small requests are answered in one thread, and large ones in two others.

    Raises ``InvalidSpec`` for an unreadable ``deployment.json``, ``NotProven`` when the archive
    is not the one deployed or must not be served, ``PlatformFailed`` when this interpreter's
    XGBoost is not the container's or cannot load the model.
    """
    import xgboost

    try:
        deployment = Deployment(**json.loads((folder / "deployment.json").read_bytes()))
        archive = (folder / "model.tar.gz").read_bytes()
    except MlControlError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise InvalidSpec(str(folder), f"holds no whole deployment: {error}", "deploy") from error
    found = sha256(archive)
    if found != deployment.archive_sha256:
        raise NotProven(
            f"{deployment.name}: model.tar.gz",
            f"has SHA-256 {found}, but {deployment.archive_sha256} was deployed",
            "deploy the proven archive again",
        )
    wanted = container(deployment.container)
    if xgboost.__version__ != wanted.xgboost:
        raise PlatformFailed(
            deployment.name,
            f"container {wanted.tag} has XGBoost {wanted.xgboost}, "
            f"this interpreter has {xgboost.__version__}",
            "start the server with the container's interpreter",
        )
    model = unpack(archive, wanted)
    return deployment, [Predictor(model) for _ in range(_THREADS)]


def started_at() -> float:
    """When this process was created, in seconds since the epoch, as psutil would tell it."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        boot = next(
            float(line.split()[1])
            for line in Path("/proc/stat").read_text().splitlines()
            if line.startswith("btime ")
        )
        return boot + float(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration, IndexError, ValueError):
        return _IMPORTED  # no /proc on this system


def _announce(folder: Path, port: int, instance: str, token: str) -> None:
    record = {
        "pid": os.getpid(),
        "started": started_at(),
        "port": port,
        "instance": instance,
        "token": token,
    }
    draft = folder / f".server.json.{os.getpid()}"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(record, file)
    draft.replace(folder / "server.json")


def serve(folder: Path, read_seconds: float = READ_SECONDS) -> None:
    """Serve the deployment in a folder until SIGTERM or SIGINT. Raises as :func:`load` does."""
    from ml_control.serving import server

    deployment, predictors = load(folder)
    listener = server.bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    token = secrets.token_hex(16)

    def ready() -> None:
        _announce(folder, port, deployment.instance, token)
        log(
            f"serving {deployment.name} {deployment.model_version} on 127.0.0.1:{port} "
            f"({'direct' if predictors[0].direct else 'DMatrix'} prediction)"
        )

    application = Application(deployment, predictors, sha256(token.encode()), read_seconds)
    server.run(application, listener, ready, read_seconds=read_seconds)


def main(arguments: list[str] | None = None) -> int:
    """The command line. 0 after a signal, 1 when the deployment must not be served."""
    parser = argparse.ArgumentParser(prog="ml_control.serving.endpoint", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="folder of the deployment")
    parser.add_argument(
        "--read-seconds", type=float, default=READ_SECONDS, help="time a body may take to arrive"
    )
    options = parser.parse_args(arguments)
    try:
        serve(options.dir, options.read_seconds)
    except MlControlError as error:
        log(f"refused to start: {error}")
        return 1
    return 0


if __name__ == "__main__":
    leave_out_unused()
    sys.exit(main())
