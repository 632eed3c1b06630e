"""Rollouts on a real instance: what the sensor asks for, what the jobs record, what people do."""

from __future__ import annotations

import json

import dagster as dg
import pytest
from click.testing import CliRunner

from ml_control.cli.main import cli
from ml_control.errors import Conflict, NotProven, PlatformFailed
from ml_control.ports import Item, Outcome, Prediction, Put
from ml_control.resources import PlatformResource
from ml_control.services.releases import commands
from ml_control.services.releases.deployment import deploy, route

P, LAST = "tumours", "2024-03-06"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
GATES = ("auc: {min: 0.95}", "auc: {min: 0.8}"), ("margin: 0.03", "margin: 0.3")


class Pipeline:
    """A home with a Dagster instance: ticks, runs and commands."""

    def __init__(self, home, instance):
        self.home, self.instance = home, instance
        self.platform = home.platform

    @property
    def rollout(self):
        return self.platform.registry.rollouts.get(P)

    @property
    def candidate(self):
        return self.platform.registry.models.candidate(P).version

    def tick(self):
        """(the run request or None, why there is none)."""
        definitions = self.home.definitions()
        with dg.build_sensor_context(
            instance=self.instance,
            definitions=definitions,
            resources={"ml_control": PlatformResource(home=str(self.home.path))},
        ) as context:
            found = definitions.resolve_sensor_def(f"{P}__rollout").evaluate_tick(context)
        requests = found.run_requests or []
        return (requests[0] if requests else None), found.skip_message

    def run(self, job):
        """Run a job in this process; gives the assets that it materialized."""
        done = (
            self.home.definitions()
            .resolve_job_def(job)
            .execute_in_process(instance=self.instance, run_config=QUIET)
        )
        assert done.success
        events = done.get_asset_materialization_events()
        return [event.asset_key.path[-1] for event in events]

    def in_flight(self, job):
        """A run that Dagster holds to be started."""
        return self.instance.create_run_for_job(
            self.home.definitions().resolve_job_def(job), status=dg.DagsterRunStatus.STARTED
        )

    def command(self, *arguments, status=0):
        """A command of the program; gives its JSON, or its error."""
        options = ["--home", str(self.home.path), "--pipelines", str(self.home.pipelines)]
        done = CliRunner().invoke(cli, [*options, *arguments, "--json"])
        assert status == done.exit_code, done.output
        return json.loads(done.stdout)

    def train_anew(self, day=LAST, rows=None):
        """Another day, and a model more."""
        self.home.land(day, rows=rows)
        self.home.publish(day)
        assert self.home.train().verdict.passed

    def log(self, count, outcome=None):
        """Log requests that the champion answered, with an outcome each."""
        state, log = self.rollout, self.platform.log
        for number in range(count):
            name = f"{state.id}-{outcome}-{number}"
            log.append([Prediction(
                pipeline=P, request_id=name, entity_id=name, rollout_id=state.id,
                assigned=state.live, challenger=False, share=state.share, served=state.live,
                model_version=state.champion, at=self.platform.registry.clock(), latency=0.01,
                rows=1, answers=b'[{"label": "benign", "score": 0.2}]',
            )])  # fmt: skip
            if outcome is not None:
                log.tell(P, name, [Outcome(0, outcome, self.platform.registry.clock())])


@pytest.fixture
def pipeline(trained, instance):
    """A home with a proven model that is deployed nowhere, and gates that small samples pass."""
    return Pipeline(trained, instance)


def with_rollout(home, text):
    """Add a ``rollout`` section to the pipeline file, and easy gates."""
    for old, new in GATES:
        home.edit(old, new)
    home.edit("  training:\n", f"  rollout: {text}\n  training:\n")
    assert home.train().verdict.passed


def test_a_proven_model_that_nobody_deployed_is_taken_up(pipeline):
    """The sensor asks for the rollout job, which deploys and promotes; each look says why."""
    request, _ = pipeline.tick()
    assert f"{P}__rollout" == request.job_name
    assert ("deploy", "variant a is idle") == (
        request.tags["ml_control/step"],
        request.tags["ml_control/because"],
    )

    assert ["ab_config"] == pipeline.run(f"{P}__rollout")

    assert (pipeline.candidate, {"a": 1.0}) == (pipeline.rollout.champion, pipeline.rollout.weights)
    assert (None, "not now, because the newest model is live") == pipeline.tick()
    assert [] == pipeline.run(f"{P}__rollout"), "nothing changed, nothing is materialized"


