"""Where a person is told to put files."""

from __future__ import annotations

from pathlib import Path

from ml_control.settings import AwsSettings, Settings


def test_objects_are_put_where_the_platform_takes_them_in():
    """A folder of this machine, or an address in the raw bucket, by its own name if it has one."""
    here = Settings(home=Path("/h"))
    cloud = Settings(home=Path("/h"), platform="aws", aws=AwsSettings(buckets={"raw": "mine"}))
    usual = cloud.model_copy(update={"aws": AwsSettings()})

    assert "/h/landing/income" == here.door("income")
    assert "s3://mine/income" == cloud.door("income")
    assert "s3://ml-control-raw-dev/income" == usual.door("income")
