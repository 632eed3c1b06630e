"""The audit of a partition that comes in blocks, and its newer checks."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.profile import profile
from ml_control.errors import InvalidSpec
from ml_control.services.data import suite_check
from ml_control.services.data.audit import CHECK_NAMES, Auditor, SuiteCheck, quality_digest
from ml_control.services.data.expectations import run_suite
from ml_control.services.data.suites import (
    EXPECTATION_TYPES,
    UNDECIDABLE,
    refuse_undecidable,
    validate_suite,
)
from ml_control.spec import PipelineSpec


def spec(**quality):
    return PipelineSpec.model_validate(
        {
            "name": "people",
            "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
            "columns": {
                "target": "y",
                "task": "binary",
                "positive": "yes",
                "features": [
                    {"name": "age", "type": "number"},
                    {"name": "job", "type": "category"},
                ],
            },
            "quality": quality,
        }
    )


def people(rows, seed=0, **changes):
    rng = np.random.default_rng(seed)
    columns = {
        "age": rng.normal(40, 10, rows),
        "job": rng.choice(["cook", "smith"], rows),
        "y": rng.choice(["yes", "no"], rows),
        **changes,
    }
    return pl.DataFrame(columns)


def audited(frame, pipeline, suite=None, reference=None, step=None):
    auditor = Auditor(pipeline, suite, reference)
    for start in range(0, frame.height, step or frame.height):
        auditor.add(frame[start : start + (step or frame.height)])
    outcomes = auditor.outcomes()
    assert tuple(one.name for one in outcomes) == CHECK_NAMES
    json.dumps([one.to_json() for one in outcomes], allow_nan=False)
    return {one.name: one for one in outcomes}


def expectation(kind, severity="critical", **kwargs):
    return {"type": kind, "kwargs": kwargs, "severity": severity}


def suite(*expectations):
    return {"name": "s", "expectations": list(expectations)}


BETWEEN = "expect_column_values_to_be_between"
ROWS = "expect_table_row_count_to_be_between"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(1, 150), st.integers(0, 3))
def test_blocks_give_the_outcomes_of_the_whole(rows, step, seed):
    """However a partition is cut into blocks, every check says the same."""
    frame = people(rows, seed, age=np.round(np.random.default_rng(seed).normal(size=rows)))
    reference = profile(people(300, 9), spec())

    assert audited(frame, spec(), None, reference) == audited(
        frame, spec(), None, reference, step=step
    )


def test_repeated_rows_are_bounded():
    """Above quality.max_duplicates the check fails and names both shares; at it, it passes."""
    frame = pl.concat([people(80), people(80).head(20)])

    found = audited(frame, spec(max_duplicates=0.19))["duplicates"]

    assert (False, 20, 0.2) == (found.passed, found.details["repeated"], found.details["share"])
    assert "(20 %), at most 19 % may" in found.reason
    assert audited(frame, spec(max_duplicates=0.2))["duplicates"].passed


@pytest.mark.parametrize("blocking", [True, False])
def test_a_leak_is_named_with_the_next_step(blocking):
    """The check names the column and what to do, and refuses only when it is blocking."""
    y = people(200)["y"]
    frame = people(200, job=np.where(y == "yes", "cook", "smith"))

    found = audited(frame, spec(leakage={"blocking": blocking}))["leakage"]

    assert (False, blocking) == (found.passed, found.refuses)
    assert "job (1)" in found.reason
    assert "columns.ignore" in found.reason
    assert 1 == found.details["best_score"]
    assert "| job | 1.0000 | GIVES IT AWAY |" in found.details["table"]


def test_drift_is_told_and_refuses_only_if_asked():
    """A moved column fails the check with its index; by default the partition is published."""
    reference = {**profile(people(2_000, 1), spec()), "model": "abc"}
    moved = people(500, age=np.random.default_rng(3).normal(60, 10, 500))

    shown = audited(moved, spec(), None, reference)["drift"]
    refused = audited(moved, spec(drift={"blocking": True}), None, reference)["drift"]
    bound = audited(moved, spec(drift={"max_psi": 99}), None, reference)["drift"]

    assert (False, False, True) == (shown.passed, shown.refuses, refused.refuses)
    assert ("abc", 1) == (shown.details["model"], shown.details["drifted"])
    assert shown.details["worst_psi"] == max(shown.details["psi"].values()) > 1
    assert "| age | " in shown.details["table"].splitlines()[2]
    assert bound.passed
    assert audited(people(500, 4), spec(), None, reference)["drift"].passed


def test_without_a_reference_there_is_nothing_to_compare():
    """No model yet passes; a reference that cannot be had does not."""
    assert "nothing to compare with" in audited(people(99), spec())["drift"].reason
    broken = audited(people(99), spec(), None, {"unavailable": "it is gone"})["drift"]

    assert (False, False) == (broken.passed, broken.refuses)
    assert "it is gone" in broken.reason


def test_the_schema_is_shown_as_a_table():
    """Missing and wrongly typed columns come first, with what was declared and found."""
    found = audited(people(9).drop("job").with_columns(pl.col("age").cast(pl.String)), spec())

    lines = found["schema"].details["table"].splitlines()
    assert "| age | number | String | type String where a number is declared |" == lines[2]
    assert "| job | category | - | there is no such column |" == lines[3]
    assert ["schema"] == [name for name, one in found.items() if not one.passed]


def test_severity_decides_who_refuses():
    """A failed warning is shown and refuses nothing, info is only told, critical refuses."""
    frame = people(50)
    low = {"column": "age", "max_value": 0}

    def outcome(*severities):
        check = SuiteCheck(suite(*(expectation(BETWEEN, s, **low) for s in severities)), name="p")
        check.add(frame)
        return check.outcome()

    warned, told, refused = outcome("warning"), outcome("info"), outcome("info", "critical")

    assert (False, False) == (warned.passed, warned.refuses)
    assert (True, False) == (told.passed, told.refuses)
    assert (False, True) == (refused.passed, refused.refuses)
    assert "[warning]" in warned.reason
    assert f"{BETWEEN}(age) [info]" in told.reason


def test_an_unknown_severity_is_refused():
    """A severity that Great Expectations does not have is found before any data arrives."""
    bad = suite(expectation(BETWEEN, "grave", column="age", max_value=1))

    with pytest.raises(InvalidSpec, match="severity 'grave' is none of critical, warning, info"):
        validate_suite(bad, ["age"])


def test_a_sample_says_so_and_decides_what_it_can(monkeypatch):
    """Above the limit the suite sees a sample: marked, row counts exact, uniqueness undecided."""
    monkeypatch.setattr(suite_check, "MOST_ROWS", 200)
    checks = suite(
        expectation(BETWEEN, column="age", min_value=-100, max_value=200),
        expectation(ROWS, min_value=1_000, max_value=1_000),
        expectation(ROWS, "info", min_value=1_001),
        expectation("expect_table_columns_to_match_set", column_set=["age", "job", "y", "pixels"]),
        expectation("expect_column_values_to_be_unique", "warning", column="age"),
    )
    pixels = pl.Series("pixels", [[1, 2]] * 1_000, dtype=pl.Array(pl.UInt8, 2))
    check = SuiteCheck(checks, name="p")
    for block in people(1_000).with_columns(pixels).iter_slices(300):
        check.add(block)

    found = check.outcome()
    each = found.details["expectations"]

    assert found.reason.startswith("on a sample of 200 of 1,000 rows: 2 of 5 expectations failed")
    assert (True, 200, 1_000) == tuple(
        found.details[name] for name in ("sampled", "sampled_rows", "rows")
    )
    assert [True, True, False, True, False] == [one["passed"] for one in each]
    assert "observed 1000" == each[1]["reason"]
    assert "cannot be decided from a sample (200 of 1,000 rows)" in each[4]["reason"]
    assert not found.refuses


def test_all_rows_decide_everything():
    """Below the limit nothing is undecidable, and nothing is marked as sampled."""
    unique = suite(expectation("expect_column_values_to_be_unique", column="age"))
    check = SuiteCheck(unique, name="p")
    check.add(people(30))

    assert check.outcome().passed
    assert "sampled" not in check.outcome().details
    assert run_suite(unique, people(30), name="p", rows=30)[0].passed


@pytest.mark.parametrize("kind", sorted(UNDECIDABLE))
def test_undecidable_expectations_are_refused_unless_shown_only(kind):
    """A critical one is refused with a way out; as a warning it may stay."""
    assert kind in EXPECTATION_TYPES

    with pytest.raises(InvalidSpec, match="cannot be decided from a sample") as refused:
        refuse_undecidable(suite(expectation(kind, column="age")))

    assert '"severity": "warning"' in refused.value.next
    refuse_undecidable(suite(expectation(kind, "warning", column="age")))


def test_every_bound_is_part_of_the_configuration():
    """Changing any setting of the checks asks for a new audit."""
    changed = [
        spec(),
        spec(max_duplicates=0.5),
        spec(drift={"max_psi": 0.3}),
        spec(drift={"blocking": True}),
        spec(leakage={"max_score": 0.99}),
        spec(leakage={"blocking": False}),
    ]

    assert len(changed) == len({quality_digest(one, None) for one in changed})
    assert quality_digest(spec(), None) == quality_digest(spec(expectations="other.json"), None)
