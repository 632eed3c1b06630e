"""A FakeSageMaker with its S3, seen through unmodified boto3, for suites about it."""

from __future__ import annotations

import io
import tarfile
import time
from functools import cached_property

import boto3
import numpy as np
import xgboost
from botocore.config import Config
from emulators import moto_url

from ml_control.testing.sagemaker import FakeSageMaker

REGION = "eu-west-1"
ROLE = "arn:aws:iam::123456789012:role/sagemaker"
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
WAIT = 90.0


def image(tag="3.2-0"):
    """The image of a container version."""
    return f"141502667606.dkr.ecr.{REGION}.amazonaws.com/sagemaker-xgboost:{tag}"


def archive(files):
    """A gzip tar of bytes by name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def csv(rows):
    """Rows as a body without a header."""
    return "\n".join(",".join(repr(float(cell)) for cell in row) for row in rows).encode()


class Data:
    """Rows of four columns, labels, and a booster of this process's XGBoost (3.2.0)."""

    def __init__(self, seed=0):
        random = np.random.default_rng(seed)
        self.rows = random.normal(size=(400, 4)).astype(np.float32)
        # Labels far from balance, so that a lost base score is seen.
        self.labels = (self.rows[:, 0] + self.rows[:, 1] > 1.5).astype(int)
        self.training = csv(np.column_stack([self.labels, self.rows]))
        self.body = csv(self.rows)
        self.booster = xgboost.train(
            {"objective": "binary:logistic", "eta": 0.5},
            xgboost.DMatrix(self.rows, self.labels),
            4,
        )
        self.model = bytes(self.booster.save_raw("ubj"))
        self.archive = archive({"xgboost-model": self.model})
        self.want = self.booster.predict(xgboost.DMatrix(self.rows))


class World:
    """Clients of a fake and what suites do with them."""

    def __init__(self, fake, bucket):
        self.fake = fake
        self.bucket = bucket

    def client(self, service, attempts=3, **config):
        """A boto3 client of the fake, as any program would make it."""
        return boto3.client(
            service,
            endpoint_url=self.fake.url,
            region_name=REGION,
            config=Config(retries={"total_max_attempts": attempts}, **config),
            **KEYS,
        )

    @cached_property
    def sagemaker(self):
        """SageMaker."""
        return self.client("sagemaker")

    @cached_property
    def runtime(self):
        """SageMaker Runtime; one attempt, so that refusals are seen at once."""
        return self.client("sagemaker-runtime", attempts=1)

    @cached_property
    def logs(self):
        """CloudWatch Logs."""
        return self.client("logs")

    @cached_property
    def s3(self):
        """S3, where it really is."""
        return boto3.client("s3", endpoint_url=moto_url(), region_name=REGION, **KEYS)

    def put(self, key, data):
        """An object; its URI."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        return f"s3://{self.bucket}/{key}"

    def read(self, uri):
        """The object of a URI."""
        key = uri.removeprefix(f"s3://{self.bucket}/")
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def request(self, name, channels, tag="3.2-0", **changes):
        """A CreateTrainingJob request: channels are URIs of prefixes by name."""
        return {
            "TrainingJobName": name,
            "HyperParameters": {"num_round": "3", "objective": "binary:logistic"},
            "AlgorithmSpecification": {"TrainingImage": image(tag), "TrainingInputMode": "File"},
            "RoleArn": ROLE,
            "InputDataConfig": [
                {
                    "ChannelName": channel,
                    "ContentType": "text/csv",
                    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
                }
                for channel, uri in channels.items()
            ],
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/jobs"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 5,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            **changes,
        }

    def trained(self, name, channels, tag="3.2-0", **changes):
        """Start a job and give its description once it has ended."""
        self.sagemaker.create_training_job(**self.request(name, channels, tag, **changes))
        return self.ended(name)

    def ended(self, name):
        """A training job's description once it has ended."""
        return until(
            lambda: self.sagemaker.describe_training_job(TrainingJobName=name),
            lambda job: job["TrainingJobStatus"] not in {"InProgress", "Stopping"},
        )

    def add_model(self, name, data, tag="3.2-0", **container):
        """A model over an archive's bytes."""
        uri = self.put(f"archives/{name}/model.tar.gz", data)
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": image(tag), "ModelDataUrl": uri, **container},
        )

    def add_config(self, name, *variants, **more):
        """A configuration; a variant that names only a model gets one ml.m5.large."""
        defaults = {"VariantName": "AllTraffic"}
        machine = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {**defaults, **({} if "ServerlessConfig" in variant else machine), **variant}
                for variant in variants
            ],
            **more,
        )

    def deployed(self, name, data, tag="3.2-0", **variant):
        """An endpoint on its own model and configuration, described once it has settled."""
        self.add_model(name, data, tag)
        self.add_config(name, {"ModelName": name, **variant})
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        return self.settled(name)

    def settled(self, name):
        """An endpoint's description once nothing moves."""
        moving = {"Creating", "Updating", "RollingBack", "Deleting"}
        return until(
            lambda: self.sagemaker.describe_endpoint(EndpointName=name),
            lambda found: found["EndpointStatus"] not in moving,
        )

    def predictions(self, name, body, **more):
        """What an endpoint answers, as numbers."""
        answer = self.runtime.invoke_endpoint(
            EndpointName=name, Body=body, ContentType="text/csv", **more
        )
        return np.array([float(line) for line in answer["Body"].read().split()], np.float32)

    def lines(self, group, prefix=""):
        """Every line of a log group's streams, in order."""
        streams = self.logs.describe_log_streams(logGroupName=group)["logStreams"]
        found = []
        for stream in streams:
            if stream["logStreamName"].startswith(prefix):
                events = self.logs.get_log_events(
                    logGroupName=group,
                    logStreamName=stream["logStreamName"],
                    startFromHead=True,
                )["events"]
                found += [event["message"] for event in events]
        return found


def until(ask, done):
    """Ask until it is done."""
    deadline = time.monotonic() + WAIT
    while not done(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def open_world(folder, bucket, **options):
    """A started fake, and the world around it."""
    fake = FakeSageMaker(s3=moto_url(), home=folder, region=REGION, speed=2000, **options)
    world = World(fake, bucket)
    world.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    return fake, world
