"""A warm process that forks victims, so that one starts in milliseconds instead of seconds.

Reads one JSON document a line, ``{"plan", "env", "cwd", "output"}``, forks, and prints the pid of
the process that does the plan. Nothing here may start a thread or open a home before the fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback


def warm_up():
    """Import what the work needs; every victim inherits it."""
    import dagster
    import matplotlib.pyplot
    import numpy
    import polars
    import sklearn.metrics
    import xgboost

    import ml_control.cli.main
    from ml_control.core import features, gates, profile, tabular
    from ml_control.services.arrivals import intake
    from ml_control.services.data import dataset
    from ml_control.services.models import plots, report, training
    from ml_control.services.releases import deployment

    return (
        *(dagster, matplotlib, numpy, polars, sklearn, xgboost, ml_control, features, gates),
        *(profile, tabular, dataset, deployment, intake, plots, report, training),
    )


def become(order):
    """Be the victim: its own session, environment, folder and output; never returns."""
    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        from victim import main

        code = main(order["plan"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve():
    """Fork a victim for each line until the input ends."""
    warm = warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # victims are reaped at once
    for line in sys.stdin:
        order = json.loads(line)
        if (pid := os.fork()) == 0:
            become(order)
        print(pid, flush=True)
    return warm


if __name__ == "__main__":
    serve()