def test_a_new_model_waits_for_the_run_that_trains_and_a_killed_job_is_asked_for_again(
    pipeline, monkeypatch
):
    """The train run deploys its model itself; a rollout job that died unreported is not the last
    one, though it counted as no attempt: the next minute's request has a key of its own.
    """
    began = pipeline.platform.registry.clock()
    training = pipeline.in_flight(f"{P}__train")
    assert f"not now, because a run is in flight: {training.run_id}" == pipeline.tick()[1]
    pipeline.instance.report_run_failed(training)
    first, _ = pipeline.tick()
    killed = pipeline.in_flight(f"{P}__rollout")
    assert "a run is in flight" in pipeline.tick()[1]
    pipeline.instance.report_run_failed(killed)
    monkeypatch.setattr(pipeline.platform.registry, "clock", lambda: began + 120)

    second, _ = pipeline.tick()

    assert first.run_key != second.run_key
    with pipeline.platform.registry.leases.hold(P, "deploy", "somebody"):
        assert "not now, because somebody is deploying" == pipeline.tick()[1]


def test_a_third_model_waits_is_skipped_and_gated_again(pipeline):
    """Its train run succeeds with ``model`` alone; when the experiment ends it is gated anew."""
    home = pipeline.home
    with_rollout(home, "{strategy: ab_test, min_samples: 5}")
    pipeline.run(f"{P}__train")
    first = pipeline.rollout.champion
    pipeline.train_anew(rows=150)
    assert ["model", "endpoint", "ab_config"] == pipeline.run(f"{P}__train")
    second = pipeline.candidate
    assert ("experiment", 0.5, first) == (
        pipeline.rollout.phase,
        pipeline.rollout.share,
        pipeline.rollout.champion,
    )
    home.land(LAST)
    home.publish(LAST)

    assert ["model"] == pipeline.run(f"{P}__train")

    third = pipeline.candidate
    assert third not in (first, second)
    for work in (deploy, route):
        with pytest.raises(Conflict, match=r"rollout .* is in progress") as refused:
            work(pipeline.platform, home.pipeline(), "by hand", lambda _: None)
        assert pipeline.rollout.id == refused.value.detail["rollout"]
    assert "not now, because each arm needs 5 outcomes" in pipeline.tick()[1]
    refusal = pipeline.command("promote", P, "--version", third, "--because", "x", status=1)
    assert "Conflict" == refusal["error"]["kind"]

    pipeline.command("promote", P, "--because", "it is better", "--actor", "anna")
    request, _ = pipeline.tick()

    assert (f"{P}__train", "gate") == (request.job_name, request.tags["ml_control/step"])
    assert second == pipeline.rollout.champion
    pipeline.run(f"{P}__train")
    champions = {v.champion for v in pipeline.platform.registry.models.verdicts(P, third)}
    assert {first, second} == champions
    told = [(d.action, d.actor) for d in pipeline.platform.registry.history.decisions(P)]
    assert ("promoted", "anna") in told
    assert "released" in [action for action, _ in told]
    assert ("experiment", first) == (
        pipeline.rollout.phase,
        pipeline.rollout.previous.model_version,
    )


def test_a_model_waits_for_its_approval(pipeline):
    """Nothing is deployed and people are told; approved, it goes live; rejected, never."""
    home = pipeline.home
    home.edit("    champion: {margin: 0.03}", "    champion: {margin: 0.03}\n    approval: {manual: true}")  # noqa: E501  # fmt: skip

    assert ["model"] == pipeline.run(f"{P}__train")
    _, because = pipeline.tick()

    assert "waits for a person's approval" in because
    assert ["approval"] == [a.kind for a in pipeline.platform.registry.alerts.open(P)]
    assert {} == pipeline.rollout.variants
    for work in (deploy, route):
        with pytest.raises(NotProven, match="a person must approve it"):
            work(pipeline.platform, home.pipeline(), "by hand", lambda _: None)
    refusal = pipeline.command("promote", P, "--because", "hurry", status=1)
    assert "approve" in refusal["error"]["next"]
    answer = pipeline.command("approve", P, "--because", "the report is good", "--actor", "anna")
    assert ("approved", "anna") == (answer["state"], answer["actor"])
    refusal = pipeline.command("reject", P, "--because", "no", "--actor", "bert", status=1)
    assert "anna approved it already" in refusal["error"]["reason"]
    assert "deploy" == pipeline.tick()[0].tags["ml_control/step"]
    pipeline.run(f"{P}__rollout")
    assert pipeline.candidate == pipeline.rollout.champion
    assert [] == pipeline.platform.registry.alerts.open(P)


