"""The faulty proxy before moto: unmodified boto3 and obstore clients, faults by seed."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
import pytest
from emulators import REGION, credentials, moto_url

from ml_control.aws.client import translate
from ml_control.errors import Retryable
from ml_control.testing.fault_proxy import FaultProxy

# One harmless request of each service, and what it is counted as.
HARMLESS = {
    "s3": ("list_buckets", "ListBuckets"),
    "sqs": ("list_queues", "ListQueues"),
    "dynamodb": ("list_tables", "ListTables"),
    "kinesis": ("list_streams", "ListStreams"),
    "sns": ("list_topics", "ListTopics"),
    "events": ("list_rules", "ListRules"),
    "cloudwatch": ("list_metrics", "ListMetrics"),
    "logs": ("describe_log_groups", "DescribeLogGroups"),
    "sts": ("get_caller_identity", "GetCallerIdentity"),
    "sagemaker": ("list_endpoints", "ListEndpoints"),
    "kms": ("list_keys", "ListKeys"),
}


@pytest.fixture(autouse=True)
def keys():
    """Credentials that moto takes."""
    with credentials():
        yield


class Plain:
    """Clients that ask so often at once, without slowing down as our own do when throttled."""

    session = None  # one for all tests: it keeps the services' descriptions

    def __init__(self, url, attempts):
        import boto3
        from botocore.config import Config

        Plain.session = Plain.session or boto3.Session(region_name=REGION)
        self.url = url
        self.config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts}, read_timeout=5
        )
        self.made = {}

    def client(self, service):
        if service not in self.made:
            self.made[service] = Plain.session.client(
                service, endpoint_url=self.url, config=self.config
            )
        return self.made[service]


@contextmanager
def through(attempts=1, **faults):
    """A proxy before moto, and clients that reach it only through that."""
    with FaultProxy(moto_url(), **{"seed": 7, **faults}) as proxy:
        yield proxy, Plain(proxy.url, attempts)


def refusal(call):
    """What our clients make of a request's failure."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever botocore raises
        call()
    return translate(caught.value, "it")


@pytest.mark.parametrize("service", HARMLESS)
def test_each_service_throttles_in_its_own_words(service):
    """boto3 understands the refusal, we translate it as something to try again, and nothing of
    it has reached the emulator.
    """
    method, operation = HARMLESS[service]
    with through(throttle=1.0) as (proxy, clients):
        error = refusal(getattr(clients.client(service), method))

        assert isinstance(error, Retryable), error
        assert error.detail["code"] in ("ThrottlingException", "Throttling", "SlowDown")
        assert f"seed 7, throttle, call 1 of {service}.{operation}" in error.reason
        assert {f"{service}.{operation}": 1} == proxy.requests


@pytest.mark.parametrize("service", HARMLESS)
def test_credentials_expire_and_are_renewed(service):
    """While they are expired every service says so; afterwards the same client goes on."""
    method, _ = HARMLESS[service]
    with through() as (proxy, clients):
        call = getattr(clients.client(service), method)
        call()
        with proxy.expired():
            error = refusal(call)
        call()

        assert error.detail["code"] in ("ExpiredToken", "ExpiredTokenException")
        assert "renew the credentials" in error.next
        assert {service: 3} == proxy.by_service


def test_a_request_that_was_done_without_an_answer_is_done_once():
    """The connection ends after the emulator did it; boto3 sees a failed connection."""
    with through(drop_after=1.0, only=["sqs.CreateQueue"]) as (proxy, clients):
        sqs = clients.client("sqs")
        error = refusal(lambda: sqs.create_queue(QueueName="dropped"))

        assert isinstance(error, Retryable)
        assert sqs.get_queue_url(QueueName="dropped")["QueueUrl"].startswith(proxy.url)
        assert {"after": 1} == proxy.plan.counts


def test_a_connection_that_ends_first_does_nothing():
    """What is dropped before it is forwarded has not happened."""
    with through(drop_before=1.0, only=["sqs.CreateQueue"]) as (_, clients):
        sqs = clients.client("sqs")
        assert isinstance(refusal(lambda: sqs.create_queue(QueueName="never")), Retryable)

        assert "never" not in str(sqs.list_queues().get("QueueUrls"))


def test_hanging_and_late_requests_take_their_time():
    """A late one is answered; one that hangs ends without an answer and with nothing done."""
    with through(delay=1.0, delay_seconds=0.2) as (_, clients):
        began = time.monotonic()
        clients.client("sts").get_caller_identity()
        assert time.monotonic() - began > 0.2
    with through(hang=1.0, hang_seconds=0.2) as (_, clients):
        began = time.monotonic()
        assert isinstance(refusal(clients.client("sts").get_caller_identity), Retryable)
        assert time.monotonic() - began > 0.2


def test_a_seed_makes_the_same_faults_again():
    """Which requests fail depends on the seed and their number alone."""

    def outcomes(seed):
        with through(seed=seed, throttle=0.4) as (_, clients):
            call, told = clients.client("sts").get_caller_identity, []
            for _ in range(20):
                try:
                    call()
                    told.append(True)
                except clients.client("sts").exceptions.ClientError:
                    told.append(False)
            return told

    first = outcomes(1)
    assert first == outcomes(1)
    assert first != outcomes(2)
    assert {True, False} == set(first)


