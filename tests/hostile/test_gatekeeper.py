"""Records and files edited behind the product's back: each attack, and who is asked to serve it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg
import pytest

from ml_control.errors import Conflict, MlControlError, NotProven
from ml_control.ports import Item, Put
from ml_control.services.releases.deployment import deploy, ensure_serving, route
from ml_control.services.releases.reconcile import endpoint_name

MODELS, LEDGER, ROUTING = "model-metadata", "control-ledger", "ab-test-config"
CANDIDATE = "#candidate"


def quiet(_):
    """Where progress is told to nobody."""


def write(home, table, pk, sk, body):
    """Put a row into a table of the registry, past everything that guards it."""
    home.platform.registry.tables.transact([Put(table, Item(pk, sk, body), None)])


def candidate(home):
    return home.platform.registry.models.candidate("tumours")


def edit_model(home, **fields):
    """Change the candidate's own record."""
    body = candidate(home).to_json() | fields
    write(home, MODELS, "tumours", candidate(home).version, body)


def edit_verdict(home, change):
    """Change the candidate's verdict where it is kept."""
    version = candidate(home).version
    (verdict,) = home.platform.registry.models.verdicts("tumours", version)
    body = json.loads(json.dumps(verdict.to_json()))
    change(body)
    write(home, LEDGER, "verdict#tumours", f"{version}#{verdict.key}", body)


@pytest.fixture(scope="module")
def rivals_template(tmp_path_factory, trained_template):
    """A proven model, which is the candidate, and two more: one refused, one proven. Read only."""
    home = trained_template.copy_to(tmp_path_factory.mktemp("rivals"))
    good, settings = candidate(home).version, "num_round: 60, max_depth: 4"
    for key, other in (("good", ""), ("refused", "num_round: 1, max_depth: 1"),
                       ("second", "num_round: 60, max_depth: 3")):  # fmt: skip
        home.edit(settings, other or settings)
        trained = home.train() if other else None
        home.edit(other or settings, settings)
        (home.root / key).write_text(trained.model.version if trained else good, "utf-8")
        assert trained is None or trained.verdict.passed == (key == "second")
    point_to(home, good)
    home.platform.registry.tables.close()
    return home


@pytest.fixture
def rivals(tmp_path, monkeypatch, rivals_template):
    """A copy of it that ends with the test, servers and all."""
    home = rivals_template.copy_to(tmp_path)
    monkeypatch.setenv("ML_CONTROL_HOME", str(home.path))
    monkeypatch.setenv("ML_CONTROL_PIPELINES", str(home.pipelines))
    yield home
    home.stop_endpoints()


def version_of(home, which):
    """The version of the good, the refused or the second model."""
    return (home.root / which).read_text("utf-8")


def point_to(home, version):
    """Move the candidate by hand."""
    write(home, MODELS, "tumours", CANDIDATE, {"version": version})


def refused_model(home):
    """Move the candidate to the refused model; gives its record."""
    point_to(home, version_of(home, "refused"))
    return candidate(home)


def forged_yes(home):
    """The refused model's verdict says yes, with every gate on its side."""
    refused_model(home)

    def change(body):
        body["passed"] = True
        for gate in body["gates"]:
            gate["passed"] = True

    edit_verdict(home, change)


def yes_with_a_gate_that_says_no(home):
    edit_verdict(home, lambda body: body["gates"][0].update(passed=False))


def yes_of_a_refused_model(home):
    refused_model(home)
    edit_verdict(home, lambda body: body.update(passed=True))


def yes_without_gates(home):
    edit_verdict(home, lambda body: body.update(gates=[]))


def yes_about_other_bytes(home):
    edit_verdict(home, lambda body: body.update(model_version="0" * 64))


def yes_of_another_pipeline(home):
    edit_verdict(home, lambda body: body.update(pipeline="digits"))


def lacks_a_gate(home):
    edit_verdict(home, lambda body: body.update(gates=body["gates"][:-1]))


def another_name(home):
    """The proven model registered anew under a version that nobody judged."""
    write(home, MODELS, "tumours", "f" * 64, candidate(home).to_json() | {"version": "f" * 64})
    point_to(home, "f" * 64)


