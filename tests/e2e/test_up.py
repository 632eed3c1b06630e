"""The product as a user sees it: ``up``, dropped files, answers over HTTP, the pages."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from ml_control.testing.samples import write_tumours

ROOT = Path(__file__).parents[2]
ASSETS = ("raw", "processed", "model", "endpoint", "ab_config")
DAYS = [(datetime.now(UTC).date() - timedelta(days=back)).isoformat() for back in (3, 2, 1)]


class Up:
    """A running ``ml-control up`` with its home."""

    def __init__(self, home: Path, pipelines: Path) -> None:
        self.home = home
        self.environment = {
            **os.environ,
            "ML_CONTROL_HOME": str(home),
            "ML_CONTROL_PIPELINES": str(pipelines),
            "ML_CONTROL_LEASE_SECONDS": "10",
        }
        self.log = home / "up.log"
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "ml_control", "up", "--port", "0"],
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )
        self.ui = self.await_(self._ui, "up says where the UI is")

    def _ui(self) -> str:
        assert self.process.poll() is None, self.log.read_text()
        lines = self.log.read_text().splitlines()
        said = [line for line in lines if line.startswith("up: Dagster at ")]
        return said[0].removeprefix("up: Dagster at ") if said else ""

    def await_(self, ask, what, seconds=180.0):
        """The first true answer; fails with the state of the home when there is none in time."""
        deadline = time.monotonic() + seconds
        while not (found := ask()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {seconds} s\n{self.status()}")
            time.sleep(0.5)
        return found

    def command(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "ml_control", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
            timeout=120,
        )

    def status(self):
        return json.loads(self.command("status", "tumours", "--json").stdout)["pipelines"][0]

    def live(self):
        found = self.status()["live"]
        return found if found and found["state"] == "InService" else None

    def end(self):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGINT)
            self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    home = tmp_path_factory.mktemp("up")
    pipelines = home / "pipelines"
    shutil.copytree(ROOT / "pipelines" / "tumours", pipelines / "tumours")
    file = pipelines / "tumours" / "defs.yaml"
    text = file.read_text().replace("2026-01-01", DAYS[0])  # four partitions until today
    # Files that are copied in one go need not be waited for.
    file.write_text(
        text.replace("  format: csv", "  format: csv\n    quiet: 0 s\n    settle: 0 s", 1)
    )
    running = Up(home, pipelines)
    staged = home / "staged"
    write_tumours(staged, DAYS)
    shutil.copytree(staged, home / "landing" / "tumours", dirs_exist_ok=True)
    yield running
    running.end()
    running.command("down")


def test_dropped_files_become_a_serving_endpoint(up):
    """Three files dropped into a folder end as a model in service, each event accounted for."""
    live = up.await_(up.live, "a model in service")

    state = up.status()
    assert state["verdict"]["passed"]
    assert {"pending": 0, "claimed": 0, "done": 3, "quarantined": 0} == {
        name: state["ledger"][name] for name in ("pending", "claimed", "done", "quarantined")
    }
    assert live["model_version"] == state["candidate"]


def test_predictions_over_http_and_command_agree(up):
    """The endpoint and the command give the same scores for the same records."""
    live = up.await_(up.live, "a model in service")
    source = up.home / "staged" / f"dt={DAYS[0]}" / "tumours.csv"
    with source.open(newline="") as stream:
        rows = list(csv.DictReader(stream))[:20]
    lines = [",".join(v for k, v in row.items() if k != "diagnosis") for row in rows]
    reply = httpx.post(
        f"{live['url']}/invocations",
        content="\n".join(lines),
        headers={"content-type": "text/csv", "accept": "application/json"},
    )
    records = [{k: float(v) for k, v in row.items() if k != "diagnosis"} for row in rows]
    asked = up.home / "records.json"
    asked.write_text(json.dumps({"records": records}))

    answer = json.loads(up.command("predict", "tumours", "--input", str(asked), "--json").stdout)

    scores = [item["score"] for item in reply.json()["predictions"]]
    assert pytest.approx(scores, abs=1e-6) == [p["score"] for p in answer["predictions"]]
    assert {"malignant", "benign"} >= {p["label"] for p in answer["predictions"]}


def test_the_gateway_is_part_of_up(up):
    """``up`` says where it is, ``predict`` goes through it and is logged, and it comes back."""
    up.await_(up.live, "a model in service")
    state = json.loads((up.home / "up.json").read_text())
    source = up.home / "staged" / f"dt={DAYS[0]}" / "tumours.csv"
    with source.open(newline="") as stream:
        row = next(csv.DictReader(stream))
    record = {k: float(v) for k, v in row.items() if k != "diagnosis"}
    asked = up.home / "one.json"
    asked.write_text(json.dumps([record]))

    over_http = httpx.post(f"{state['gateway']}/inference/tumours", json={"records": [record]})
    predicted = json.loads(up.command("predict", "tumours", "--input", str(asked), "--json").stdout)
    told = httpx.post(
        f"{state['gateway']}/outcomes/tumours",
        json={"request_id": predicted["request_id"], "outcomes": [row["diagnosis"]]},
    )
    os.kill(state["children"]["gateway"]["pid"], signal.SIGKILL)

    def healthy():
        try:
            return httpx.get(f"{state['gateway']}/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    assert f"gateway at {state['gateway']}" in up.log.read_text()
    assert 200 == over_http.status_code, over_http.text
    assert over_http.json()["predictions"] == predicted["predictions"]
    assert 1 == told.json()["joined"]
    up.await_(lambda: not healthy(), "the gateway is gone", 10)
    up.await_(healthy, "the gateway came back", 60)


@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs Debian's chromium and chromium-driver, which .ci/run installs",
)
def test_the_lineage_page_shows_assets_partitions_and_checks(up, tmp_path):
    """A person opening the UI sees the five assets, filled partitions and check states at once."""
    up.await_(up.live, "a model in service")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--window-size=1600,1000", f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.get(f"{up.ui}/locations/ml_control/asset-groups/tumours/lineage")

        def text():
            found = browser.execute_script("return document.body.innerText")
            wanted = (*ASSETS, "Materialized", "75% filled", "2 / 2 Passed", "7 / 7 Passed")
            return found if all(word in found for word in wanted) else None

        seen = up.await_(text, "the five assets on the page", 60)
        shot = Path(os.environ.get("ML_CONTROL_SCREENSHOT", tmp_path / "lineage.png"))
        browser.save_screenshot(str(shot))
    finally:
        browser.quit()

    assert "Welcome" not in seen
    assert "failed" not in seen.lower()
    assert shot.stat().st_size > 10_000


def test_a_killed_endpoint_server_comes_back(up):
    """A server that dies under ``up`` is brought back with the same model, unasked."""
    live = up.await_(up.live, "a model in service")
    state = json.loads(
        next((up.home / "endpoints" / live["endpoint"]).glob("*/server.json")).read_text()
    )

    os.kill(state["pid"], signal.SIGKILL)

    back = up.await_(
        lambda: found if (found := up.live()) and found["url"] != live["url"] else None,
        "the endpoint came back",
        60,
    )
    assert live["model_version"] == back["model_version"]


def test_ctrl_c_ends_everything(up):
    """After SIGINT no process of the home is left, and a second ``down`` finds nothing."""
    up.await_(up.live, "a model in service")
    home = str(up.home)

    up.end()

    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ML_CONTROL_HOME") == home:
                left.append(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    assert [] == left
