"""What training jobs are called."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from ml_control.aws.training.claims import is_name
from ml_control.services.models.training import job_name
from ml_control.spec.base import NAME


def named(pipeline):
    """The name of one and the same job in a pipeline."""
    training = SimpleNamespace(container="3.2-0")
    told = SimpleNamespace(
        name=pipeline, transform_digest="t", spec=SimpleNamespace(training=training)
    )
    return job_name(told, SimpleNamespace(digest="d"), SimpleNamespace(digest="f"), {})


@given(st.from_regex(NAME, fullmatch=True))
def test_every_pipeline_can_name_its_jobs(pipeline):
    """Also the longest names that a pipeline may have give names that SageMaker takes."""

    assert is_name(named(pipeline))


def test_long_names_that_begin_alike_are_told_apart():
    """The cut end of a pipeline's name is in a digest."""
    assert named("a" * 47 + "b") != named("a" * 47 + "c")
    assert named("income").startswith("income-")
