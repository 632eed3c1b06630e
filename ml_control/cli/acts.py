"""The acts of the demo: each makes something happen for real and checks what came of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from ml_control.cli.observer import Observer, expect, until

DIGITS, TUMOURS = "digits", "tumours"
FEW = 80  # images of each of the first days: enough to pass the gates, not to be good
PER_DAY = 280
HELD_BACK = 500
CORRUPT = 40
LEAST_ACCURACY = 0.7


@dataclass
class Story:
    """What the acts share."""

    observer: Observer
    staging: Path
    held_back: list[tuple[str, bytes]] = field(default_factory=list)
    first_model: str = ""
    promoted_at: float = 0.0

    @property
    def better(self) -> Path:
        """The images that make a better model, by digit."""
        return self.staging / "better"

    @property
    def landing(self) -> Path:
        """Where the demo drops files."""
        return self.observer.home / "landing"

    def day(self, back: int) -> str:
        """A day before today (UTC)."""
        return (datetime.now(UTC).date() - timedelta(days=back)).isoformat()

    @property
    def good_days(self) -> list[str]:
        """The three days that land first."""
        return [self.day(5), self.day(4), self.day(3)]


def live(story: Story, pipeline: str, not_version: str = "") -> Callable[[], dict[str, Any] | None]:
    """Asks for a variant in service (with another model than the given one)."""

    def ask() -> dict[str, Any] | None:
        found: dict[str, Any] | None = story.observer.status(pipeline)["live"]
        if found and found["state"] == "InService" and found["model_version"] != not_version:
            return found
        return None

    return ask


def challenger(story: Story, not_version: str = "") -> Callable[[], dict[str, Any] | None]:
    """Asks for a challenger that takes traffic (with another model than the given one)."""

    def ask() -> dict[str, Any] | None:
        found = story.observer.status(DIGITS)
        rollout = found["rollout"]
        variant = rollout["challenger"]
        if rollout["state"] != "in_progress" or not variant or not rollout["weights"].get(variant):
            return None
        entry: dict[str, Any] = found["variants"][variant]
        return entry if entry["model_version"] != not_version else None

    return ask


def looked(story: Story, since: float) -> Callable[[], dict[str, Any] | None]:
    """Asks for a finished tick of the retraining sensor after a time."""

    def ask() -> dict[str, Any] | None:
        tick = story.observer.last_tick(f"{DIGITS}__retraining")
        return tick if tick["timestamp"] > since and tick["status"] != "STARTED" else None

    return ask


def data_lands(story: Story) -> str:
    """Three days of digit images land; a running daemon turns them into a serving model."""
    from ml_control.testing.samples import write_digits

    few, many = story.staging / "few", story.staging / "many"
    write_digits(few, story.good_days, FEW)
    parts = [f"{part}" for part in range(3)]
    story.held_back = write_digits(many, parts, PER_DAY, held_back=HELD_BACK, skip=3 * FEW)
    for part in parts:  # the better day: three times as many images at once
        shutil.copytree(many / f"dt={part}", story.better, dirs_exist_ok=True)
    for day in story.good_days:
        shutil.copytree(few / f"dt={day}", story.landing / DIGITS / f"dt={day}")
    began = time.monotonic()
    found = until(live(story, DIGITS), "a proven model in service", 180)
    story.first_model = found["model_version"]
    counts = story.observer.status(DIGITS)["ledger"]
    expect(counts["done"] == 3 * FEW, f"not every object is done: {counts}")
    trained = story.observer.runs(f"{DIGITS}__train")
    expect(len(trained) == 1, f"{len(trained)} training runs for one dataset")
    return (
        f"{3 * FEW} images -> model {story.first_model[:12]} in service on variant "
        f"{found['variant']} {time.monotonic() - began:.1f} s after landing"
    )


def predictions(story: Story) -> str:
    """Held-back images over HTTP: at least nine of ten are read right."""
    from ml_control.core.images import decode
    from ml_control.spec import ImageShape

    endpoint = until(live(story, DIGITS), "the endpoint in service", 30)
    shape = ImageShape(height=8, width=8)
    rows = [
        ",".join(str(v) for v in decode(png, shape, "held back").reshape(-1))
        for _, png in story.held_back
    ]
    reply = httpx.post(
        f"{endpoint['url']}/invocations",
        content="\n".join(rows),
        headers={"content-type": "text/csv", "accept": "application/json"},
        timeout=30,
    )
    expect(reply.status_code == 200, f"status {reply.status_code}: {reply.text[:200]}")
    scores = [item["score"] for item in reply.json()["predictions"]]
    labels = [str(row.index(max(row))) for row in scores]
    right = sum(a == b for a, (b, _) in zip(labels, story.held_back, strict=True))
    accuracy = right / len(labels)
    expect(accuracy >= LEAST_ACCURACY, f"accuracy {accuracy:.3f}")

    sample = story.staging / "sample"
    sample.mkdir()
    for i, (label, png) in enumerate(story.held_back[:5]):
        (sample / f"{i}-{label}.png").write_bytes(png)
    answer = story.observer.command("predict", DIGITS, "--input", str(sample), "--json").json()
    told = [item["label"] for item in answer["predictions"]]
    expect(told == labels[:5], f"the command said {told}, HTTP said {labels[:5]}")
    _land_shuffled(story)  # act 4 needs it trained by then
    return f"accuracy {accuracy:.3f} on {len(labels)} held-back images"


def _land_shuffled(story: Story) -> None:
    """Tumour data whose diagnoses were shuffled: well-formed, and useless."""
    import csv
    import random

    from ml_control.testing.samples import write_tumours

    folder = story.staging / TUMOURS
    for path in write_tumours(folder, story.good_days):
        with path.open(newline="") as stream:
            header, *rows = list(csv.reader(stream))
        column = header.index("diagnosis")
        labels = [row[column] for row in rows]
        random.Random(7).shuffle(labels)  # noqa: S311 - not a secret
        for row, label in zip(rows, labels, strict=True):
            row[column] = label
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([header, *rows])
    shutil.copytree(folder, story.landing / TUMOURS, dirs_exist_ok=True)


def corrupted_day(story: Story) -> str:
    """A day of damaged files: quarantined with reasons, and nothing else moves."""
    observer, day = story.observer, story.day(2)
    before = observer.status(DIGITS)
    trained = len(observer.runs(f"{DIGITS}__train"))
    whole = [png for _, png in story.held_back[:CORRUPT]]
    damage: list[Callable[[bytes], bytes]] = [
        lambda png: png[: len(png) // 2],
        lambda _: b"",
        lambda _: b"this is no picture",
        lambda png: png[:40] + bytes(b ^ 0x5A for b in png[40:]),
    ]
    for i, png in enumerate(whole):
        path = story.landing / DIGITS / f"dt={day}" / str(i % 10) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damage[i % len(damage)](png))

    def quarantined() -> list[dict[str, Any]] | None:
        found = observer.events(DIGITS, "--partition", day, "--state", "quarantined")
        return found if len(found) == CORRUPT else None

    found = until(quarantined, f"{CORRUPT} files in quarantine", 90)
    reasons = {event["reason"] for event in found}
    expect(all(reasons), "a quarantined file has no reason")
    until(lambda: observer.runs(f"{DIGITS}__ingest", "FAILURE"), "the run of that day refused", 60)
    since = time.time()
    tick = until(looked(story, since), "the retraining sensor looked again", 60)
    expect(len(observer.runs(f"{DIGITS}__train")) == trained, "it was trained on")
    after = observer.status(DIGITS)
    expect(before["live"] == after["live"], f"the endpoint moved: {after['live']}")
    example = min(reasons)
    return (
        f"{CORRUPT} of {CORRUPT} quarantined (e.g. {example!r}); retraining: {tick['skipReason']}"
    )


def by_hand(story: Story) -> str:
    """A model failed its gate; materialising only ``endpoint`` in the UI is refused."""
    observer = story.observer

    def refused() -> dict[str, Any] | None:
        verdict: dict[str, Any] | None = observer.status(TUMOURS)["verdict"]
        return verdict if verdict and not verdict["passed"] else None

    verdict = until(refused, "the shuffled data's model judged", 120)
    until(lambda: observer.runs(f"{TUMOURS}__train", "FAILURE"), "its run ended", 60)
    run = observer.launch(f"{TUMOURS}__train", [[TUMOURS, "endpoint"]])
    until(
        lambda: observer.run_status(run) in ("FAILURE", "SUCCESS", "CANCELED"), "the run ends", 60
    )
    words = observer.failure(run)
    expect(observer.run_status(run) == "FAILURE", "it was deployed")
    expect("NotProven" in words, f"refused with other words: {words[:300]}")
    expect(observer.status(TUMOURS)["live"] is None, "something is live")
    return f"gates {', '.join(verdict['failed'])} said no; materialising endpoint alone: NotProven"


def wrong_container(story: Story) -> str:
    """An archive saved by XGBoost 3.2 would answer wrongly in 1.7-1, and is refused for it."""
    model = story.observer.command("models", DIGITS, "--json").json()["models"][-1]
    folder = Path(model["report"]).parent
    arguments = [str(folder / "model.tar.gz"), "--golden", str(folder / "golden.json"), "--json"]
    own = story.observer.command("verify", *arguments, "--container", "3.2-0")
    expect(own.status == 0, f"refused for its own container: {own.out}{own.err}")
    other = story.observer.command("verify", *arguments, "--container", "1.7-1", timeout=300)
    expect(other.status == 1, "it was accepted for 1.7-1")
    report = other.json()
    golden = report["golden"]
    expect(golden and golden["mismatched_rows"], f"no wrong answer was measured: {report}")
    return (
        f"refused for 1.7-1: {golden['mismatched_rows']} of {golden['rows']} golden rows "
        f"differ, by up to {golden['max_abs_difference']:.3f}; passes for 3.2-0"
    )


def daemon_killed(story: Story) -> str:
    """The daemon is killed while data lands; afterwards every object's fate is known."""
    observer, day = story.observer, story.day(1)
    files = sorted(story.better.rglob("*.png"))
    keys_of = {file: f"dt={day}/{file.relative_to(story.better).as_posix()}" for file in files}

    def land() -> None:
        for file in files:
            target = story.landing / DIGITS / keys_of[file]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            time.sleep(0.005)

    thread = threading.Thread(target=land, name="landing")
    thread.start()
    time.sleep(0.005 * len(files) / 2)
    pid = json.loads((observer.home / "up.json").read_text())["children"]["daemon"]["pid"]
    os.kill(pid, signal.SIGKILL)
    expect(thread.is_alive(), "the data had landed before the daemon was killed")
    thread.join()

    def accounted() -> list[dict[str, Any]] | None:
        found = observer.events(DIGITS, "--partition", day)
        ended = [e for e in found if e["state"] in ("done", "quarantined", "parked")]
        return found if len(ended) == len(files) else None

    found = until(accounted, f"a fate for each of {len(files)} objects", 120)
    keys = {event["key"] for event in found}
    put = {f"{DIGITS}/{key}" for key in keys_of.values()}
    expect(keys == put, f"{len(put - keys)} objects are missing, {len(keys - put)} are extra")
    expect({e["state"] for e in found} == {"done"}, "an object was not taken in")
    now = until(challenger(story), "a model with the new day as challenger", 120)
    return (
        f"daemon {pid} killed in mid-landing; {len(files)} of {len(files)} objects done; "
        f"model {now['model_version'][:12]} challenges on variant {now['variant']}"
    )


