"""A real process that does a pipeline's work and stops dead at one confirmed point.

Run as ``python victim.py PLAN`` with the home in the environment. PLAN is JSON::

    {"pipeline": "tumours", "run": "run-1", "work": [["take_in"], ["ingest"], ...],
     "stop": {"at": "lake.put", "when": "before", "match": "manifest", "nth": 1},
     "limit": {"at": "lake.put", "match": ".parquet", "bytes": 1000},
     "patience": 0.5, "marker": "/path"}

The one call that ``stop`` names is wrapped on this process's own platform object, so product code
knows nothing of it. When it is reached, the marker file appears and nothing goes on until a file
``<marker>.go`` does; whoever waits for the marker may then kill or pause this process. ``limit``
lets no file grow beyond so many bytes during the calls it names, by RLIMIT_FSIZE, as a full disk
would; ``patience`` is how long it waits for the registry. The last line of the output says how the
work ended: ``{"done": [...]}`` or ``{"error": {...}}``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

from ml_control.errors import MlControlError
from ml_control.platform import open_platform
from ml_control.services.authoring.pipelines import read_folder
from ml_control.settings import load_settings


def owner_of(platform, at):
    """What holds a function, and its name: ``a.b`` of the platform, or ``module:a.b``."""
    module, _, path = at.rpartition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module) if module else platform
    for part in owners:
        owner = getattr(owner, part)
    return owner, name


def limit(platform, at, size, match=""):
    """Make the kernel refuse to let any file grow beyond ``size`` bytes during matching calls."""
    import resource

    owner, name = owner_of(platform, at)
    original = getattr(owner, name)

    def limited(*arguments, **options):
        if match not in (str(arguments[0]) if arguments else ""):
            return original(*arguments, **options)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            return original(*arguments, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    setattr(owner, name, limited)


class Stop:
    """Wraps one function of the platform so that its n-th matching call blocks."""

    def __init__(self, marker, when="before", match="", avoid="", nth=1):
        self.marker, self.when, self.left = Path(marker), when, nth
        self.match, self.avoid = match, avoid

    def install(self, platform, path):
        """Put the wrapper in the place of ``platform.<path>`` or ``<module>:<path>``."""
        owner, name = owner_of(platform, path)
        original = getattr(owner, name)

        def wrapped(*arguments, **options):
            chosen = self._chosen(arguments)
            if chosen and self.when == "before":
                self.block()
            if chosen and self.when == "inside":  # in mid-training: at the first round told
                job, on_round = arguments
                arguments = (job, lambda step: (self.block(), on_round(step)))
            result = original(*arguments, **options)
            if chosen and self.when == "after":
                self.block()
            return result

        setattr(owner, name, wrapped)

    def _chosen(self, arguments):
        subject = str(arguments[0]) if arguments else ""
        if self.match not in subject or (self.avoid and self.avoid in subject):
            return False
        self.left -= 1
        return self.left == 0

    def block(self):
        """Say that the point is reached; return only when told to go on."""
        if self.marker.exists():
            return
        draft = self.marker.with_suffix(".draft")
        draft.write_text(str(os.getpid()))
        draft.rename(self.marker)
        go = self.marker.with_suffix(".go")
        while not go.exists():
            time.sleep(0.01)


def do(platform, pipeline, run, name, *arguments):
    """One piece of work, by the same services that assets, sensors and commands use."""
    from ml_control.services.arrivals import intake, requests
    from ml_control.services.data import dataset
    from ml_control.services.models import training
    from ml_control.services.releases import deployment

    if name == "take_in":
        taken = intake.take_in(platform, pipeline, settle=0.0)
        return [taken.seen, taken.recorded, taken.refused]
    if name == "wanted":
        found = requests.plan(platform, pipeline, in_flight=set(), limit=10).wanted
        return [[item.partition, item.attempt] for item in found]
    if name == "ingest":
        waiting = requests.partitions_with_work(platform, pipeline)
        waiting &= set(arguments) or waiting
        for partition in sorted(waiting):
            dataset.admit(platform, pipeline, partition, run)
            dataset.process(platform, pipeline, partition, run)
        return sorted(waiting)
    if name == "train":
        done = training.train(platform, pipeline, run, _quiet)
        return [done.model.version, done.verdict.passed, done.result.adopted]
    if name == "deploy":
        deployed = deployment.deploy(platform, pipeline, run, _quiet, *arguments)
        return [deployed.variant, deployed.proven.model.version, deployed.changed]
    if name == "serve":
        states = deployment.ensure_serving(platform, pipeline)
        return {variant: state.model_version for variant, state in states.items()}
    return release(platform, pipeline, run, name, *arguments)


def release(platform, pipeline, run, name, *arguments):
    """The same, of what comes after a model was proven."""
    from ml_control.services.releases import deployment

    if name == "decide":
        return decide(platform, pipeline)
    if name in STREAM:
        return STREAM[name](platform, pipeline, *arguments)
    if name == "predict":
        return deployment.predict(platform, pipeline, list(arguments))["model_version"]
    if name == "route":
        return deployment.route(platform, pipeline, run, _quiet).to_json()
    if name in ("advance", "promote", "rollback"):
        return roll(platform, pipeline, run, name, *arguments)
    if name in THROUGH:
        return THROUGH[name](*arguments)
    import logbook

    return getattr(logbook, name)(platform, pipeline, *arguments)


def decide(platform, pipeline):
    """Whether to train now, and why."""
    from ml_control.services.models.retraining import observe_and_decide

    _, decision = observe_and_decide(platform, pipeline, ingesting=0, training=False)
    return [decision.train, decision.because]


def roll(platform, pipeline, run, name, actor="", *version):
    """A rollout moved on, by the job or by a person."""
    from ml_control.services.releases import commands
    from ml_control.services.releases.rollout import advance

    if name == "advance":
        done = advance(platform, pipeline, run, _quiet)
        return [[action.kind for action in done.done], done.because]
    asked = {"version": version[0]} if version else {}
    told = getattr(commands, name)(platform, pipeline, actor=actor, because="a drill", **asked)
    return [told.changed, told.said]


def put(platform, pipeline, datas):
    """Put texts into the stream, with their places modulo 7 as keys."""
    from ml_control.ports import StreamRecord

    return platform.stream.put(
        [StreamRecord(pipeline.name, f"e{i % 7}", data.encode()) for i, data in enumerate(datas)]
    )


def consume(platform, pipeline, *limit):
    """Consume a batch of the stream: how many were read, done, failed and parked."""
    from ml_control.services.traffic.consumer import consume_batch

    found = consume_batch(platform, pipeline, *limit)
    return [found.read, found.done, found.failed, found.parked]


STREAM = {"put": put, "consume": consume}


def command(*arguments):
    """A command of ours."""
    from ml_control.cli.main import cli

    return cli.main(args=list(arguments), prog_name="ml-control", standalone_mode=False)


def dagster(*arguments):
    """A command of Dagster's."""
    from dagster._cli import cli

    return cli.main(args=list(arguments), prog_name="dagster", standalone_mode=False)


