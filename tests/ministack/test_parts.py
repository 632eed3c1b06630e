"""What ``platform: aws`` builds on, as the second emulator does it: same account, same answers."""

from __future__ import annotations

import json
import time

import pytest

from ml_control.aws.client import translate
from ml_control.aws.schema import KEYS
from ml_control.errors import Conflict
from ml_control.testing.account import allow_senders

PATIENCE = 20.0


def received(sqs, queue, count=1):
    """Bodies of this many messages, deleted; whatever comes until then is waited for."""
    found, deadline = [], time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < deadline, found
        told = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in told.get("Messages", []):
            found.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_a_put_comes_to_the_queue_through_eventbridge(account, clients):
    """One event for each version, with bucket, key, size and ``etag``; unlike AWS's it does not
    name the version.
    """
    s3, bucket = clients.client("s3"), account.bucket("raw")
    key = "shop/dt=2026-01-01/a b+ü.csv"
    versions = [s3.put_object(Bucket=bucket, Key=key, Body=body) for body in (b"1", b"22")]
    s3.put_object(Bucket=account.bucket("logs"), Key="other", Body=b"x")
    details = [one["detail"] for one in received(clients.client("sqs"), account.queue_url, 2)]

    assert {bucket} == {detail["bucket"]["name"] for detail in details}
    assert {key} == {detail["object"]["key"] for detail in details}
    assert [1, 2] == sorted(detail["object"]["size"] for detail in details)
    assert {put["ETag"].strip('"') for put in versions} == {
        detail["object"]["etag"].strip('"') for detail in details
    }


def test_a_put_comes_straight_to_a_queue(account, clients):
    """Also without EventBridge: a record for each put."""
    s3, sqs, bucket = clients.client("s3"), clients.client("sqs"), account.bucket("processed")
    queue = sqs.create_queue(QueueName=account.name("direct"))["QueueUrl"]
    configuration = {"QueueArn": allow_senders(sqs, queue), "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [configuration]}
    )
    put = s3.put_object(Bucket=bucket, Key="shop/a.csv", Body=b"123")
    told = [r for body in received(sqs, queue) for r in body.get("Records", [])]
    told = told or [r for body in received(sqs, queue) for r in body["Records"]]

    assert ["shop/a.csv"] == [record["s3"]["object"]["key"] for record in told]
    assert [put["VersionId"]] == [record["s3"]["object"]["versionId"] for record in told]


def test_a_scheduled_word_comes_to_the_same_queue(account, clients):
    """Events with our source reach the arrivals queue, others do not."""
    events = clients.client("events")
    entry = {"DetailType": "tick", "Detail": json.dumps({"pipeline": "shop"})}
    events.put_events(
        Entries=[{**entry, "Source": "someone.else"}, {**entry, "Source": "ml-control.schedule"}]
    )

    (found,) = received(clients.client("sqs"), account.queue_url)
    assert ("ml-control.schedule", {"pipeline": "shop"}) == (found["source"], found["detail"])


def test_what_is_received_too_often_goes_to_the_dead(account, clients):
    """The redrive policy of the account is at work."""
    sqs = clients.client("sqs")
    sqs.send_message(QueueUrl=account.queue_url, MessageBody='{"poison": 1}')
    for _ in range(6):
        told = sqs.receive_message(QueueUrl=account.queue_url, VisibilityTimeout=0)
        assert len(told.get("Messages", [])) <= 1

    assert [{"poison": 1}] == received(sqs, account.dead_letter_url)