def record_of_another_version(home):
    edit_model(home, version="0" * 64)


def record_of_another_pipeline(home):
    edit_model(home, pipeline="digits")


def files_of_another_model(home):
    """The proven model's record points to the files of the refused one."""
    good = candidate(home)
    other = refused_model(home)
    write(home, MODELS, "tumours", good.version, good.to_json() | {"prefix": other.prefix})
    point_to(home, good.version)


def other_container(home):
    edit_model(home, container="1.7-1")


def candidate_moved_to_the_refused(home):
    """The pointer is moved by hand to a model that its gates refused."""
    point_to(home, version_of(home, "refused"))


def candidate_of_no_model(home):
    point_to(home, "0" * 64)


def swapped(file):
    """One of the candidate's files is another model's, whole and well-formed."""

    def attack(home):
        good, other = candidate(home), refused_model(home)
        lake = home.platform.lake
        content = lake.get(f"{other.prefix}/{file}")
        if content == lake.get(f"{good.prefix}/{file}"):  # one schema, one FeatureSpec
            content = content.replace(b"mean_radius", b"mean_texture", 1)
        lake.put(f"{good.prefix}/{file}", content)
        point_to(home, good.version)

    return attack


def champion_moved(home):
    rollout = home.platform.registry.rollouts.get("tumours")
    body = rollout.to_json() | {"champion": "e" * 64}
    write(home, ROUTING, "tumours", "rollout", body)


def gates_changed(home):
    home.edit("auc: {min: 0.95}", "auc: {min: 0.94}")


@dataclass(frozen=True)
class Row:
    """One attack, and the refusal that it must end in."""

    attack: Callable
    error: type[MlControlError]
    word: str


TABLE = [
    Row(forged_yes, NotProven, "history says gated: refused"),
    Row(yes_of_a_refused_model, NotProven, "contradicts itself"),
    Row(yes_with_a_gate_that_says_no, NotProven, "contradicts itself"),
    Row(yes_without_gates, NotProven, "contradicts itself"),
    Row(yes_about_other_bytes, NotProven, "contradicts itself"),
    Row(yes_of_another_pipeline, NotProven, "contradicts itself"),
    Row(lacks_a_gate, NotProven, "lacks the gates champion"),
    Row(another_name, NotProven, "not the ones that were judged"),
    Row(record_of_another_version, NotProven, "no such model version"),
    Row(record_of_another_pipeline, NotProven, "its record is about"),
    Row(files_of_another_model, NotProven, "not the ones that were judged"),
    Row(other_container, NotProven, "answer wrongly with status 200"),
    Row(candidate_moved_to_the_refused, NotProven, "metric:auc"),
    Row(candidate_of_no_model, NotProven, "no such model version"),
    Row(swapped("model.tar.gz"), NotProven, "not the ones that were judged"),
    Row(swapped("features.json"), NotProven, "not the ones that were judged"),
    Row(swapped("golden.json"), NotProven, "not the ones that were judged"),
    Row(champion_moved, Conflict, "the champion changed since its verdict"),
    Row(gates_changed, Conflict, "the gates changed since its verdict"),
]
NAMES = [row.attack.__name__ if row.attack.__name__ != "attack" else "" for row in TABLE]
NAMES = [name or f"swapped_{number}" for number, name in enumerate(NAMES)]


def by_endpoint_asset(home):
    """Materialise ``endpoint`` alone, as from Dagster's page."""
    with dg.DagsterInstance.ephemeral() as instance:
        home.definitions().resolve_job_def("tumours__train").execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(["tumours", "endpoint"])],
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


def outside(home):
    """Everything that a refusal must leave as it was: routing, its history, and the servers."""
    pipeline, registry = home.pipeline(), home.platform.registry
    states = [home.platform.endpoints.describe(endpoint_name(pipeline, v)) for v in ("a", "b")]
    return registry.rollouts.get("tumours"), list(registry.history.decisions("tumours")), states


