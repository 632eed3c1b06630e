"""Models, and what suites about endpoints do with them."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import psutil
import xgboost

from ml_control.core.artifact import pack
from ml_control.local.processes import alive, end, identity

WAIT = 60.0
TAG = "3.2-0"


class Model:
    """A booster, its archive, and rows with their predictions."""

    def __init__(self, seed, version):
        random = np.random.default_rng(seed)
        rows = random.normal(size=(500, 4)).astype(np.float32)
        rows[random.random(rows.shape) < 0.1] = np.nan
        labels = (np.nan_to_num(rows[:, 0]) * (seed + 1) + np.nan_to_num(rows[:, 1]) > 0).astype(
            int
        )
        booster = xgboost.train(
            {"objective": "binary:logistic", "seed": seed}, xgboost.DMatrix(rows, labels), 15
        )
        self.version = version
        self.archive = pack(bytes(booster.save_raw("ubj")))
        self.want = booster.predict(xgboost.DMatrix(rows)).tolist()
        self.body = "\n".join(
            ",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in rows
        ).encode()


def servers(folder):
    """Pids of endpoint servers under a folder: nobody may leave one behind."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        running = process.info["status"] != psutil.STATUS_ZOMBIE
        serves = "ml_control.serving.endpoint" in command or "xgboost_container" in command
        if running and serves and str(folder) in command:
            found.append(process.info["pid"])
    return found


def serving(state):
    """What tells one deployment from another: its process, or its configuration."""
    return state.detail["pid"] if "pid" in state.detail else state.detail["config"]


def alone(client):
    """Wait until one server is left: on SageMaker the old ones end after the new ones serve."""
    deadline = time.monotonic() + (0.0 if client.on_this_machine else WAIT)
    while len(servers(client._root)) != 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    return 1 == len(servers(client._root))


def deploy(client, model, name="income-a"):
    """Deploy a model and give the endpoint's state."""
    return client.deploy(name, model.archive, model.version, TAG, WAIT)


def predictions(client, model, name="income-a"):
    """The endpoint's predictions of the model's rows."""
    reply = client.invoke(name, model.body)
    assert reply.status == 200, reply.body
    return [float(line) for line in reply.body.split()]


def kill(client, name="income-a"):
    """End a server as the kernel would, and wait until it is gone."""
    pid = client.describe(name).detail["pid"]
    started = identity(pid)
    os.kill(pid, signal.SIGKILL)
    end(pid, started)
    assert not alive(pid, started)
    return pid


def folder_of(client, name="income-a"):
    """The folder of the current deployment."""
    return client._root / name / client.describe(name).detail["instance"]