def test_an_approval_that_comes_too_late_is_refused(pipeline, monkeypatch):
    """After ``expires`` the model is not deployed any more; a clock set back changes nothing."""
    home, registry = pipeline.home, pipeline.platform.registry
    home.edit("    champion: {margin: 0.03}", "    champion: {margin: 0.03}\n    approval: {manual: true, expires: 1 h}")  # noqa: E501  # fmt: skip
    made = registry.models.verdicts(P)[0].at
    monkeypatch.setattr(registry, "clock", lambda: made - 3600)
    assert "waits for a person's approval" in pipeline.tick()[1]
    monkeypatch.setattr(registry, "clock", lambda: made + 3601)

    assert "nobody approved it in time" in pipeline.tick()[1]
    with pytest.raises(NotProven, match="in time"):
        commands.approve(pipeline.platform, home.pipeline(), None, actor="anna", because="at last")


def test_a_step_that_fails_is_tried_again_with_growing_waits(pipeline, monkeypatch):
    """Each attempt has a run key of its own, waits longer, and people are told after three."""
    platform, registry = pipeline.platform, pipeline.platform.registry
    began, keys, waits = registry.clock(), [], []

    def broken(*_, **__):
        raise PlatformFailed("endpoint", "no memory", "free some")

    now = {"at": began}
    monkeypatch.setattr(registry, "clock", lambda: now["at"])
    monkeypatch.setattr(registry.experiments, "_clock", lambda: now["at"])
    with monkeypatch.context() as patched:
        patched.setattr(type(platform.endpoints), "deploy", broken)
        for _ in range(3):
            request, _ = pipeline.tick()
            keys.append(request.run_key)
            with pytest.raises(PlatformFailed):
                pipeline.run(f"{P}__rollout")
            _, because = pipeline.tick()
            waits.append(because.rpartition("waiting ")[2])
            now["at"] += 3601
    pipeline.tick()

    assert (3, ["30 s", "60 s", "120 s"]) == (len(set(keys)), waits)
    assert ["rollout-failing"] == [a.kind for a in registry.alerts.open(P)]
    pipeline.run(f"{P}__rollout")
    pipeline.tick()
    assert [] == registry.alerts.open(P)
    assert pipeline.candidate == pipeline.rollout.champion


def test_outcomes_are_read_once_and_a_damaged_sum_halts(pipeline, monkeypatch):
    """An idle look reads no outcome however many there are, a rollout begins after them and reads
    each of its own once; when its sums are damaged it halts, and a person ends it.
    """
    home, platform = pipeline.home, pipeline.platform
    with_rollout(home, "{strategy: ab_test, min_samples: 2, shadow_requests: 0}")
    pipeline.run(f"{P}__train")
    pipeline.log(40, outcome="benign")
    read, log = [], type(platform.log)
    original = log.joined
    monkeypatch.setattr(log, "joined", lambda self, *a: read.append(original(self, *a)) or read[-1])
    pipeline.tick()
    assert [] == read
    assert platform.log.state(P).joined == platform.registry.experiments.cursor(P)[0] > 0
    pipeline.train_anew()
    pipeline.run(f"{P}__train")
    pipeline.log(7, outcome="malignant")

    for _ in range(3):
        pipeline.tick()

    assert 7 == sum(map(len, read))
    evidence, _ = platform.registry.experiments.evidence(P, pipeline.rollout.id)
    newest = platform.registry.experiments.cursor(P)[0]
    assert (7, newest) == (evidence.experiment["champion_samples"], evidence.offset)
    assert "continue" == evidence.judgement["decision"]
    damaged_evidence_halts(pipeline)


def damaged_evidence_halts(pipeline):
    """The record of the sums cannot be read: the weights stand, people are told, and decide."""
    weights, registry = pipeline.rollout.weights, pipeline.platform.registry
    item = registry.tables.get("ab-test-config", P, f"evidence#{pipeline.rollout.id}")
    body = {**item.body, "experiment": {"offset": "many"}}
    registry.tables.transact([Put("ab-test-config", Item(P, item.sk, body), None)])
    pipeline.in_flight(f"{P}__train")  # a training holds no safety back

    request, _ = pipeline.tick()
    assert "halt" == request.tags["ml_control/step"]
    assert ["ab_config"] == pipeline.run(f"{P}__rollout")

    assert ("halted", weights) == (pipeline.rollout.state, pipeline.rollout.weights)
    _, because = pipeline.tick()
    assert "a person resumes or decides" in because
    assert ["rollout-halted"] == [a.kind for a in registry.alerts.open(P)]
    refusal = pipeline.command("resume", P, "--because", "go", status=1)
    assert "Unknown" == refusal["error"]["kind"]
    done = pipeline.command("rollback", P, "--because", "to be safe")
    assert ("idle", {"a": 1.0, "b": 0.0}) == (
        done["rollout"]["state"],
        done["rollout"]["weights"],
    )
