"""The container's server on a model folder: ``python -m ... --dir DIR``.

DIR holds ``model/`` (the extracted archive) and ``deployment.json``. Requests are read and
answered by our endpoint server's application; what is loaded is whatever the container would load.
A model that does not load ends the process with its traceback, and nobody ever answers ``/ping``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from ml_control.serving.lean import leave_out_unused
from ml_control.testing.xgboost_container.parent import end_with_parent

_THREADS = 3


def serve(folder: Path) -> None:
    """Serve until SIGTERM. Raises what loading raises."""
    from ml_control.serving import server
    from ml_control.serving.application import READ_SECONDS, Application
    from ml_control.serving.deployed import Deployment
    from ml_control.testing.xgboost_container.models import Ensemble, load_models

    deployment = Deployment(**json.loads((folder / "deployment.json").read_bytes()))
    # Boosters are not asked from two threads at once, so each thread has its own.
    models = [Ensemble(load_models(folder / "model")) for _ in range(_THREADS)]
    listener = server.bind("127.0.0.1", 0)

    def ready() -> None:
        draft = folder / ".server.json"
        draft.write_text(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}))
        draft.replace(folder / "server.json")

    application = Application(deployment, models, "")  # type: ignore[arg-type]
    server.run(application, listener, ready, read_seconds=READ_SECONDS)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="folder of the deployment")
    serve(parser.parse_args(arguments).dir)


if __name__ == "__main__":
    end_with_parent()
    leave_out_unused()
    main()