def backfill_once(story: Story) -> str:
    """Every partition is re-materialised; that leads to one training."""
    observer = story.observer
    job = f"{DIGITS}__train"
    until(lambda: not observer.runs(job, "STARTED", "STARTING"), "no training under way", 60)
    before = {run["runId"] for run in observer.runs(job)}
    ingested = len(observer.runs(f"{DIGITS}__ingest", "SUCCESS"))
    answer = observer.command("backfill", DIGITS, "--from", story.good_days[0], timeout=180)
    only = f"error: NotProven: {DIGITS} partition {story.day(2)}: failed its data checks"
    expect(
        answer.status == 1 and answer.err.count("NotProven") == 1 and only in answer.err,
        f"backfill refused something else than the corrupted day: {answer.out}{answer.err}",
    )
    since = time.time()
    until(looked(story, since), "the retraining sensor looked again", 60)
    fresh = [run for run in observer.runs(job) if run["runId"] not in before]
    again = len(observer.runs(f"{DIGITS}__ingest", "SUCCESS")) - ingested
    expect(len(fresh) == 1, f"{len(fresh)} trainings")
    expect(fresh[0]["status"] == "SUCCESS", f"the training ended {fresh[0]['status']}")
    return f"{again} partitions published again, {len(fresh)} training"


def where_to_look(story: Story) -> str:
    """What is live, why, and where a person sees it."""
    observer = story.observer
    found = observer.status(DIGITS)
    chain = observer.command("why", DIGITS)
    expect(chain.status == 0 and "promoted" in chain.out, f"why failed: {chain.err}")
    checked = observer.command("history", DIGITS, "--verify", "--json")
    expect(checked.status == 0, f"the history does not verify: {checked.err}")
    report = Path(found["report"])
    expect(report.is_file(), "there is no report")
    page = f"{observer.ui}/locations/ml_control/asset-groups/{DIGITS}/lineage"
    expect(httpx.get(page, timeout=10).status_code == 200, "the UI does not answer")
    console = f"{observer.gateway}/console/{DIGITS}"
    expect(httpx.get(console, timeout=10).status_code == 200, "the console does not answer")
    return (
        f"UI {page}\nconsole {console}\nreport {report}\nlive {found['live']['url']} model "
        f"{found['live']['model_version'][:12]}\n{chain.out.strip()}"
    )
