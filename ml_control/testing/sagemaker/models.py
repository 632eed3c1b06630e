"""Models: an image and an archive under a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_control.testing.sagemaker.images import container_of
from ml_control.testing.sagemaker.listing import page
from ml_control.testing.sagemaker.refused import Refused, invalid
from ml_control.testing.sagemaker.roles import check_role
from ml_control.testing.sagemaker.state import Account, Record
from ml_control.testing.sagemaker.storage import Storage
from ml_control.testing.sagemaker.tags import Tags

KIND = "model"
_SHOWN = ("ModelName", "PrimaryContainer", "Containers", "ExecutionRoleArn", "VpcConfig")


class Models:
    """Models of the account."""

    def __init__(self, account: Account, storage: Storage, tags: Tags) -> None:
        self._account = account
        self._storage = storage
        self._tags = tags
        self.operations = {
            "CreateModel": self.create,
            "DescribeModel": self.describe,
            "DeleteModel": self.delete,
            "ListModels": self.listed,
        }

    def create(self, request: Mapping[str, Any]) -> Record:
        """CreateModel: one container of a known image, whose archive exists."""
        account, name = self._account, request["ModelName"]
        if "Containers" in request or "PrimaryContainer" not in request:
            raise invalid("This double serves one PrimaryContainer and no inference pipeline.")
        if "ExecutionRoleArn" in request:
            check_role(request["ExecutionRoleArn"], account)
        else:
            raise invalid("An ExecutionRoleArn is required.")
        container = request["PrimaryContainer"]
        if "Image" not in container:
            raise invalid("You must provide Image in PrimaryContainer.")
        container_of(container["Image"], account.region)
        uri = archive_of(container)
        if not self._storage.exists(uri):
            raise invalid(f"Could not find model data at {uri}.")
        with account.lock:
            arn = account.arn(KIND, name)
            if name in account.records[KIND]:
                raise invalid(f'Cannot create already existing model "{arn}".')
            self._tags.put(arn, request.get("Tags", []))
            shown = {key: request[key] for key in _SHOWN if key in request}
            shown["PrimaryContainer"] = {"Mode": "SingleModel", **container}
            account.records[KIND][name] = {
                **shown,
                "ModelArn": arn,
                "CreationTime": account.clock(),
                "EnableNetworkIsolation": request.get("EnableNetworkIsolation", False),
            }
        return {"ModelArn": arn}

    def describe(self, request: Mapping[str, Any]) -> Record:
        """DescribeModel."""
        with self._account.lock:
            return dict(self._find(request))

    def delete(self, request: Mapping[str, Any]) -> Record:
        """DeleteModel. AWS lets a model go that an endpoint still serves, and so does this."""
        with self._account.lock:
            record = self._find(request)
            del self._account.records[KIND][record["ModelName"]]
            self._account.tags.pop(record["ModelArn"], None)
        return {}

    def listed(self, request: Mapping[str, Any]) -> Record:
        """ListModels."""
        with self._account.lock:
            return page(
                self._account.records[KIND].values(),
                request,
                name="ModelName",
                answer="Models",
                summary=lambda record: {
                    key: record[key] for key in ("ModelName", "ModelArn", "CreationTime")
                },
            )

    def _find(self, request: Mapping[str, Any]) -> Record:
        return self._account.find(KIND, request["ModelName"], absent)


def absent(arn: str) -> Refused:
    """The refusal of a model that is not there."""
    return invalid(f'Could not find model "{arn}".')


def archive_of(container: Mapping[str, Any]) -> str:
    """The S3 URI of a container's archive. Raises ``Refused`` for none, or for a folder."""
    if "ModelDataUrl" in container:
        return str(container["ModelDataUrl"])
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    if source is None:
        raise invalid("You must provide ModelDataUrl or ModelDataSource in PrimaryContainer.")
    if source["S3DataType"] != "S3Object" or source["CompressionType"] != "Gzip":
        raise invalid("This double loads model data from one gzip archive (S3Object, Gzip).")
    return str(source["S3Uri"])
