"""Rollouts whose job dies at every step, whose people are many, and whose targets are gone."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter

import pytest
import yaml
from drilling import DAYS, NAME, Home

from ml_control.core.routing import to_challenger
from ml_control.ports import Outcome, Prediction
from ml_control.services.models.gatekeeper import require_once_proven
from ml_control.services.releases.deployment import answer_golden

SERVICE = "ml_control.services.releases.deployment"
CANARY = {
    "strategy": "canary",
    "canary": {"steps": [0.5, 1.0], "bake": "0 s"},
    "shadow_requests": 20,
    "keep_alive": "1 h",
}
WORK = [["advance"]]


def set_rollout(folder, rollout):
    """Write the ``rollout`` section of the pipeline file."""
    file = folder / NAME / "defs.yaml"
    document = yaml.safe_load(file.read_text())
    document["attributes"]["rollout"] = rollout
    file.write_text(yaml.safe_dump(document, sort_keys=False))


class Live:
    """A home whose challenger is rolled out, and the requests that its variants answer."""

    def __init__(self, home, table):
        self.home, self.sent = home, 0
        rows = csv.DictReader(io.StringIO(table.decode()))
        self.records = [{k: v for k, v in row.items() if k != "diagnosis"} for row in rows]

    @property
    def rollout(self):
        return self.home.registry.rollouts.get(NAME)

    def requests(self, count, failing=0, right=None):
        """Log so many requests, each of its own entity; ``right``: arms with right outcomes."""
        state = self.rollout
        other = state.challenger
        for _ in range(count):
            self.sent += 1
            entity = f"entity-{self.sent}"
            mine = bool(other) and to_challenger(state.id, entity, state.share)
            variant = other if mine else state.live
            failed = mine and failing > 0
            failing -= failed
            served = state.live if failed else variant
            record = self.records[self.sent % len(self.records)]
            one = Prediction(
                pipeline=NAME,
                request_id=f"request-{self.sent}",
                entity_id=entity,
                rollout_id=state.id,
                assigned=variant,
                challenger=mine,
                share=state.share,
                served=served,
                model_version=state.variants[served].model_version,
                at=self.home.registry.clock(),
                latency=0.004,
                rows=1,
                failed=failed,
                failure="it died" if failed else "",
                records=json.dumps([record]).encode(),
                answers=json.dumps([{"label": "malignant", "score": 0.75}]).encode(),
            )
            self.home.platform.log.append([one])
            if right is not None:
                arm = "challenger" if mine else "champion"
                truth = "malignant" if arm in right else "benign"
                told = [Outcome(0, truth, one.at)]
                assert ["joined"] == self.home.platform.log.tell(NAME, one.request_id, told)


@pytest.fixture
def live(tmp_path, served_template, tables, monkeypatch):
    """A home with a live model, two proven newer ones, 25 logged requests, and a canary."""
    pipelines = tmp_path / "pipelines"
    shutil.copytree(served_template.pipelines, pipelines)
    set_rollout(pipelines, CANARY)
    folder = tmp_path / "home"
    shutil.copytree(served_template.folder, folder)
    home = Home(folder, pipelines, served_template.puts)
    monkeypatch.setenv("ML_CONTROL_HOME", str(folder))
    home.do([["serve"]])
    found = Live(home, tables[DAYS[0]])
    found.requests(25)
    yield found
    home.end()


STEPS = [  # (call, before or after it, which time, then so many requests)
    ("endpoints.deploy", "before", 1, 0),  # decided, nothing done
    (f"{SERVICE}:answer_golden", "after", 1, 0),  # up and asked, not in the record
    ("registry.rollouts.write", "after", 1, 0),  # named, without traffic
    ("registry.rollouts.write", "before", 1, 0),  # about to begin
    ("registry.rollouts.write", "after", 1, 0),  # begun, nothing replayed
    ("registry.experiments.write_shadow", "before", 1, 0),  # replayed, not written
    ("registry.experiments.write_shadow", "after", 1, 0),  # replayed
    ("registry.rollouts.write", "before", 1, 0),  # about to give it half
    ("registry.rollouts.write", "after", 1, 0),  # it has half
    ("registry.experiments.put", "before", 1, 0),  # first counts, not written
    ("registry.experiments.put", "after", 1, 90),  # counted; then requests come
    ("registry.experiments.put", "before", 1, 0),  # they are counted, not written
    ("registry.rollouts.write", "before", 1, 0),  # about to give it all
    ("registry.rollouts.write", "after", 1, 0),  # it has all
    ("registry.experiments.put", "after", 1, 40),
    ("registry.rollouts.write", "before", 1, 0),  # about to promote
    ("registry.rollouts.write", "after", 1, 0),  # promoted
]


def test_a_rollout_survives_kills_at_every_step(live):
    """One job after another is killed, each a step further: no proven model is skipped, nothing
    unproven takes traffic, the champion answers, and the end is as without any kill.
    """
    home = live.home
    lasting, before = home.lasting(), live.rollout
    candidate = home.registry.models.candidate(NAME).version
    old = before.variants[before.live]
    proven = require_once_proven(home.platform, home.pipeline, old.model_version)

    for at, when, nth, requests in STEPS:
        home.released()
        home.stopped(WORK, at, when, nth=nth).kill()
        live.requests(requests)

        after = live.rollout
        assert after.champion in (old.model_version, candidate), (at, when)
        assert 1.0 == sum(after.weights.values())
        assert answer_golden(home.platform, old.endpoint, proven) > 0
        home.check_intact(lasting)

    home.do(WORK)
    ended = live.rollout
    assert (candidate, "idle", "promoted") == (ended.champion, ended.state, ended.ended)
    assert {"a": 0.0, "b": 1.0} == ended.weights
    assert (old, {"a"}) == (ended.previous, set(ended.losing_since))
    home.check_serving()
    actions = [d.action for d in home.registry.history.decisions(NAME) if d.actor == "victim"]
    kinds = ("deployed", "started", "shadowed", "traffic", "promoted")
    assert {**dict.fromkeys(kinds, 1), "traffic": 2} == Counter(actions)

    set_rollout(home.pipelines, {**CANARY, "keep_alive": "0 s"})
    home.stopped(WORK, "registry.rollouts.write", "after").kill()
    assert ["b"] == list(live.rollout.variants)
    assert 2 == len(home.servers())

    home.do(WORK)

    assert 1 == len(home.servers())
    home.check_serving()


def test_a_failing_challenger_is_rolled_back_once(live):
    """Half of its requests fail: it is taken out, told of, and not tried again."""
    home, first = live.home, live.rollout.champion
    home.do(WORK)
    candidate = home.registry.models.candidate(NAME).version
    home.do(WORK)
    live.requests(120, failing=30)

    ((done, because),) = home.do(WORK)

    assert ["roll_back"] == done
    assert "was rolled back and is not tried again" in because
    ended = live.rollout
    assert (first, "rolled_back") == (ended.champion, ended.ended)
    assert {"a": 1.0, "b": 0.0} == ended.weights
    assert (candidate,) == ended.rolled_back
    assert ["rolled-back"] == [a.kind for a in home.registry.alerts.open(NAME)]
    assert [[[], because]] == home.do(WORK)
    assert "NotProven" == home.refused([["promote", "anna", candidate]])["kind"]
    refused = home.refused([["rollback", "anna"]])
    assert "Conflict" == refused["kind"]
    assert "was rolled back already" in refused["reason"]


def test_two_people_promoting_at_once(live):
    """One promotes; the other gets Conflict, or finds it done; the record moves once."""
    home = live.home
    home.do(WORK)
    before, version = live.rollout, live.rollout.variants["b"].model_version
    both = [
        home.stopped([["promote", who]], "registry.leases.acquire", run=who)
        for who in ("anna", "bert")
    ]

    for process in both:
        process.go()
    answers = [process.answer() for process in both]

    changed = [a["done"][0][0] for a in answers if "done" in a]
    refused = [a["error"]["kind"] for a in answers if "error" in a]
    assert 1 == changed.count(True), answers
    assert ["Conflict"] * len(refused) == refused
    ended = live.rollout
    assert (before.version + 1, version) == (ended.version, ended.champion)
    promoted = [d for d in home.registry.history.decisions(NAME) if d.action == "promoted"]
    assert promoted[-1].actor in ("anna", "bert")
    assert "a drill" == promoted[-1].because
    home.check_serving()


def test_a_rollback_is_one_write_and_happens_once(live):
    """While the version before is still up it serves again after one write; twice is refused."""
    home = live.home
    home.do([["advance"], ["promote", "anna"]])
    before = live.rollout
    servers = {process.pid for process in home.servers()}

    home.do([["rollback", "bert"]])

    ended = live.rollout
    assert before.version + 1 == ended.version
    assert (before.previous.model_version, {"a": 1.0, "b": 0.0}) == (ended.champion, ended.weights)
    assert servers == {process.pid for process in home.servers()}
    refused = home.refused([["rollback", "carl"]])
    assert ("Conflict", True) == (refused["kind"], "rolled back already" in refused["reason"])
    assert ended == live.rollout
    home.check_serving()


def test_a_rollback_target_that_is_gone_is_deployed_again(live):
    """After its keep-alive the version before is put up from its proven bytes; without them it is
    refused, and what serves goes on.
    """
    home = live.home
    home.do([["advance"], ["promote", "anna"]])
    set_rollout(home.pipelines, {**CANARY, "keep_alive": "0 s"})
    home.do(WORK)
    retired = live.rollout
    assert (["b"], 1) == (list(retired.variants), len(home.servers()))
    prefix = home.registry.models.get(NAME, retired.previous.model_version).prefix
    golden = home.platform.lake.get(f"{prefix}/golden.json")
    home.platform.lake.delete(f"{prefix}/golden.json")

    refused = home.refused([["rollback", "bert"]])

    assert ("NotProven", retired) == (refused["kind"], live.rollout)
    home.platform.lake.put(f"{prefix}/golden.json", golden)
    set_rollout(home.pipelines, CANARY)
    home.do([["rollback", "bert"]])
    ended = live.rollout
    assert (retired.previous.model_version, "rolled_back") == (ended.champion, ended.ended)
    assert {"a": 1.0, "b": 0.0} == ended.weights
    home.check_serving()


def test_a_variant_killed_in_an_experiment_comes_back_and_evidence_decides(live):
    """Challenger and champion die and are brought back; outcomes then decide, and none is lost."""
    home = live.home
    set_rollout(
        home.pipelines,
        {"strategy": "ab_test", "min_samples": 30, "shadow_requests": 5, "alpha": 0.05},
    )
    home.do(WORK)
    assert ("experiment", 0.5) == (live.rollout.phase, live.rollout.share)
    for process in home.servers():
        process.kill()

    ((revived, _),) = home.do(WORK)
    live.requests(300, right={"challenger"})
    home.stopped(WORK, "registry.experiments.put", "after").kill()
    ((done, _),) = home.do(WORK)

    assert ["revive", "revive"] == revived
    assert ["promote"] == done
    assert live.rollout.variants["b"].model_version == live.rollout.champion
    evidence, _ = home.registry.experiments.evidence(NAME, promoted_id(home))
    state = evidence.experiment
    assert 300 == state["champion_samples"] + state["challenger_samples"]
    home.check_serving()


def promoted_id(home):
    return home.registry.rollouts.get(NAME).id
