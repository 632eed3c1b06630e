"""Data checks: what a suite may be, what its outcomes say, what a partition must fulfil."""

from __future__ import annotations

import json
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.records import CheckOutcome
from ml_control.errors import InvalidSpec
from ml_control.services.data.audit import CHECK_NAMES, audit_frame, quality_digest
from ml_control.services.data.expectations import run_suite, validate_suite_deep
from ml_control.services.data.suites import (
    EXPECTATION_TYPES,
    validate_suite,
)
from ml_control.spec import PipelineSpec

IN_RANGE = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "age", "min_value": 0, "max_value": 120},
}
JOBS = {
    "type": "expect_column_values_to_be_in_set",
    "kwargs": {"column": "job", "value_set": ["cook", "smith"]},
}
COLUMNS = ["age", "job", "y"]


def suite(*expectations):
    return {"name": "s", "expectations": list(expectations)}


def spec(task="binary", min_rows=1, **columns):
    features = [{"name": "age", "type": "number"}, {"name": "job", "type": "category"}]
    columns = {"target": "y", "task": task, "features": features, **columns}
    if task == "binary":
        columns["positive"] = "yes"
    return PipelineSpec.model_validate(
        {
            "name": "people",
            "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
            "columns": columns,
            "quality": {"min_rows": min_rows},
        }
    )


def frame(**changes):
    columns = {
        "age": [31.0, 54.0, None, 200.0],
        "job": ["cook", "smith", None, "cook"],
        "y": ["yes", "no", "no", "yes"],
        "row_id": ["a-0", "a-1", "a-2", "a-3"],
        **changes,
    }
    return pl.DataFrame({name: values for name, values in columns.items() if values is not None})


def outcomes(data, pipeline=None, checks=None):
    found = audit_frame(data, pipeline or spec(), checks)
    assert tuple(outcome.name for outcome in found) == CHECK_NAMES
    return {outcome.name: outcome for outcome in found}


def failed(*args):
    return [name for name, outcome in outcomes(*args).items() if not outcome.passed]


# Great Expectations


def test_outcomes_come_in_the_suites_order_with_evidence():
    """Each expectation has one outcome, in order, with what was found and where it differs."""
    rows = {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 4}}

    found = run_suite(suite(rows, IN_RANGE, JOBS, IN_RANGE), frame(), name="p")

    assert [outcome.passed for outcome in found] == [True, False, True, False]
    assert found[0].details["observed"] == 4
    assert found[1].details["unexpected_count"] == 1
    assert found[1].details["unexpected"] == [200.0]
    assert "200" in found[1].reason
    assert found[1] == found[3]
    assert found[2].name == "expect_column_values_to_be_in_set(job)"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"type": "expect_nothing_at_all", "kwargs": {}}, "not found"),
        ({"type": "expect_column_max_to_be_between", "kwargs": {"column": "z"}}, ""),
        (
            {
                "type": "expect_column_values_to_not_be_null",
                "kwargs": {"column": "not there"},
            },
            "not there",
        ),
        ({"type": JOBS["type"], "kwargs": {"column": "job"}}, "value_set"),
        (
            {
                "type": "expect_column_values_to_match_regex",
                "kwargs": {"column": "job", "regex": "("},
            },
            "unterminated",
        ),
        (
            {
                "type": "expect_column_mean_to_be_between",
                "kwargs": {"column": "job", "min_value": 0},
            },
            "could not be evaluated",
        ),
    ],
)
def test_what_cannot_be_evaluated_fails_alone(bad, reason):
    """An expectation that cannot be evaluated fails with the reason; the others still count."""
    found = run_suite(suite(bad, JOBS), frame(), name="p")

    assert [outcome.passed for outcome in found] == [False, True]
    assert reason in found[0].reason
    assert found[0].reason.startswith("could not be evaluated")


def test_nothing_holds_on_no_rows():
    """On an empty frame no expectation passes for want of a counterexample."""
    assert not any(o.passed for o in run_suite(suite(IN_RANGE, JOBS), frame().clear(), name="p"))


def test_outcomes_survive_strict_json():
    """Details hold no NaN, no foreign type and no long text, whatever the data holds."""
    data = frame(age=[float("nan"), float("inf"), -5.0, None], job=["x" * 9999, "<b>", "", "é\n"])
    null = {"type": "expect_column_values_to_be_null", "kwargs": {"column": "age"}}

    found = run_suite(suite(IN_RANGE, JOBS, null), data, name="p")

    text = json.dumps([outcome.to_json() for outcome in found], allow_nan=False)
    assert len(text) < 5000
    assert found == [CheckOutcome.model_validate(one) for one in json.loads(text)]


