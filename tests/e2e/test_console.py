"""The console in a real browser: looked at, logged into, and decided with."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from gateways import RunningGateway, records

from ml_control.services.models.measures import take_outcomes
from ml_control.services.releases.deployment import ensure_serving
from ml_control.services.releases.rollout.evidence import gather, note_judgement

REQUESTS = 120

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs Debian's chromium and chromium-driver, which .ci/run installs",
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, two_variants_template: Any) -> Any:
    """A gateway before two variants, after requests whose outcomes are known."""
    home = two_variants_template.copy_to(tmp_path_factory.mktemp("console"))
    file = home.pipelines / "tumours" / "defs.yaml"
    text = file.read_text("utf-8")
    file.write_text(text + "  rollout: {strategy: ab_test, min_samples: 20}\n", "utf-8")
    ensure_serving(home.platform, home.pipeline())
    rollout = home.platform.registry.rollouts.get("tumours")
    running = RunningGateway(home)
    for i, record in enumerate(records(home, REQUESTS)):
        status, answer, _ = running.ask(
            "POST", "/inference/tumours", {"records": [record], "entity_id": f"person-{i}"}
        )
        assert 200 == status
        told = {
            "request_id": answer["request_id"],
            "outcomes": [answer["predictions"][0]["label"] if i % 5 else "benign"],
        }
        assert 200 == running.ask("POST", "/outcomes/tumours", told)[0]
        if i % 10 == 9:
            assert 10 == gather(home.platform, home.pipeline())
            note_judgement(home.platform, home.pipeline(), rollout)
    yield running
    running.end()
    home.stop_endpoints()


@pytest.fixture
def browser(tmp_path: Path) -> Any:
    """A headless Chromium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--window-size=1200,2200", f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    found = webdriver.Chrome(options=options, service=service)
    yield found
    found.quit()


def test_a_person_sees_the_experiment_and_decides(
    experiment: RunningGateway, browser: Any, tmp_path: Path
) -> None:
    """Split, confidence sequence, guardrails, gates and timeline on one page; a promotion from it
    stands in the Rollout under the token's name.
    """
    registry = experiment.home.platform.registry
    _, token = registry.tokens.create("ops", "manager")
    at = f"http://127.0.0.1:{experiment.port}"

    browser.get(f"{at}/console")
    browser.find_element("link text", "tumours").click()
    text = browser.find_element("tag name", "body").text

    assert "champion a 50%" in text
    assert "challenger b 50%" in text
    assert browser.find_element("css selector", "svg.chart .band").size["width"] > 300
    for word in ("error rate", "metric:auc", "Timeline", "deployed", "InService"):
        assert word in text
    browser.find_element("link text", "Log in to act").click()
    browser.find_element("id", "token").send_keys(token)
    browser.find_element("css selector", "main button").click()
    browser.get(f"{at}/console/tumours")
    shot = Path(os.environ.get("ML_CONTROL_CONSOLE_SCREENSHOT", tmp_path / "console.png"))
    browser.save_screenshot(str(shot))
    form = browser.find_element("css selector", 'form[action="/console/tumours/promote"]')
    form.find_element("name", "because").send_keys("we have seen enough")
    form.find_element("tag name", "button").click()
    after = browser.find_element("tag name", "body").text

    assert shot.stat().st_size > 20_000
    assert "champion b 100%" in after
    assert "we have seen enough" in after
    rollout = registry.rollouts.get("tumours")
    assert ("b", 1.0) == (rollout.live, rollout.weights["b"])
    last = next(d for d in registry.history.newest("tumours") if d.action == "promoted")
    assert ("token:ops", "we have seen enough") == (last.actor, last.because)


def test_metrics_tell_outcomes_requests_and_ticks(experiment: RunningGateway) -> None:
    """What was right live by variant, requests by variant, the experiment, and a sensor's age."""
    from prometheus_client.parser import text_string_to_metric_families

    home = experiment.home
    while take_outcomes(home.platform, home.pipeline()):
        pass
    (home.path / "ticks.json").write_text(json.dumps({"tumours__rollout": time.time() - 60}))
    with urlopen(f"http://127.0.0.1:{experiment.port}/metrics", timeout=10) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    told: dict[str, dict[tuple[str, ...], float]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found = tuple(sample.labels.get(name, "") for name in ("variant", "arm", "sensor", "part"))
        told.setdefault(sample.name, {})[found] = sample.value

    outcomes = told["ml_control_live_outcomes"]
    assert REQUESTS == sum(outcomes.values())
    assert {("a", "", "", ""), ("b", "", "", "")} == set(outcomes)
    assert all(0.5 < value <= 1 for value in told["ml_control_live_quality"].values())
    requests = told["ml_control_requests_total"]
    assert {("a", "champion", "", ""), ("b", "challenger", "", "")} == set(requests)
    assert REQUESTS == sum(requests.values())
    assert 59 < told["ml_control_sensor_tick_age_seconds"]["", "", "tumours__rollout", ""] < 120
    difference = told["ml_control_experiment_difference"]
    low, middle, high = (difference["", "", "", part] for part in ("low", "estimate", "high"))
    assert low < middle < high


def test_the_console_runs_no_script_and_fetches_nothing(
    experiment: RunningGateway, browser: Any
) -> None:
    """The browser reports no error, no blocked load and no request but the page itself."""
    browser.get(f"http://127.0.0.1:{experiment.port}/console/tumours")

    entries = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert [] == [name for name in entries if not name.endswith("/favicon.ico")]
    assert [] == [line for line in browser.get_log("browser") if "favicon" not in line["message"]]