def tick(sensor_name):
    """One evaluation of a sensor, with the home's instance: the runs it asks for, or why not."""
    import dagster as dg

    from ml_control.definitions import defs
    from ml_control.resources import PlatformResource

    with (
        dg.DagsterInstance.get() as instance,
        dg.build_sensor_context(
            instance=instance, definitions=defs, resources={"ml_control": PlatformResource()}
        ) as context,
    ):
        found = defs.resolve_sensor_def(sensor_name).evaluate_tick(context)
    asked = [[request.partition_key, request.run_key] for request in found.run_requests or []]
    return asked, found.skip_message


THROUGH = {"cli": command, "dagster": dagster, "tick": tick}  # what opens a platform of its own


def share(platform):
    """Make commands and Dagster in this process use this platform, with the stop that it has."""
    import ml_control.platform
    from ml_control.resources import PlatformResource
    from ml_control.resources.instance import prepare_dagster_home

    ml_control.platform.open_platform = lambda _: platform
    PlatformResource.open = lambda _: platform
    prepare_dagster_home(platform.settings)


def with_kinesis(platform):
    """The platform with the stream of an account, where DRILL_KINESIS says which."""
    told = os.environ.get("DRILL_KINESIS")
    if not told:
        return platform
    from dataclasses import replace

    from ml_control.aws.client import Clients
    from ml_control.aws.stream import KinesisStream
    from ml_control.settings import AwsSettings

    clients = Clients(AwsSettings.model_validate_json(told))
    stream = KinesisStream(clients, platform.registry.tables, 0.0, lease_seconds=1.0)
    return replace(platform, stream=stream)


def _quiet(_):
    """Progress is of no interest here."""


def main(plan):
    """Do the plan; 0 when all of it was done, 1 after a refusal."""
    settings = load_settings()
    try:
        platform = with_kinesis(open_platform(settings))
        pipeline = read_folder(settings.pipelines).get(plan["pipeline"])
        platform.registry.tables.patience = plan.get("patience", 30.0)
        platform.registry.tables.close()  # opened again, with that patience
        if stop := plan.get("stop"):
            path = stop.pop("at")
            Stop(plan["marker"], **stop).install(platform, path)
        if limited := plan.get("limit"):
            limit(platform, limited["at"], limited["bytes"], limited.get("match", ""))
        if set(THROUGH) & {name for name, *_ in plan["work"]}:
            share(platform)
        done = [do(platform, pipeline, plan["run"], *item) for item in plan["work"]]
    except MlControlError as error:
        print(json.dumps({"error": error.to_dict()}), flush=True)
        return 1
    print(json.dumps({"done": done}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