def test_pandas_frames_are_taken_too():
    """The same suite gives the same outcomes on a pandas frame."""
    data = frame()
    pandas = pytest.importorskip("pandas").DataFrame(data.to_dict(as_series=False))

    expected = run_suite(suite(IN_RANGE, JOBS), data, name="p")
    assert expected == run_suite(suite(IN_RANGE, JOBS), pandas, name="p")


def test_running_is_silent_and_leaves_nothing(tmp_path):
    """A suite runs without writing to the working directory, to stdout or to stderr."""
    code = (
        "import sys, json, polars\n"
        "from ml_control.services.data.expectations import run_suite\n"
        "found = run_suite(json.loads(sys.argv[1]), polars.DataFrame({'age': [1.0]}), name='p')\n"
        "sys.exit(0 if found[0].passed else 3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(suite(IN_RANGE))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "a list 'expectations'"),
        ([IN_RANGE], "a list 'expectations'"),
        ({"expectations": {}}, "a list 'expectations'"),
        (suite(), "checks nothing"),
        (suite("text"), r"expectations\[0\].*'type'"),
        (suite(IN_RANGE, {"kwargs": {}}), r"expectations\[1\].*'type'"),
        (suite({"type": IN_RANGE["type"], "kwargs": []}), "'kwargs'"),
        (suite({**IN_RANGE, "column": "age"}), "unknown keys column"),
        (suite({"expectation_type": "x", "kwargs": {}}), "version 0"),
        (suite({**IN_RANGE, "type": "expect_column_values_to_be_betwen"}), "did you mean"),
        (suite({"type": "unexpected_rows_expectation"}), "not an expectation on a data frame"),
        (suite({**IN_RANGE, "kwargs": {"column": "agee"}}), "'agee'"),
        (
            suite(
                {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["q"]}}
            ),
            "'q'",
        ),
    ],
)
def test_malformed_suites_are_refused(bad, reason):
    """A suite of the wrong form is refused, naming the expectation by position."""
    with pytest.raises(InvalidSpec, match=reason):
        validate_suite(bad, COLUMNS)


def test_sound_suites_are_accepted():
    """What is valid passes both validations, also tables that list columns that should be."""
    listed = {
        "type": "expect_table_columns_to_match_set",
        "kwargs": {"column_set": ["age", "new"], "exact_match": False},
    }
    good = suite({**IN_RANGE, "meta": {"why": "ages"}, "severity": "critical"}, JOBS, listed)

    validate_suite(good, COLUMNS)
    validate_suite_deep(good)
    validate_suite_deep(good, COLUMNS)


def test_deep_validation_knows_arguments():
    """Arguments that the library refuses are found before any data arrives."""
    bad = suite(IN_RANGE, {**JOBS, "kwargs": {"column": "job", "values": []}})
    validate_suite(bad, COLUMNS)

    with pytest.raises(InvalidSpec, match=r"expectations\[1\].*value_set"):
        validate_suite_deep(bad, COLUMNS)


def test_known_types_are_the_librarys():
    """Every type that validation accepts exists in the installed Great Expectations."""
    run_suite(suite(IN_RANGE), frame(), name="p")  # registers them
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    assert set() == EXPECTATION_TYPES - set(list_registered_expectation_implementations())


