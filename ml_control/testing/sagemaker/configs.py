"""Endpoint configurations, with what serverless and instances cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_control.testing.sagemaker.director import Director
from ml_control.testing.sagemaker.listing import page
from ml_control.testing.sagemaker.models import KIND as MODEL
from ml_control.testing.sagemaker.models import absent as no_model
from ml_control.testing.sagemaker.refused import Refused, invalid
from ml_control.testing.sagemaker.state import Account, Record
from ml_control.testing.sagemaker.tags import Tags

KIND = "endpoint-config"
MEMORY = (1024, 2048, 3072, 4096, 5120, 6144)
CONCURRENCY = 200
VARIANTS = 10
_SHOWN = (
    *("EndpointConfigName", "ProductionVariants", "DataCaptureConfig", "KmsKeyId"),
    "ExecutionRoleArn",
)


class Configs:
    """Endpoint configurations of the account."""

    def __init__(self, account: Account, tags: Tags, director: Director) -> None:
        self._account = account
        self._tags = tags
        self._director = director
        self.operations = {
            "CreateEndpointConfig": self.create,
            "DescribeEndpointConfig": self.describe,
            "DeleteEndpointConfig": self.delete,
            "ListEndpointConfigs": self.listed,
        }

    def create(self, request: Mapping[str, Any]) -> Record:
        """CreateEndpointConfig."""
        account, name = self._account, request["EndpointConfigName"]
        with account.lock:
            arn = account.arn(KIND, name)
            if name in account.records[KIND]:
                raise invalid(f'Cannot create already existing endpoint configuration "{arn}".')
            self._check(request)
            self._tags.put(arn, request.get("Tags", []))
            account.records[KIND][name] = {
                **{key: request[key] for key in _SHOWN if key in request},
                "EndpointConfigArn": arn,
                "CreationTime": account.clock(),
            }
        return {"EndpointConfigArn": arn}

    def describe(self, request: Mapping[str, Any]) -> Record:
        """DescribeEndpointConfig."""
        with self._account.lock:
            return dict(self._find(request))

    def delete(self, request: Mapping[str, Any]) -> Record:
        """DeleteEndpointConfig. AWS lets one go that a live endpoint uses, and so does this."""
        with self._account.lock:
            record = self._find(request)
            del self._account.records[KIND][record["EndpointConfigName"]]
            self._account.tags.pop(record["EndpointConfigArn"], None)
        return {}

    def listed(self, request: Mapping[str, Any]) -> Record:
        """ListEndpointConfigs."""
        keys = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
        with self._account.lock:
            return page(
                self._account.records[KIND].values(),
                request,
                name="EndpointConfigName",
                answer="EndpointConfigs",
                summary=lambda record: {key: record[key] for key in keys},
            )

    def _find(self, request: Mapping[str, Any]) -> Record:
        return self._account.find(KIND, request["EndpointConfigName"], absent)

    def _check(self, request: Mapping[str, Any]) -> None:
        variants = request["ProductionVariants"]
        names = [variant["VariantName"] for variant in variants]
        if len(set(names)) != len(names):
            raise invalid("Variant names must be unique within an endpoint configuration.")
        if len(variants) > VARIANTS:
            raise invalid(f"An endpoint configuration has at most {VARIANTS} variants.")
        for unknown in ("ExplainerConfig", "AsyncInferenceConfig"):
            if unknown in request:
                raise invalid(f"{unknown} is not supported by this double.")
        for variant in variants:
            self._check_variant(variant)
        if any("ServerlessConfig" in variant for variant in variants):
            self._check_serverless(request)
        if "ShadowProductionVariants" in request:
            raise invalid("ShadowProductionVariants are not supported by this double.")
        capture = request.get("DataCaptureConfig", {})
        if capture.get("EnableCapture") and not capture.get("CaptureOptions"):
            raise invalid("CaptureOptions is required when EnableCapture is true.")

    def _check_variant(self, variant: Mapping[str, Any]) -> None:
        name = variant["VariantName"]
        if "ModelName" not in variant:
            raise invalid(f"ModelName is required for variant {name}.")
        self._account.find(MODEL, variant["ModelName"], no_model)
        if "ServerlessConfig" in variant:
            for member in ("InstanceType", "InitialInstanceCount", "AcceleratorType"):
                if member in variant:
                    raise invalid(
                        f"{member} cannot be specified together with ServerlessConfig for variant "
                        f"{name}."
                    )
            memory = variant["ServerlessConfig"]["MemorySizeInMB"]
            if memory not in MEMORY:
                raise invalid(
                    f"Memory size {memory} MB of variant {name} is not supported: it must be one "
                    f"of {', '.join(map(str, MEMORY))}."
                )
            provisioned = variant["ServerlessConfig"].get("ProvisionedConcurrency", 0)
            if provisioned > variant["ServerlessConfig"]["MaxConcurrency"]:
                raise invalid("ProvisionedConcurrency must not be more than MaxConcurrency.")
        elif "InstanceType" not in variant or "InitialInstanceCount" not in variant:
            raise invalid(
                f"InstanceType and InitialInstanceCount are required for variant {name} without a "
                "ServerlessConfig."
            )

    def _check_serverless(self, request: Mapping[str, Any]) -> None:
        variants = request["ProductionVariants"]
        if len(variants) > 1:
            raise invalid(
                "Serverless inference supports only one production variant per endpoint "
                "configuration."
            )
        if "ShadowProductionVariants" in request:
            raise invalid("Shadow variants are not supported for serverless inference.")
        if request.get("DataCaptureConfig", {}).get("EnableCapture"):
            raise invalid("Data capture is not supported for serverless inference.")
        model = self._account.records[MODEL][variants[0]["ModelName"]]
        if "VpcConfig" in model or "VpcConfig" in request:
            raise invalid("VpcConfig is not supported for serverless inference.")
        if model.get("EnableNetworkIsolation"):
            raise invalid("Network isolation is not supported for serverless inference.")
        if "ModelDataSource" in model["PrimaryContainer"]:
            raise invalid(
                "ModelDataSource is not supported for serverless inference; use ModelDataUrl."
            )


def absent(arn: str) -> Refused:
    """The refusal of a configuration that is not there."""
    return invalid(f'Could not find endpoint configuration "{arn}".')


def is_serverless(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is serverless."""
    return "ServerlessConfig" in config["ProductionVariants"][0]