def test_a_client_that_tries_again_gets_through_a_third_of_throttling():
    """With botocore's own retries nothing of 30% throttling and 5% dropped answers is seen."""
    with through(attempts=12, throttle=0.3, drop_after=0.05, only=["dynamodb.PutItem"]) as (
        proxy,
        clients,
    ):
        dynamodb, name = clients.client("dynamodb"), f"t{time.monotonic_ns()}"
        dynamodb.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )

        def put(number):
            dynamodb.put_item(TableName=name, Item={"k": {"S": str(number)}})

        with ThreadPoolExecutor(5) as pool:
            list(pool.map(put, range(10)))

        assert 10 == dynamodb.scan(TableName=name, ConsistentRead=True)["Count"]
        assert proxy.requests["dynamodb.PutItem"] > 10
        assert proxy.plan.counts["throttle"] > 1


def test_objects_come_through_whole_whoever_asks():
    """obstore and boto3, small and in parts, with dropped and throttled requests in between."""
    from obstore.store import S3Store

    with through(attempts=12, throttle=0.1, drop_after=0.03) as (proxy, clients):
        s3, bucket = clients.client("s3"), f"b{time.monotonic_ns()}"
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        store = S3Store(
            bucket, region=REGION, endpoint=proxy.url, client_options={"allow_http": True},
            access_key_id="testing", secret_access_key="testing",
            retry_config={"max_retries": 12},
        )  # fmt: skip
        large = bytes(range(256)) * (6 << 12)
        for number in range(10):
            obstore.put(store, f"small/{number}", b"data %d" % number)
        obstore.put(store, "large", large, use_multipart=True, chunk_size=5 << 20)

        assert large == s3.get_object(Bucket=bucket, Key="large")["Body"].read()
        assert b"data 3" == bytes(obstore.get(store, "small/3").bytes())
        assert 10 == len([m for page in obstore.list(store, "small") for m in page])
        assert len(large) == s3.head_object(Bucket=bucket, Key="large")["ContentLength"]
        assert {"CreateMultipartUpload", "UploadPart", "PutObject", "GetObject", "HeadObject",
                "ListObjectsV2"} <= {name.partition(".")[2] for name in proxy.requests}  # fmt: skip


def test_some_records_of_a_put_fail_and_are_not_there():
    """``PutRecords`` tells which ones, in their places; resending those brings every one once."""
    with through(failed_records=0.4) as (proxy, clients):
        kinesis, name = clients.client("kinesis"), f"s{time.monotonic_ns()}"
        kinesis.create_stream(StreamName=name, ShardCount=1)
        left = [{"Data": b"%d" % i, "PartitionKey": "k"} for i in range(30)]
        sent = 0
        while left:
            told = kinesis.put_records(StreamName=name, Records=left)
            failed = [bool(result.get("ErrorCode")) for result in told["Records"]]
            assert sum(failed) == told["FailedRecordCount"]
            left = [record for record, again in zip(left, failed, strict=True) if again]
            sent += 1
        shard = kinesis.get_shard_iterator(
            StreamName=name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        found = Counter(r["Data"] for r in kinesis.get_records(ShardIterator=shard)["Records"])

        assert {b"%d" % i: 1 for i in range(30)} == found
        assert sent > 1
        assert proxy.rewritten["failed records"] > 0


def test_messages_are_given_twice_or_never():
    """Every message is either lost for ever or received, some of them again after they were."""
    with through(duplicates=0.5, lost=0.2, seed=3) as (proxy, clients):
        sqs = clients.client("sqs")
        queue = sqs.create_queue(QueueName=f"q{time.monotonic_ns()}")["QueueUrl"]
        for number in range(30):
            sqs.send_message(QueueUrl=queue, MessageBody=str(number))
        found = Counter()
        for _ in range(12):
            told = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
            for message in told.get("Messages", []):
                found[message["Body"]] += 1
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])

        lost = proxy.rewritten["lost messages"]
        assert 0 < lost == 30 - len(found)
        assert sum(found.values()) - len(found) == proxy.rewritten["duplicate messages"] > 0


class Checking(BaseHTTPRequestHandler):
    """An upstream that works out each request's signature anew, and notes whether it is right."""

    def _any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        day, region, service, names, signature = re.search(
            r"Credential=\w+/(\d+)/([\w-]+)/(\w+)/.*SignedHeaders=([^,]+), Signature=(\w+)",
            self.headers["Authorization"],
        ).groups()
        path, _, query = self.path.partition("?")
        headers = [f"{name}:{self.headers[name]}\n" for name in names.split(";")]
        digest = self.headers.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
        canonical = "\n".join([self.command, path, query, "".join(headers), names, digest])
        scope = f"{day}/{region}/{service}/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self.headers['X-Amz-Date']}\n{scope}\n{hashed}"
        key = b"AWS4testing"
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        self.server.checked.append(signature == key.hex())
        answer = b"" if service == "s3" else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = _any  # noqa: N815

    def log_message(self, *_):
        """Say nothing."""


def test_what_is_forwarded_is_what_was_signed():
    """An emulator that checks signatures finds them right: address, headers and body are those
    that the client signed.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Checking)
    server.checked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with FaultProxy(f"http://127.0.0.1:{server.server_port}", seed=1) as proxy:
            clients = Plain(proxy.url, 1)
            clients.client("dynamodb").list_tables()
            clients.client("s3").put_object(Bucket="b", Key="a b/ü", Body=b"data")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    assert [True, True] == server.checked