def test_light_validation_imports_nothing_heavy():
    """Loading definitions pays for neither Great Expectations nor a data-frame library."""
    code = (
        "import sys, json\n"
        "from ml_control.services.data.audit import CHECK_NAMES\n"
        "from ml_control.services.data.expectations import validate_suite\n"
        "validate_suite(json.loads(sys.argv[1]), ['age'])\n"
        "print(sorted({'great_expectations', 'pandas', 'polars', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(suite(IN_RANGE))],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "[]\n"


# The audit


def test_a_sound_partition_passes_every_check():
    """Sound data passes all checks, with or without a suite."""
    assert failed(frame()) == []
    assert failed(frame(), spec(), suite(JOBS)) == []
    assert outcomes(frame())["duplicates"].details["repeated"] == 0


def test_failed_expectations_are_told_and_tabled():
    """The one outcome names what failed; its table has a row for each expectation, escaped."""
    data = frame(job=["cook", "a|b<script>", "cook", "cook"])

    found = outcomes(data, spec(), suite(IN_RANGE, JOBS))["expectations"]

    table = found.details["table"].splitlines()
    assert found.reason.startswith("2 of 2 expectations failed")
    assert len(table) == 4
    assert "a\\|b&lt;script>" in table[3]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (frame().clear(), ["row_count", "single_class"]),
        (frame().head(1), ["row_count", "single_class"]),
        (frame(y=["no"] * 4), ["single_class"]),
        (frame(y=[None, None, "yes", "no"]), ["schema"]),
        (frame(y=[1.5, 2.5, 1.5, 2.5]), ["schema"]),
        (frame(age=["1", "2", "3", "4"]), ["schema"]),
        (frame(job=[1.5, 2.5, 3.5, 4.5]), ["schema"]),
        (frame().drop("age"), ["schema"]),
        (frame().drop("y"), ["schema", "single_class"]),
        (frame(age=[1.0] * 4, job=["cook"] * 4, y=["no"] * 4), ["single_class", "duplicates"]),
    ],
    ids=[
        "empty",
        "too few",
        "one class",
        "no target",
        "fractional class",
        "text number",
        "number category",
        "no feature",
        "no target column",
        "identical",
    ],
)
def test_unsound_partitions_fail_the_right_checks(data, expected):
    """Each fault fails exactly the checks that are about it; the others still run."""
    assert expected == failed(data, spec(min_rows=2))


def test_unusable_suite_fails_its_check():
    """A suite that cannot be run fails the expectations, and nothing is raised."""
    assert failed(frame(), spec(), {"expectations": "none"}) == ["expectations"]


def test_regression_needs_finite_targets_and_no_classes():
    """A regression target must be a finite number in every row; it has no classes to count."""
    pipeline = spec("regression")

    assert failed(frame(y=[1.0, 1.0, 1.0, 1.0]), pipeline) == []
    assert failed(frame(y=[1.0, float("nan"), 2.0, 3.0]), pipeline) == ["schema"]
    assert failed(frame(y=["1", "2", "3", "4"]), pipeline) == ["schema"]


def test_images_are_compared_by_their_pixels():
    """Images of the same labels are duplicates only when their pixels are."""
    pipeline = PipelineSpec.model_validate(
        {
            "name": "digits",
            "source": {"format": "images", "partition": {"start": "2026-01-01"}},
            "columns": {"target": "label", "task": "multiclass"},
        }
    )
    pixels = pl.Series("pixels", [[0, 1], [0, 1], [3, 4]], dtype=pl.Array(pl.UInt8, 2))
    data = pl.DataFrame({"label": ["0", "0", "1"], "width": [8, 9, 9]}).with_columns(pixels)

    found = outcomes(data, pipeline)

    assert all(outcome.passed for outcome in found.values())
    assert found["duplicates"].details["repeated"] == 1
    rows = {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 3}}
    assert failed(data, pipeline, suite(rows)) == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([1.0, 2.0]), st.sampled_from(["yes", "no"])), min_size=1),
    st.integers(1, 5),
)
def test_counts_are_exact(rows, min_rows):
    """Row, class and duplicate counts are those of the rows, and decide as described."""
    ages, labels = zip(*rows, strict=True)
    data = pl.DataFrame({"age": ages, "job": ["cook"] * len(rows), "y": labels})

    found = outcomes(data, spec(min_rows=min_rows))

    assert len(rows) - len(set(rows)) == found["duplicates"].details["repeated"]
    assert (len(set(rows)) > 1 or len(rows) == 1) == found["duplicates"].passed
    assert (len(set(labels)) > 1) == found["single_class"].passed
    assert (len(rows) >= min_rows) == found["row_count"].passed
    assert found["schema"].passed


def test_quality_digest_names_the_configuration():
    """The digest changes with the suite, the bounds and the columns, and with nothing else."""
    base = quality_digest(spec(), suite(JOBS))
    others = [
        quality_digest(spec(), None),
        quality_digest(spec(), suite(IN_RANGE)),
        quality_digest(spec(min_rows=9), suite(JOBS)),
        quality_digest(spec(ignore=["id"]), suite(JOBS)),
    ]
    renamed = spec().model_copy(update={"owners": ("team:x",), "description": "people"})

    assert len({base, *others}) == 1 + len(others)
    assert base == quality_digest(renamed, json.loads(json.dumps(suite(JOBS))))
