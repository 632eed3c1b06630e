"""What the AWS clients promise: our errors, no secrets, and an account to test against."""

from __future__ import annotations

import json

import pytest

from ml_control.aws.client import Clients, redacted, translated
from ml_control.errors import Conflict, InvalidSpec, PlatformFailed, Retryable
from ml_control.settings import AwsSettings, load_settings


def refused(code, status=400, words="no"):
    from botocore.exceptions import ClientError

    return ClientError(
        {"Error": {"Code": code, "Message": words}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "PutThing",
    )


@pytest.mark.parametrize(
    ("error", "kind", "next"),
    [
        (refused("ThrottlingException"), Retryable, "wait"),
        (refused("SomethingNew", 503), Retryable, "wait"),
        (refused("ExpiredTokenException"), Retryable, "renew the credentials"),
        (refused("ConditionalCheckFailedException"), Conflict, "read it again"),
        (refused("AccessDenied", 403), PlatformFailed, "allow PutThing"),
        (refused("UnrecognizedClientException"), PlatformFailed, "valid credentials"),
        (
            refused("InvalidSignatureException", 403, "Signature expired: x"),
            PlatformFailed,
            "clock",
        ),
        (refused("OverLimit", 403), Retryable, "wait"),
        (refused("KmsThrottled"), Retryable, "wait"),
        (refused("ResourceLimitExceeded"), PlatformFailed, "quota"),
        (refused("ValidationException", 400, "CapacityError: Unable to"), Retryable, "instance"),
        (refused("NoSuchBucket", 404), PlatformFailed, "names under [aws]"),
        (refused("ValidationException"), PlatformFailed, "correct what AWS refuses"),
    ],
)
def test_an_error_of_aws_becomes_one_of_ours(error, kind, next):
    """Each kind of refusal has its type, names the object, and says what to do."""
    with pytest.raises(kind) as caught, translated("the thing"):
        raise error

    assert "the thing" == caught.value.object
    assert next in caught.value.next
    assert "PutThing" == caught.value.detail["operation"]


def test_a_service_that_cannot_be_reached_is_retryable(account):
    """A connection that is refused says so, and that trying again may help."""
    urls = {"sqs": "http://127.0.0.1:9"}
    away = account.model_copy(update={"endpoint_urls": urls, "max_attempts": 1})
    with pytest.raises(Retryable), translated("queue"):
        Clients(away).client("sqs").list_queues()


def test_secrets_do_not_get_into_messages():
    """Access keys, session tokens and signatures are left out of what AWS said."""
    text = redacted(
        "AKIAIOSFODNN7EXAMPLE https://x/?X-Amz-Security-Token=abc%2F&X-Amz-Signature=0123abcd&y=1"
    )

    assert (
        "[redacted] https://x/?X-Amz-Security-Token=[redacted]&X-Amz-Signature=[redacted]&y=1"
        == (text)
    )


def test_without_a_region_the_setting_is_named(monkeypatch, tmp_path):
    """No region anywhere is refused before any request, with the setting's name."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(InvalidSpec) as caught:
        Clients(AwsSettings()).client("sqs")

    assert "setting aws.region" == caught.value.object


def test_settings_of_aws_come_from_the_environment(monkeypatch, tmp_path):
    """A field, a list and a table each have their variable; a wrong one is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ML_CONTROL_PLATFORM", "aws")
    monkeypatch.setenv("ML_CONTROL_AWS_REGION", "eu-west-1")
    monkeypatch.setenv("ML_CONTROL_AWS_SUBNETS", "subnet-1,subnet-2")
    monkeypatch.setenv("ML_CONTROL_AWS_BUCKETS", json.dumps({"raw": "mine"}))
    settings = load_settings().aws

    assert ("eu-west-1", ("subnet-1", "subnet-2")) == (settings.region, settings.subnets)
    assert ("mine", "ml-control-logs-dev") == (settings.bucket("raw"), settings.bucket("logs"))

    monkeypatch.setenv("ML_CONTROL_AWS_REGION", "nowhere")
    with pytest.raises(InvalidSpec) as caught:
        load_settings()

    assert "setting aws.region" == caught.value.object
    assert "ML_CONTROL_AWS_REGION" in caught.value.next


def test_an_account_has_every_part(account):
    """An object that is put comes to the arrivals queue through EventBridge."""
    clients = Clients(account)
    bucket = account.bucket("raw")
    put = clients.client("s3").put_object(Bucket=bucket, Key="flowers/a.csv", Body=b"a")
    got = clients.client("sqs").receive_message(QueueUrl=account.queue_url, WaitTimeSeconds=2)
    detail = json.loads(got["Messages"][0]["Body"])["detail"]

    assert (bucket, "flowers/a.csv") == (detail["bucket"]["name"], detail["object"]["key"])
    assert put["VersionId"] == detail["object"]["version-id"]
