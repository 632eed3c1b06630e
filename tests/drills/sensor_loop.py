"""A real process that runs a home's sensors and the runs they ask for, to be killed at any time.

Run with the home in the environment and told what to do in lines of JSON on stdin. Heavy modules
are imported once; each piece of work is done by a child of its own, which is forked, says its pid
and then how it ended, so that a kill leaves nothing but what is durable::

    {"do": "iterate", "crash": "RUN_CREATED"}    one iteration of Dagster's sensor daemon
    {"do": "loop", "seconds": 30}                ticks and runs until the time is over, or a kill
    {"do": "drain"}                              ticks and runs until nothing waits; sweeps too
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pandas  # noqa: F401 - from here on: what each child would import otherwise
import polars  # noqa: F401
import upath  # noqa: F401
from dagster import DagsterInstance
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration

from ml_control.core import cells, csv_blocks, profile, tabular  # noqa: F401
from ml_control.definitions import defs
from ml_control.local import alerts, endpoints, notifications, registry, trainer  # noqa: F401
from ml_control.resources import PlatformResource
from ml_control.sensors import in_flight
from ml_control.services.arrivals.requests import partitions_with_work
from ml_control.services.authoring.pipelines import read_folder
from ml_control.services.data import dataset, drift  # noqa: F401

NAME = "tumours"
SENSOR = f"{NAME}__arrivals"

# A killed run is believed to be alive for minutes, as a starting one may be silent; not here.
in_flight.STARTUP_SECONDS = in_flight.LAUNCH_SECONDS = 0.2


def iterate(crash=None, ahead=0):
    """What the daemon does with the sensor once; it dies at the point that is named.

    Dagster's clock, and only Dagster's, is ahead: it evaluates a sensor every five seconds.
    """
    origin = LoadableTargetOrigin(module_name="ml_control.definitions", attribute="defs")
    target = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin))
    flags = {SENSOR: {crash: signal.SIGKILL}} if crash else None
    later = datetime.now(UTC) + timedelta(seconds=ahead)
    with (
        freeze_time(later),
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target) as context,
    ):
        workspace = context.create_request_context()
        (location,) = workspace.get_code_location_entries().values()
        assert location.code_location, location.load_error
        list(
            execute_sensor_iteration(
                context,
                logging.getLogger("drill"),
                threadpool_executor=None,
                submit_threadpool_executor=None,
                debug_crash_flags=flags,
            )
        )
        return instance.get_runs_count()


def tick(instance, definitions):
    """One evaluation of the sensor, and the runs that it asks for."""
    sensor = definitions.resolve_sensor_def(SENSOR)
    with dg.build_sensor_context(
        instance=instance, definitions=definitions, resources={"ml_control": PlatformResource()}
    ) as context:
        found = sensor.evaluate_tick(context)
    job = definitions.resolve_job_def(f"{NAME}__ingest")
    for request in found.run_requests or []:
        job.execute_in_process(
            partition_key=request.partition_key,
            instance=instance,
            tags={**request.tags, "dagster/run_key": request.run_key},
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    return len(found.run_requests or [])


def loop(seconds=None):
    """Ticks until the time is over or, without one, until nothing waits; gives the runs."""
    definitions = defs
    platform = PlatformResource().open()
    pipeline = read_folder(platform.settings.pipelines).get(NAME)
    landing = platform.settings.landing / NAME
    deadline = time.monotonic() + (seconds if seconds is not None else 60)
    runs = 0
    with DagsterInstance.get() as instance:
        while time.monotonic() < deadline:
            runs += tick(instance, definitions)
            if seconds is None and not partitions_with_work(platform, pipeline):
                left = [p for p in landing.rglob("*") if p.is_file() and p.name != ".lock"]
                if not left:
                    return instance.get_runs_count()
            time.sleep(0.02)
    assert seconds is not None, "it did not come to rest"
    return runs


WORK = {"iterate": iterate, "loop": loop, "drain": loop}


def main():
    """Do what stdin says, each in a child; print how it ended."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        work = WORK[order.pop("do")]
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.write(write, json.dumps(work(**order)).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        print(json.dumps({"pid": child}), flush=True)
        with os.fdopen(read) as answer:
            said = answer.read()
        _, status = os.waitpid(child, 0)
        ended = {"killed": os.WIFSIGNALED(status), "status": status}
        print(json.dumps({**ended, "answer": json.loads(said) if said else None}), flush=True)


if __name__ == "__main__":
    main()
