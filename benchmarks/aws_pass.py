"""A whole pass (ingest, train, deploy, route, one prediction) on AWS beside the local platform.

Both in this process, in turn, by the services that assets and sensors call. Aside are, on either
side, the training job's own seconds (with the container's process that cuts the model and answers
the golden records, which locally is the job itself) and the start of the endpoint, and on AWS every
moment in which an emulator was at work on a request: a proxy before each notes from when to when,
and counts.
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from aws_home import Cloud
from driving import STEPS
from emulators import REGION, credentials, moto_url

from ml_control.aws.client import Clients
from ml_control.aws.metrics import CloudWatchMetrics
from ml_control.aws.training import outcome
from ml_control.core.pipeline import Pipeline
from ml_control.platform import Platform, open_platform
from ml_control.services.alerts import attend
from ml_control.services.arrivals.intake import take_in
from ml_control.services.arrivals.requests import plan
from ml_control.services.arrivals.sweep import sweep
from ml_control.services.authoring.pipelines import read_folder
from ml_control.services.models.measures import take_outcomes
from ml_control.services.models.retraining import keep, observe_and_decide, take_calls, tell
from ml_control.services.reading.emitting import emit_metrics
from ml_control.services.releases.deployment import predict
from ml_control.services.releases.rollout import due
from ml_control.settings import Settings
from ml_control.testing import fault_proxy
from ml_control.testing.fault_proxy import FaultProxy
from ml_control.testing.sagemaker import FakeSageMaker
from ml_control.testing.samples import write_tumours

ROOT = Path(__file__).parents[1]
NAME, REPEATS, GOAL = "tumours", 3, 1.2
DAYS = [(datetime.now(UTC).date() - timedelta(days=back)).isoformat() for back in (3, 2)]
Span = tuple[float, float]


class Watch:
    """From when to when something else than the control plane was at work."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def aside(self, start: float, end: float) -> float:
        """Seconds between two moments in which something else was at work, each counted once."""
        total, until = 0.0, start
        for began, ended in sorted(self.spans):
            begin, stop = max(began, until), min(ended, end)
            if stop > begin:
                total, until = total + stop - begin, stop
        return total


@contextmanager
def noting(watch: Watch) -> Iterator[None]:
    """Note each request from its first line to the end of its answer."""
    handler, began = fault_proxy._Handler, threading.local()  # noqa: SLF001 - it is timed
    parse, send = handler.parse_request, handler._send  # noqa: SLF001

    def parsed(self: Any) -> bool:
        began.at = time.perf_counter()
        return parse(self)

    def sent(self: Any, answer: Any) -> None:
        send(self, answer)
        watch.spans.append((began.at, time.perf_counter()))

    cut = outcome._cut  # noqa: SLF001

    def timed(*given: Any) -> Any:
        start = time.perf_counter()
        answer = cut(*given)
        watch.spans.append((start, time.perf_counter()))
        return answer

    with (
        mock.patch.object(outcome, "_cut", timed),
        mock.patch.object(handler, "parse_request", parsed),
        mock.patch.object(handler, "_send", sent),
    ):
        yield