def test_writes_are_conditional_and_all_or_nothing(account, clients):
    """A condition that does not hold is a Conflict; a transaction writes everything or nothing."""
    dynamodb, table = clients.client("dynamodb"), account.table("control-ledger")
    names = KEYS["control-ledger"]

    def item(value):
        return {name: {"S": value} for name in names}

    absent = f"attribute_not_exists({names[0]})"
    dynamodb.put_item(TableName=table, Item=item("a"), ConditionExpression=absent)
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException) as caught:
        dynamodb.put_item(TableName=table, Item=item("a"), ConditionExpression=absent)
    assert isinstance(translate(caught.value, "a"), Conflict)
    put = [
        {"Put": {"TableName": table, "Item": item(value), "ConditionExpression": absent}}
        for value in ("b", "a")
    ]
    with pytest.raises(dynamodb.exceptions.TransactionCanceledException) as cancelled:
        dynamodb.transact_write_items(TransactItems=put)

    reasons = cancelled.value.response["CancellationReasons"]
    assert ["None", "ConditionalCheckFailed"] == [reason["Code"] for reason in reasons]
    assert "Item" not in dynamodb.get_item(TableName=table, Key=item("b"), ConsistentRead=True)
    dynamodb.transact_write_items(TransactItems=put[:1])
    assert "Item" in dynamodb.get_item(TableName=table, Key=item("b"), ConsistentRead=True)


def test_an_object_is_created_once(account, clients):
    """``IfNoneMatch`` refuses the second writer."""
    s3, bucket = clients.client("s3"), account.bucket("artifacts")
    s3.put_object(Bucket=bucket, Key="shop/a", Body=b"1", IfNoneMatch="*")
    with pytest.raises(s3.exceptions.ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="shop/a", Body=b"2", IfNoneMatch="*")

    assert isinstance(translate(caught.value, "shop/a"), Conflict)
    assert b"1" == s3.get_object(Bucket=bucket, Key="shop/a")["Body"].read()


def test_a_stream_keeps_the_order_of_a_key(account, clients):
    """Records of one key are in one shard, in the order of putting."""
    kinesis, name = clients.client("kinesis"), account.stream_name
    for part in range(3):
        kinesis.put_records(
            StreamName=name,
            Records=[{"Data": b"%d" % (4 * part + i), "PartitionKey": "k"} for i in range(4)],
        )
    found = []
    for shard in kinesis.list_shards(StreamName=name)["Shards"]:
        at = kinesis.get_shard_iterator(
            StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        records = kinesis.get_records(ShardIterator=at["ShardIterator"])["Records"]
        found += [record["Data"] for record in records]

    assert [b"%d" % i for i in range(12)] == found


def subscribed(account, clients, part):
    """A queue that gets what the account's topic is told."""
    sqs = clients.client("sqs")
    queue = sqs.create_queue(QueueName=account.name(part))["QueueUrl"]
    clients.client("sns").subscribe(
        TopicArn=account.topic_arn, Protocol="sqs", Endpoint=allow_senders(sqs, queue)
    )
    return queue


def test_an_alert_comes_through_the_topic(account, clients):
    """What is published reaches who subscribed."""
    queue = subscribed(account, clients, "told")
    clients.client("sns").publish(TopicArn=account.topic_arn, Subject="parked", Message="why")

    (found,) = received(clients.client("sqs"), queue)
    assert ("parked", "why") == (found["Subject"], found["Message"])


def test_an_alarm_fires_and_is_read_back(account, clients):
    """A number beyond its threshold makes an alarm fire, to the topic and to who asks."""
    queue = subscribed(account, clients, "alarmed")
    cloudwatch, name = clients.client("cloudwatch"), account.name("errors")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="ml-control",
        MetricName="errors",
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[account.topic_arn],
    )
    cloudwatch.put_metric_data(
        Namespace="ml-control", MetricData=[{"MetricName": "errors", "Value": 5.0}]
    )
    (found,) = received(clients.client("sqs"), queue)
    (alarm,) = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]

    assert (name, "ALARM") == (json.loads(found["Message"])["AlarmName"], alarm["StateValue"])


def test_a_log_group_gives_its_newest_lines(account, clients):
    """Lines come back in order, as a failed endpoint's are read."""
    logs, group = clients.client("logs"), f"/aws/sagemaker/Endpoints/{account.name('a')}"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="one")
    now = int(time.time() * 1000)
    logs.put_log_events(
        logGroupName=group,
        logStreamName="one",
        logEvents=[{"timestamp": now + i, "message": f"line {i}"} for i in range(5)],
    )
    found = logs.get_log_events(logGroupName=group, logStreamName="one", startFromHead=True)

    assert [f"line {i}" for i in range(5)] == [event["message"] for event in found["events"]]
