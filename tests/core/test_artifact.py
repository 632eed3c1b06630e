"""Archives: packing gives back what went in, and a model's own words are read without loading."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.artifact import (
    MODEL_FILE,
    Booster,
    compatible,
    inspect_archive,
    pack,
    sniff,
    unpack,
    version_of,
)
from ml_control.core.containers import CONTAINERS, container
from ml_control.errors import InvalidSpec, NotProven

NOW = container("3.2-0")


def json_model(features: int, version: list[int], padding: str = "") -> bytes:
    """A model file as XGBoost writes its head and tail, around any content."""
    learner = {
        "attributes": {"note": padding},
        "learner_model_param": {"num_class": "0", "num_feature": str(features)},
        "objective": {"name": "reg:squarederror"},
    }
    return json.dumps({"learner": learner, "version": version}).encode()


@pytest.fixture(scope="module")
def booster():
    """A small three-class model of XGBoost 3.2."""
    import numpy as np
    import xgboost

    rows = np.random.default_rng(7).normal(size=(200, 6))
    labels = (rows[:, 0] > 0).astype(int) + (rows[:, 1] > 1)
    parameters = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3}
    return xgboost.train(parameters, xgboost.DMatrix(rows, labels), 5)


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_sniff_reads_what_xgboost_saved(booster, form):
    """Format, saver, features, classes and objective are read from a real model's bytes."""
    actual = sniff(bytes(booster.save_raw(form)))

    assert Booster(form, (3, 2, 0), 6, 3, "multi:softprob", "gbtree", 5) == actual


def test_sniff_does_not_believe_names_inside_the_model():
    """Attributes and feature names that look like the version or the shape change nothing."""
    decoy = {"version": [1, 2, 3], "learner": {"objective": {"name": "decoy"}}}
    model = {"learner": {"attributes": decoy, "feature_names": ["version", "}", '"']}}
    model["learner"]["learner_model_param"] = {"num_feature": "4", "num_class": "0"}
    model["learner"]["objective"] = {"name": "reg:squarederror"}
    model["version"] = [3, 2, 0]

    actual = sniff(json.dumps(model).encode())

    assert Booster("json", (3, 2, 0), 4, 0, "reg:squarederror") == actual


def test_sniff_gives_no_version_when_the_model_says_two():
    """A repeated key with another value is no answer: readers differ on which one counts."""
    assert sniff(b'{"version":[3,2,0],"version":[1,7,4]}').version is None


@settings(max_examples=60, deadline=None)
@given(
    cut=st.integers(0, 20_000), junk=st.binary(max_size=8), form=st.sampled_from(["json", "ubj"])
)
def test_sniff_never_raises_on_damaged_models(booster, cut, junk, form):
    """Any damage gives an answer, and a model cut short never shows a version it lost."""
    model = bytes(booster.save_raw(form))
    cut = cut % len(model)

    assert sniff(model[:cut]).version is None
    assert sniff(model[:cut] + junk + model[cut + len(junk) :]).format in ("json", "ubj", "unknown")


@pytest.mark.parametrize("data", [b"{L" + b"[" * 100_000, b'{"a":' + b"[" * 100_000])
def test_sniff_bounds_nesting(data):
    """A file of nothing but opening brackets is unreadable, not a crash."""
    assert sniff(data).version is None


def test_sniff_reads_the_legacy_binary_head():
    """The old binary format tells its features and its saver's major and minor version."""
    model = b"binf" + struct.pack("<fIiiiII", 0.5, 9, 0, 0, 0, 1, 7) + bytes(64)

    assert Booster("binary", (1, 7, 0), 9, 0, None) == sniff(model)


def test_sniff_knows_the_oldest_models_by_their_objective():
    """Models of 1.0.0 and earlier have no magic; base64 hides nothing either."""
    import base64

    head = struct.pack("<fIiiiII", 0.5, 9, 0, 0, 0, 0, 0).ljust(136, b"\0")
    names = b"".join(struct.pack("<Q", len(n)) + n for n in (b"binary:logistic", b"dart"))

    assert Booster("binary", (1, 0, 0), 9, 0, "binary:logistic", "dart") == sniff(head + names)
    assert sniff(b"bs64" + base64.b64encode(head + names)).kind == "dart"


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_sniff_knows_a_pickle_of_every_protocol(booster, protocol):
    """A pickle is recognised by its content; the old protocols have no magic bytes."""
    import pickle

    assert sniff(pickle.dumps(booster, protocol)).format == "pickle"