@pytest.mark.parametrize("row", TABLE, ids=NAMES)
def test_an_edited_record_or_file_is_served_by_no_path(rivals, row):
    """``deploy``, ``route`` and the endpoint asset refuse it alike, with a next step, and neither
    routing nor history nor a server changes.
    """
    row.attack(rivals)
    before = outside(rivals)
    asked = [
        lambda: deploy(rivals.platform, rivals.pipeline(), "attack", quiet),
        lambda: route(rivals.platform, rivals.pipeline(), "attack", quiet),
        lambda: by_endpoint_asset(rivals),
    ]

    for ask in asked:
        with pytest.raises(row.error, match=row.word) as refused:
            ask()
        assert refused.value.next

    assert before == outside(rivals)
    assert ["Missing", "Missing"] == [state.state for state in before[2]]


def live_b(home, version):
    """Name a version in the Rollout by hand: variant b, with all traffic."""
    rollout = home.platform.registry.rollouts.get("tumours").to_json()
    entry = rollout["variants"]["a"] | {"model_version": version, "endpoint": "tumours-b"}
    rollout["variants"]["b"] = entry
    rollout |= {"champion": version, "weights": {"a": 0.0, "b": 1.0}}
    write(home, ROUTING, "tumours", "rollout", rollout)


def rolled_out_refused(home):
    live_b(home, refused_model(home).version)


def rolled_out_forged(home):
    forged_yes(home)
    live_b(home, candidate(home).version)


def rolled_out_unknown(home):
    live_b(home, "0" * 64)


def rolled_out_foreign_files(home):
    """The second model is proven; its golden records are replaced after it was named."""
    point_to(home, version_of(home, "second"))
    live_b(home, candidate(home).version)
    home.platform.lake.put(f"{candidate(home).prefix}/golden.json", b"{}")


def rolled_out_other_container(home):
    point_to(home, version_of(home, "second"))
    live_b(home, candidate(home).version)
    edit_model(home, container="1.7-1")


@pytest.mark.parametrize(
    ("attack", "word"),
    [
        (rolled_out_refused, "no passing verdict"),
        (rolled_out_forged, "history says gated: refused"),
        (rolled_out_unknown, "no such model version"),
        (rolled_out_foreign_files, "not the ones that were judged"),
        (rolled_out_other_container, "answer wrongly"),
    ],
)
def test_a_rollout_edited_by_hand_brings_nothing_unproven_up(rivals, attack, word):
    """What the Rollout names is proven again before it serves; the proven variant serves on."""
    deploy(rivals.platform, rivals.pipeline(), "setup", quiet)
    route(rivals.platform, rivals.pipeline(), "setup", quiet)
    endpoints = rivals.platform.endpoints
    before = endpoints.describe("tumours-a")
    attack(rivals)

    with pytest.raises(NotProven, match=word):
        ensure_serving(rivals.platform, rivals.pipeline())

    assert before == endpoints.describe("tumours-a")
    assert "InService" == before.state
    assert "InService" != endpoints.describe("tumours-b").state


def test_bytes_swapped_after_promotion_do_not_come_back(rivals):
    """A server that is gone is not started again from files that were never judged."""
    deploy(rivals.platform, rivals.pipeline(), "setup", quiet)
    route(rivals.platform, rivals.pipeline(), "setup", quiet)
    rivals.platform.endpoints.stop("tumours-a")
    routing = rivals.platform.registry.rollouts.get("tumours")
    swapped("features.json")(rivals)

    with pytest.raises(NotProven, match="not the ones that were judged"):
        ensure_serving(rivals.platform, rivals.pipeline())

    assert "InService" != rivals.platform.endpoints.describe("tumours-a").state
    assert routing == rivals.platform.registry.rollouts.get("tumours")


def test_a_record_under_a_wrong_name_is_no_proof_of_that_name(rivals):
    """Asked for by its own digest, a model whose record names another one is refused."""
    good = candidate(rivals).version
    edit_model(rivals, version="0" * 64)

    with pytest.raises(NotProven, match="its record is about tumours model 0000") as refused:
        deploy(rivals.platform, rivals.pipeline(), "attack", quiet, version=good)

    assert good[:12] in refused.value.object