class Pass:
    """One pass: what each step took in seconds, in all and without what is aside."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.spans: dict[str, Span] = {}
        self.whole: dict[str, float] = {}
        self.own: dict[str, float] = {}

    def end(self) -> Pass:
        """Reckon, once everything that was aside is known."""
        for name, (start, end) in self.spans.items():
            self.whole[name] = end - start
            self.own[name] = end - start - self.watch.aside(start, end)
        return self

    def step(self, name: str, work: Any) -> Any:
        """Do a step, and note what it took."""
        start = time.perf_counter()
        done = work()
        self.spans[name] = start, time.perf_counter()
        return done


def main() -> None:
    """Print both by step, the requests by service, and the ratio."""
    with tempfile.TemporaryDirectory() as folder, credentials(), ExitStack() as stack:
        root, watch = Path(folder), Watch()
        stack.enter_context(noting(watch))
        fake = stack.enter_context(
            FakeSageMaker(s3=moto_url(), home=root / "sagemaker", region=REGION, speed=5000.0)
        )
        proxies = [stack.enter_context(FaultProxy(url)) for url in (moto_url(), fake.url)]
        pipelines = _pipelines(root)
        files = write_tumours(root / "files", DAYS)
        passes: dict[str, list[Pass]] = {"local": [], "aws": []}
        for number in range(REPEATS + 1):
            here = _local(root / f"local-{number}", pipelines, files)
            there, requests, ticks = _aws(
                root / f"aws-{number}", pipelines, files, fake, proxies, watch
            )
            if number:  # the first of each imports
                passes["local"].append(here)
                passes["aws"].append(there)
    _print(passes, requests, ticks)


def _print(
    passes: dict[str, list[Pass]],
    requests: dict[str, Counter[str]],
    ticks: dict[str, Counter[str]],
) -> None:
    for side, each in passes.items():
        for name in each[0].whole:
            whole = statistics.median(one.whole[name] for one in each)
            own = statistics.median(one.own[name] for one in each)
            print(f"  {side:5} {name:8} {whole:6.2f} s, of it the control plane's {own:6.2f} s")
    own = {s: [sum(one.own.values()) for one in each] for s, each in passes.items()}
    for name, counts in requests.items():
        print(f"  requests of {name}: {_by_service(counts)}")
    whole: Counter[str] = sum(requests.values(), Counter())
    print(f"requests of a pass: {sum(whole.values())}: {_by_service(whole)}")
    for operation, count in whole.most_common(12):
        print(f"  {count:5} {operation}")
    for name, counts in ticks.items():
        print(f"requests of an idle tick, {name}: {sum(counts.values())}: {_by_service(counts)}")
    here, there = (statistics.median(own[side]) for side in ("local", "aws"))
    ratio = statistics.median(b / a for a, b in zip(own["local"], own["aws"], strict=True))
    print(
        f"aws {there:.2f} s, local {here:.2f} s, training and emulators aside: "
        f"ratio {ratio:.2f} (goal: at most {GOAL})"
    )


def _by_service(counts: Counter[str]) -> str:
    found: Counter[str] = Counter()
    for name, count in counts.items():
        found[name.partition(".")[0]] += count
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items())) or "none"


def _pipelines(root: Path) -> Path:
    text = (ROOT / "pipelines" / NAME / "defs.yaml").read_text()
    for old, new in {
        "2026-01-01": DAYS[0],
        "  format: csv": "  format: csv\n    quiet: 0 s",
        "    expectations: expectations.json\n": "",
        "auc: {min: 0.95}": "auc: {min: 0.8}",
    }.items():
        text = text.replace(old, new, 1)
    (root / "pipelines" / NAME).mkdir(parents=True)
    (root / "pipelines" / NAME / "defs.yaml").write_text(text)
    return root / "pipelines"


def _record(file: Path) -> dict[str, float]:
    with file.open(newline="") as stream:
        row = next(csv.DictReader(stream))
    return {name: float(value) for name, value in row.items() if name != "diagnosis"}


def _driven(done: Pass, platform: Platform, pipeline: Pipeline, file: Path) -> Iterator[str]:
    """Do a pass; gives the name of each step that is over."""
    for name, step in STEPS.items():
        done.step(name, lambda step=step: step(platform, pipeline, "run"))
        yield name
    answer = done.step("predict", lambda: predict(platform, pipeline, [_record(file)]))
    assert answer["model_version"] == platform.registry.rollouts.get(pipeline.name).champion
    yield "predict"


def _local(home: Path, pipelines: Path, files: list[Path]) -> Pass:
    watch = Watch()
    platform = open_platform(Settings(home=home, pipelines=pipelines))
    pipeline = read_folder(pipelines).get(NAME)
    for day, file in zip(DAYS, files, strict=True):
        target = platform.settings.landing / NAME / f"dt={day}" / file.name
        target.parent.mkdir(parents=True)
        target.write_bytes(file.read_bytes())
    trainer, endpoints = platform.trainer, platform.endpoints
    train, deploy = trainer.train, endpoints.deploy

    def trained(*given: Any) -> Any:
        start = time.perf_counter()
        result = train(*given)
        watch.spans.append((start, start + result.seconds))
        return result

    def deployed(*given: Any) -> Any:
        start = time.perf_counter()
        state = deploy(*given)
        watch.spans.append((start, time.perf_counter()))
        return state

    done = Pass(watch)
    with (
        mock.patch.object(trainer, "train", trained),
        mock.patch.object(endpoints, "deploy", deployed),
    ):
        for _ in _driven(done, platform, pipeline, files[0]):
            pass
    for name in endpoints.names():
        endpoints.stop(name)
    return done.end()


def _aws(
    root: Path,
    pipelines: Path,
    files: list[Path],
    fake: FakeSageMaker,
    proxies: list[FaultProxy],
    watch: Watch,
) -> tuple[Pass, dict[str, Counter[str]], dict[str, Counter[str]]]:
    cloud = Cloud(fake, root, pipelines, NAME)
    for day, file in zip(DAYS, files, strict=True):
        cloud.put(day, file.read_bytes())
    aws = cloud.through(*proxies)
    platform = open_platform(Settings(platform="aws", aws=aws, home=root, pipelines=pipelines))
    # The fake has the logs of jobs and endpoints, and takes no metrics.
    urls = {**aws.endpoint_urls, "logs": proxies[0].url}
    metrics = CloudWatchMetrics(Clients(aws.model_copy(update={"endpoint_urls": urls})))
    platform = replace(platform, metrics=metrics)
    pipeline = read_folder(pipelines).get(NAME)
    watch.spans.clear()
    done, requests = Pass(watch), {}
    _counted(proxies)
    ahead = time.perf_counter() - time.time()
    with _under_way(cloud, watch, ahead):
        for name in _driven(done, platform, pipeline, files[0]):
            requests[name] = _counted(proxies)
    done.end()
    sweep(platform, pipeline)  # a first pass is due
    emit_metrics(platform, pipeline)
    ticks = {}
    for name, tick in {"arrivals": _arrivals, "retraining": _retraining, "rollout": due}.items():
        tick(platform, pipeline)
        _counted(proxies)
        tick(platform, pipeline)
        ticks[name] = _counted(proxies)
    cloud.end()
    return done, requests, ticks


@contextmanager
def _under_way(cloud: Cloud, watch: Watch, ahead: float) -> Iterator[None]:
    """Note from when to when a job or an endpoint was under way, as SageMaker says it."""
    yield
    api = cloud.clients.client("sagemaker")
    for name in cloud.jobs():
        told = api.describe_training_job(TrainingJobName=name)
        span = told["CreationTime"], told["TrainingEndTime"]
        watch.spans.append((span[0].timestamp() + ahead, span[1].timestamp() + ahead))
    for name in cloud.endpoints():
        told = api.describe_endpoint(EndpointName=name)
        span = told["CreationTime"], told["LastModifiedTime"]
        watch.spans.append((span[0].timestamp() + ahead, span[1].timestamp() + ahead))


def _counted(proxies: list[FaultProxy]) -> Counter[str]:
    found: Counter[str] = Counter()
    for proxy in proxies:
        found += proxy.requests
        proxy.reset()
    return found


def _arrivals(platform: Platform, pipeline: Pipeline) -> None:
    take_in(platform, pipeline)
    sweep(platform, pipeline)
    plan(platform, pipeline, in_flight=set(), limit=4)
    attend(platform, pipeline.name)
    emit_metrics(platform, pipeline)


def _retraining(platform: Platform, pipeline: Pipeline) -> None:
    take_outcomes(platform, pipeline)
    take_calls(platform, pipeline)
    before = platform.registry.models.training(pipeline.name)
    seen, decision = observe_and_decide(platform, pipeline, ingesting=0, training=False)
    tell(platform, pipeline, seen, decision)
    assert keep(platform, before, seen, decision) is None


if __name__ == "__main__":
    main()