TABLE = [
    # saved by, format, container, a word of the refusal (None: it may serve)
    ((3, 2, 0), "ubj", "3.2-0", None),
    ((3, 0, 5), "ubj", "3.0-5", None),
    ((1, 7, 4), "json", "1.7-1", None),
    ((1, 5, 2), "json", "1.5-1", None),
    ((1, 7, 4), "binary", "1.7-1", None),
    ((3, 1, 0), "ubj", "3.0-5", "answer wrongly"),
    ((3, 2, 0), "json", "1.7-1", "answer wrongly"),
    ((1, 6, 0), "json", "1.5-1", "does not load"),
    ((3, 2, 0), "ubj", "1.5-1", "does not load"),
    ((1, 7, 0), "binary", "3.2-0", "does not load"),
    ((1, 7, 6), "json", "1.7-1", "serves XGBoost 1.7.4"),
    ((3, 1, 3), "ubj", "3.2-0", "serves XGBoost 3.2.0"),
]


@pytest.mark.parametrize(("saved", "form", "tag", "word"), TABLE)
def test_compatible_follows_the_measured_table(saved, form, tag, word):
    """Each pair of saver and loader is accepted, or refused for the measured reason."""
    reason = compatible(saved, container(tag), format=form)

    assert (word is None) == (reason is None)
    assert (word or "") in (reason or "")


def test_a_dart_model_of_a_newer_xgboost_is_known_to_go_wrong():
    """DART saved by 3.4.1 is misread by 3.2.0; other boosters only break the exact version."""
    assert "misreads" in compatible((3, 4, 1), NOW, kind="dart", exact=False)
    assert compatible((3, 4, 1), NOW, kind="gbtree", exact=False) is None


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_rounds_behind_the_best_are_refused(booster, form):
    """A 3.x container answers with all rounds, so those after early stopping's best are named."""
    stopped = booster.copy()
    stopped.set_attr(best_iteration="2")

    findings = inspect_archive(pack(bytes(stopped.save_raw(form))), NOW).findings

    assert [finding.rule for finding in findings] == ["early_stopping"]
    stopped.set_attr(best_iteration="4")
    assert inspect_archive(pack(bytes(stopped.save_raw(form))), NOW).findings == []


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_exact_version_is_policy_and_the_rest_is_not(form):
    """Without the exact-version policy only combinations known to go wrong are refused."""
    assert compatible((3, 1, 3), NOW, format=form, exact=False) is None
    assert compatible((3, 1, 3), container("1.7-1"), format=form, exact=False) is not None


@settings(max_examples=40, deadline=None)
@given(model=st.binary(min_size=1, max_size=5_000))
def test_pack_is_deterministic_and_loses_nothing(model):
    """The same bytes give the same archive, and the archive gives the same bytes."""
    assert pack(model) == pack(bytes(bytearray(model)))
    assert model == inspect_archive(pack(model), NOW).model


@settings(max_examples=40, deadline=None)
@given(features=st.integers(1, 10**6), padding=st.text(max_size=300))
def test_unpack_gives_back_what_was_packed(features, padding):
    """A model of the container's version survives the round trip whatever text it holds."""
    model = json_model(features, [3, 2, 0], padding)

    assert model == unpack(pack(model), NOW)


def test_packed_archive_is_what_other_readers_expect(tmp_path):
    """The system's tar lists exactly one plain file, owned by nobody in particular."""
    (tmp_path / "model.tar.gz").write_bytes(pack(b"some model"))

    listed = subprocess.run(
        ["tar", "--numeric-owner", "--utc", "-tvzf", tmp_path / "model.tar.gz"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert listed == ["-rw-r--r--", "0/0", "10", "1970-01-01", "00:00", MODEL_FILE]


def test_pack_refuses_an_empty_model():
    """An empty file is not a model and gets no archive."""
    with pytest.raises(InvalidSpec, match="0 bytes"):
        pack(b"")


def test_unpack_names_the_first_finding_and_carries_all():
    """The error has the rule's words, and every finding as data."""
    model = json_model(3, [3, 2, 0])
    with pytest.raises(NotProven) as caught:
        unpack(pack(model), container("1.7-1"), name="mine.tar.gz")

    assert caught.value.object == "mine.tar.gz:xgboost-model"
    assert [finding["rule"] for finding in caught.value.to_dict()["findings"]] == ["version"]


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9), min_size=1, max_size=4))
def test_model_version_depends_on_names_and_digests_only(files):
    """Order does not matter; any other digest is another version."""
    name = next(iter(files))

    assert version_of(files) == version_of(dict(reversed(files.items())))
    assert version_of(files) != version_of({**files, name: files[name] + "x"})


def test_unknown_container_lists_the_known_ones():
    """A tag that we cannot prove for is refused with those that we can."""
    with pytest.raises(InvalidSpec, match=", ".join(CONTAINERS)):
        container("latest")


def test_inspection_needs_the_standard_library_only():
    """The isolated container environments can import it: no numpy, no pydantic."""
    program = "import sys, ml_control.core.artifact as a; print(sorted(sys.modules))"

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout

    assert "'ml_control.core.artifact'" in loaded
    assert [name for name in ("numpy", "pydantic", "xgboost") if f"'{name}'" in loaded] == []
