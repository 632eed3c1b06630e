"""An account on an emulator with everything that ``platform: aws`` works on.

The real ones are made by the stacks; this makes the same parts, with the same names, where an
emulator such as moto answers.
"""

from __future__ import annotations

import json
from typing import Any

from ml_control.aws.client import Clients
from ml_control.aws.schema import EXPIRES, KEYS
from ml_control.lake import AREAS
from ml_control.settings import AwsSettings

VISIBILITY_SECONDS = 30
RECEIVES = 5  # before a message goes to the dead-letter queue
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


def make_account(settings: AwsSettings, *, shards: int = 2) -> AwsSettings:
    """Make buckets, tables, queues, rules, stream, topic and role; the settings with their names.

    Objects put into the raw bucket come to the arrivals queue through EventBridge, and so does
    every event of the bus with source ``ml-control.schedule``. Raises botocore's errors.
    """
    clients = Clients(settings)
    make_buckets(clients)
    make_tables(clients)
    queue, dead = _queues(clients)
    kinesis = clients.client("kinesis")
    kinesis.create_stream(StreamName=settings.stream_name, ShardCount=shards)
    kinesis.get_waiter("stream_exists").wait(
        StreamName=settings.stream_name, WaiterConfig={"Delay": 1}
    )
    topic = clients.client("sns").create_topic(Name=settings.name("alerts"))["TopicArn"]
    role = clients.client("iam").create_role(
        RoleName=settings.name("sagemaker"), AssumeRolePolicyDocument=json.dumps(_TRUST)
    )
    return settings.model_copy(
        update={
            "queue_url": queue,
            "dead_letter_url": dead,
            "stream": settings.stream_name,
            "topic_arn": topic,
            "role_arn": role["Role"]["Arn"],
        }
    )


def make_arrivals(settings: AwsSettings) -> AwsSettings:
    """Make only buckets, tables, queues and the rules between them; the settings with their names.

    Raises botocore's errors.
    """
    clients = Clients(settings)
    make_buckets(clients)
    make_tables(clients)
    queue, dead = _queues(clients)
    return settings.model_copy(update={"queue_url": queue, "dead_letter_url": dead})


def make_buckets(clients: Clients) -> None:
    """Make the lake's buckets, with versions; the raw one tells EventBridge of what is put."""
    s3, settings = clients.client("s3"), clients.settings
    for area in AREAS:
        bucket = settings.bucket(area)
        where = {"LocationConstraint": clients.region}
        more = {} if clients.region == "us-east-1" else {"CreateBucketConfiguration": where}
        s3.create_bucket(Bucket=bucket, **more)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(
        Bucket=settings.bucket("raw"), NotificationConfiguration={"EventBridgeConfiguration": {}}
    )


def make_tables(clients: Clients) -> None:
    """Make the registry's tables alone."""
    dynamodb, settings = clients.client("dynamodb"), clients.settings
    for table, keys in KEYS.items():
        name = settings.table(table)
        dynamodb.create_table(
            TableName=name,
            KeySchema=[
                {"AttributeName": key, "KeyType": kind}
                for key, kind in zip(keys, ("HASH", "RANGE"), strict=True)
            ],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            BillingMode="PAY_PER_REQUEST",
        )
        dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    dynamodb.update_time_to_live(
        TableName=settings.table("control-ledger"),
        TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES},
    )


def _queues(clients: Clients) -> tuple[str, str]:
    """The arrivals queue and its dead-letter queue, with the rules that fill the first."""
    sqs, settings = clients.client("sqs"), clients.settings
    dead = sqs.create_queue(QueueName=settings.name("arrivals-dead"))["QueueUrl"]
    attributes = _attributes(sqs, dead)
    redrive = {"deadLetterTargetArn": attributes["QueueArn"], "maxReceiveCount": RECEIVES}
    queue = sqs.create_queue(
        QueueName=settings.name("arrivals"),
        Attributes={
            "VisibilityTimeout": str(VISIBILITY_SECONDS),
            "RedrivePolicy": json.dumps(redrive),
        },
    )["QueueUrl"]
    arn = allow_senders(sqs, queue)
    patterns = {
        "arrivals": {
            "source": ["aws.s3"],
            "detail-type": ["Object Created"],
            "detail": {"bucket": {"name": [settings.bucket("raw")]}},
        },
        "schedule": {"source": ["ml-control.schedule"]},
    }
    events = clients.client("events")
    for part, pattern in patterns.items():
        rule = settings.name(part)
        events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    return queue, dead


def allow_senders(sqs: Any, queue: str) -> str:
    """Let EventBridge, buckets and topics send to a queue, as AWS wants it said; its ARN."""
    arn = _attributes(sqs, queue)["QueueArn"]
    senders = [f"{service}.amazonaws.com" for service in ("events", "s3", "sns")]
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": senders},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    return arn


def _attributes(sqs: Any, url: str) -> dict[str, str]:
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    attributes: dict[str, str] = found["Attributes"]
    return attributes
