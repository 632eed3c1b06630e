"""What SageMaker is asked to run: plain data, made from the job and the settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ml_control.core.digests import digest_of
from ml_control.core.hosting import has_own_disk
from ml_control.errors import InvalidSpec
from ml_control.ports import Search, TrainingJob
from ml_control.settings import AwsSettings
from ml_control.spec import SageMakerTraining

# Printed by the container; an objective that is not among these it does not report to SageMaker.
OBJECTIVE = "validation:{}"


def request_digest(job: TrainingJob) -> str:
    """What must be equal for two jobs of one name to be the same job. It is the caller who names a
    job by its content; the machines do not decide the result.
    """
    names = {channel: len(files) for channel, files in job.channels.items()}
    settings = {key: str(value) for key, value in job.hyperparameters.items()}
    return digest_of([job.container, settings, names, job.external_memory])


def search_digest(search: Search) -> str:
    """What must be equal for two searches of one name to be the same search."""
    ranges = {name: list(edges) for name, edges in search.ranges.items()}
    return digest_of([request_digest(search.base), ranges, search.trials, search.seed])


def tags(settings: AwsSettings, **more: str) -> list[dict[str, str]]:
    """The installation's tags and what a job is for."""
    return [{"Key": key, "Value": value} for key, value in {**settings.all_tags, **more}.items()]


def role(settings: AwsSettings) -> str:
    """The role of jobs. Raises ``InvalidSpec`` when none is set."""
    if not settings.role_arn:
        raise InvalidSpec(
            "setting aws.role_arn",
            "is not set, and SageMaker runs nothing without a role",
            "set role_arn under [aws] in ml-control.toml to a role that SageMaker may assume",
        )
    return settings.role_arn


def hyperparameters(job: TrainingJob) -> dict[str, str]:
    """As strings. GPUs are used by Dask with histograms: the container refuses ``device``.

    Raises ``InvalidSpec`` for what the container takes and cannot keep.
    """
    values = {key: str(value) for key, value in job.hyperparameters.items()}
    if values.get("booster") == "gblinear" and "early_stopping_rounds" in values:
        raise InvalidSpec(
            f"training job {job.name}",
            "Hyperparameter early_stopping_rounds: not supported with booster gblinear",
            "correct training.hyperparameters",
        )
    if job.machines.gpu:
        values |= {"use_dask_gpu_training": "true", "tree_method": "hist"}
    return values


def training(
    settings: AwsSettings,
    job: TrainingJob,
    *,
    image: str,
    manifests: Mapping[str, str],
    output: str,
) -> dict[str, Any]:
    """CreateTrainingJob without its name, tags, environment and hyperparameters."""
    machines = job.machines
    request: dict[str, Any] = {
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "RoleArn": role(settings),
        "InputDataConfig": [
            _channel(name, uri, sharded=name == "train" and shares(machines) > 1)
            for name, uri in manifests.items()
        ],
        "OutputDataConfig": {"S3OutputPath": output, **_key("KmsKeyId", settings)},
        "ResourceConfig": resources(settings, machines),
        "StoppingCondition": _stopping(job.max_runtime, machines),
        "EnableNetworkIsolation": True,
    }
    if machines.spot:
        request["EnableManagedSpotTraining"] = True
    if settings.subnets:
        request["VpcConfig"] = vpc(settings)
    return request


def shares(machines: SageMakerTraining) -> int:
    """In how many shares the training data goes to the hosts; on GPUs Dask divides it itself."""
    return 1 if machines.gpu else machines.instance_count


def resources(settings: AwsSettings, machines: SageMakerTraining) -> dict[str, Any]:
    """The machines of a training job."""
    own = has_own_disk(machines.instance_type)
    return {
        "InstanceType": machines.instance_type,
        "InstanceCount": machines.instance_count,
        "VolumeSizeInGB": machines.volume_gb,
        **({} if own else _key("VolumeKmsKeyId", settings)),
    }


def vpc(settings: AwsSettings) -> dict[str, list[str]]:
    """Where the containers' network is. Raises ``InvalidSpec`` without security groups."""
    if not settings.security_groups:
        raise InvalidSpec(
            "setting aws.security_groups",
            "is empty though aws.subnets names subnets",
            "name at least one security group under [aws] in ml-control.toml",
        )
    return {"Subnets": list(settings.subnets), "SecurityGroupIds": list(settings.security_groups)}


def tuning(search: Search, definition: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """CreateHyperParameterTuningJob without its name and tags."""
    base = hyperparameters(search.base)
    whole, real = [], []
    for name, (low, high) in search.ranges.items():
        logarithmic = name in search.logarithmic and low > 0
        scaling = {"ScalingType": "Logarithmic" if logarithmic else "Linear"}
        if name in search.integers:
            edges = {"MinValue": str(int(low)), "MaxValue": str(int(high))}
            whole.append({"Name": name, **edges, **scaling})
        else:
            real.append({"Name": name, "MinValue": f"{low!r}", "MaxValue": f"{high!r}", **scaling})
    return {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "RandomSeed": search.seed % 2**31,
            "HyperParameterTuningJobObjective": {
                "Type": "Minimize",
                "MetricName": OBJECTIVE.format(metric),
            },
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": search.trials,
                "MaxParallelTrainingJobs": parallel(search.trials),
                "MaxRuntimeInSeconds": max(120, math.ceil(search.max_runtime)),
            },
            "ParameterRanges": {
                "IntegerParameterRanges": whole,
                "ContinuousParameterRanges": real,
                "CategoricalParameterRanges": [],
            },
            "TrainingJobEarlyStoppingType": "Auto",
        },
        "TrainingJobDefinition": {
            **definition,
            "StaticHyperParameters": {k: v for k, v in base.items() if k not in search.ranges},
        },
    }


def parallel(trials: int) -> int:
    """Trials beside each other: few, because each is chosen by what those before it found."""
    return max(1, min(4, trials // 3))


def _channel(name: str, manifest: str, *, sharded: bool) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "ContentType": "text/csv",
        "CompressionType": "None",
        "InputMode": "File",
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "ManifestFile",
                "S3Uri": manifest,
                "S3DataDistributionType": "ShardedByS3Key" if sharded else "FullyReplicated",
            }
        },
    }


def _stopping(seconds: float, machines: SageMakerTraining) -> dict[str, int]:
    longest = max(1, math.ceil(seconds))
    found = {"MaxRuntimeInSeconds": longest}
    if machines.spot:
        found["MaxWaitTimeInSeconds"] = max(longest, math.ceil(machines.max_wait))
    return found


def _key(field: str, settings: AwsSettings) -> dict[str, str]:
    return {field: settings.kms_key} if settings.kms_key else {}
