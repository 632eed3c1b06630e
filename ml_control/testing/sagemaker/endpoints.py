"""Endpoints: created, updated, rolled back and deleted over time, and really serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_control.testing.sagemaker import updates
from ml_control.testing.sagemaker.configs import KIND as CONFIG
from ml_control.testing.sagemaker.configs import absent as no_config
from ml_control.testing.sagemaker.configs import is_serverless
from ml_control.testing.sagemaker.director import Director
from ml_control.testing.sagemaker.fleet import Fleet, Unhealthy, end_all
from ml_control.testing.sagemaker.jobs import check_limit
from ml_control.testing.sagemaker.listing import page
from ml_control.testing.sagemaker.models import KIND as MODEL
from ml_control.testing.sagemaker.refused import Refused, invalid
from ml_control.testing.sagemaker.state import Account, Record
from ml_control.testing.sagemaker.tags import Tags

KIND = "endpoint"
_DRAIN_SECONDS = 3.0
_SUMMARY = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
_MOVING = ("Creating", "Updating", "RollingBack", "SystemUpdating", "Deleting")


class Endpoints:
    """Endpoints of the account. A record's ``_hosts`` are the servers that answer now."""

    def __init__(self, account: Account, fleet: Fleet, director: Director, tags: Tags) -> None:
        self._account = account
        self._fleet = fleet
        self._director = director
        self._tags = tags
        self.operations = {
            "CreateEndpoint": self.create,
            "DescribeEndpoint": self.describe,
            "UpdateEndpoint": self.update,
            "UpdateEndpointWeightsAndCapacities": self.reweigh,
            "DeleteEndpoint": self.delete,
            "ListEndpoints": self.listed,
        }

    def create(self, request: Mapping[str, Any]) -> Record:
        """CreateEndpoint."""
        account, name = self._account, request["EndpointName"]
        with account.lock:
            arn, now = account.arn(KIND, name), account.clock()
            if name in account.records[KIND]:
                raise invalid(f'Cannot create already existing endpoint "{arn}".')
            config = account.find(CONFIG, request["EndpointConfigName"], no_config)
            updates.check_deployment(request.get("DeploymentConfig"), config)
            self._check_limits(config)
            self._tags.put(arn, request.get("Tags", []))
            record: Record = {
                "EndpointName": name,
                "EndpointArn": arn,
                "EndpointConfigName": request["EndpointConfigName"],
                "EndpointStatus": "Creating",
                "CreationTime": now,
                "LastModifiedTime": now,
                "_config": dict(config),
                "_hosts": {},
                "_variants": {},
            }
            account.records[KIND][name] = record
        account.work(f"endpoint-{name}", lambda: self._created(record))
        return {"EndpointArn": arn}

    def describe(self, request: Mapping[str, Any]) -> Record:
        """DescribeEndpoint."""
        with self._account.lock:
            record = self._find(request)
            shown = {key: value for key, value in record.items() if not key.startswith("_")}
            if record["_variants"]:
                shown["ProductionVariants"] = [dict(item) for item in record["_variants"].values()]
            capture = record["_config"].get("DataCaptureConfig")
            if capture and record["_variants"]:
                shown["DataCaptureConfig"] = _capture(capture)
            return shown

    def update(self, request: Mapping[str, Any]) -> Record:
        """UpdateEndpoint: new servers beside the old, which serve until the new ones do."""
        account = self._account
        with account.lock:
            record = self._find(request)
            self._require_in_service(record)
            config = account.find(CONFIG, request["EndpointConfigName"], no_config)
            deployment = updates.choose_deployment(request, record)
            updates.check_change(record["_config"], config)
            updates.check_deployment(deployment, config)
            now = account.clock()
            record.pop("FailureReason", None)
            record.update(EndpointStatus="Updating", LastModifiedTime=now)
            record["PendingDeploymentSummary"] = {
                "EndpointConfigName": request["EndpointConfigName"],
                "StartTime": now,
            }
            change = updates.Change(dict(config), deployment, updates.kept(request, record))
        account.work(f"update-{record['EndpointName']}", lambda: self._updated(record, change))
        return {"EndpointArn": record["EndpointArn"]}

    def reweigh(self, request: Mapping[str, Any]) -> Record:
        """UpdateEndpointWeightsAndCapacities, for instances."""
        account = self._account
        with account.lock:
            record = self._find(request)
            self._require_in_service(record)
            account.find(CONFIG, record["EndpointConfigName"], no_config)
            if is_serverless(record["_config"]):
                raise invalid(
                    "UpdateEndpointWeightsAndCapacities is not supported for serverless endpoints."
                )
            for wanted in request["DesiredWeightsAndCapacities"]:
                variant = record["_variants"].get(wanted["VariantName"])
                if variant is None:
                    raise invalid(
                        f"Variant {wanted['VariantName']} does not exist in endpoint "
                        f"{record['EndpointName']}."
                    )
            for wanted in request["DesiredWeightsAndCapacities"]:
                variant = record["_variants"][wanted["VariantName"]]
                for member in ("DesiredWeight", "DesiredInstanceCount"):
                    if member in wanted:
                        variant[member] = wanted[member]
            record.update(EndpointStatus="Updating", LastModifiedTime=account.clock())
        account.work(f"weights-{record['EndpointName']}", lambda: self._reweighed(record))
        return {"EndpointArn": record["EndpointArn"]}

    def delete(self, request: Mapping[str, Any]) -> Record:
        """DeleteEndpoint."""
        account = self._account
        with account.lock:
            record = self._find(request)
            if record["EndpointStatus"] in _MOVING:
                raise invalid(f'Cannot update in-progress endpoint "{record["EndpointArn"]}".')
            self._to(record, "Deleting")
        account.work(f"delete-{record['EndpointName']}", lambda: self._deleted(record))
        return {}

    def listed(self, request: Mapping[str, Any]) -> Record:
        """ListEndpoints."""
        with self._account.lock:
            return page(
                self._account.records[KIND].values(),
                request,
                name="EndpointName",
                status="EndpointStatus",
                answer="Endpoints",
                summary=lambda record: {key: record[key] for key in _SUMMARY},
            )

    def close(self) -> None:
        """End every server."""
        for record in list(self._account.records[KIND].values()):
            end_all(record["_hosts"])

    def _find(self, request: Mapping[str, Any]) -> Record:
        return self._account.find(KIND, request["EndpointName"], absent)

    def _created(self, record: Record) -> None:
        try:
            hosts = self._fleet.bring_up(record["EndpointName"], record["_config"], [])
        except Unhealthy as error:
            with self._account.lock:
                record["FailureReason"] = str(error)[:1024]
                self._to(record, "Failed")
            return
        with self._account.lock:
            record["_hosts"] = hosts
            record["_variants"] = self._variants(record["_config"])
            self._to(record, "InService")

    def _updated(self, record: Record, change: updates.Change) -> None:
        name = record["EndpointName"]
        try:
            hosts = self._fleet.bring_up(name, change.config, change.alarms)
        except Unhealthy as error:
            self._rolled_back(record, str(error))
            return
        try:
            self._fleet.watch(change.bake, change.alarms)
        except Unhealthy as error:
            end_all(hosts)
            self._rolled_back(record, str(error))
            return
        except BaseException:
            end_all(hosts)
            raise
        with self._account.lock:
            old, record["_hosts"] = record["_hosts"], hosts
            record["_variants"] = change.keep(self._variants(change.config), record["_variants"])
            record["_config"] = change.config
            record["EndpointConfigName"] = change.config["EndpointConfigName"]
            if change.deployment:
                record["LastDeploymentConfig"] = change.deployment
            record.pop("PendingDeploymentSummary", None)
            self._to(record, "InService")
        end_all(old, grace=_DRAIN_SECONDS)

    def _rolled_back(self, record: Record, reason: str) -> None:
        """The old servers were never gone; the endpoint is again what it was."""
        with self._account.lock:
            record["FailureReason"] = reason[:1024]
            self._to(record, "RollingBack")
        self._account.pause(self._account.times.rolling_back)
        with self._account.lock:
            record.pop("PendingDeploymentSummary", None)
            self._to(record, "InService")

    def _reweighed(self, record: Record) -> None:
        self._account.pause(self._account.times.updating)
        with self._account.lock:
            for variant in record["_variants"].values():
                variant["CurrentWeight"] = variant["DesiredWeight"]
                variant["CurrentInstanceCount"] = variant["DesiredInstanceCount"]
            self._to(record, "InService")

    def _deleted(self, record: Record) -> None:
        self._account.pause(self._account.times.deleting)
        end_all(record["_hosts"])
        with self._account.lock:
            self._account.records[KIND].pop(record["EndpointName"], None)
            self._account.tags.pop(record["EndpointArn"], None)

    def _to(self, record: Record, status: str) -> None:
        record.update(EndpointStatus=status, LastModifiedTime=self._account.clock())

    def _variants(self, config: Mapping[str, Any]) -> dict[str, Record]:
        """What DescribeEndpoint says of each variant. Call under the lock."""
        return {
            variant["VariantName"]: self._variant(variant)
            for variant in config["ProductionVariants"]
        }

    def _variant(self, variant: Mapping[str, Any]) -> Record:
        weight = float(variant.get("InitialVariantWeight", 1.0))
        model = self._account.records[MODEL].get(variant["ModelName"])
        shown: Record = {
            "VariantName": variant["VariantName"],
            "CurrentWeight": weight,
            "DesiredWeight": weight,
        }
        if model is not None:
            image = model["PrimaryContainer"]["Image"]
            shown["DeployedImages"] = [
                {
                    "SpecifiedImage": image,
                    "ResolvedImage": image,
                    "ResolutionTime": self._account.clock(),
                }
            ]
        if "ServerlessConfig" in variant:
            shown["CurrentServerlessConfig"] = variant["ServerlessConfig"]
            shown["CurrentInstanceCount"] = shown["DesiredInstanceCount"] = 0
        else:
            count = variant["InitialInstanceCount"]
            shown["CurrentInstanceCount"] = shown["DesiredInstanceCount"] = count
        return shown

    def _require_in_service(self, record: Record) -> None:
        status, arn = record["EndpointStatus"], record["EndpointArn"]
        if status in _MOVING:
            raise invalid(f'Cannot update in-progress endpoint "{arn}".')
        if status != "InService":
            raise invalid(
                f'Cannot update endpoint "{arn}" that is {status}: it can only be deleted.'
            )

    def _check_limits(self, config: Mapping[str, Any]) -> None:
        records = self._account.records[KIND].values()
        check_limit(self._director, "endpoints", len(records), 1)
        if is_serverless(config):
            used = sum(_concurrency(item["_config"]) for item in records)
            asked = _concurrency(config)
            check_limit(self._director, "serverless concurrency", used, asked)
            return
        for variant in config["ProductionVariants"]:
            machine = variant["InstanceType"]
            used = sum(_machines(item["_config"], machine) for item in records)
            asked = variant["InitialInstanceCount"]
            check_limit(self._director, f"{machine} for endpoint usage", used, asked)


def absent(arn: str) -> Refused:
    """The refusal of an endpoint that is not there."""
    return invalid(f'Could not find endpoint "{arn}".')


def _concurrency(config: Mapping[str, Any]) -> int:
    return sum(
        variant.get("ServerlessConfig", {}).get("MaxConcurrency", 0)
        for variant in config["ProductionVariants"]
    )


def _machines(config: Mapping[str, Any], machine: str) -> int:
    return sum(
        variant["InitialInstanceCount"]
        for variant in config["ProductionVariants"]
        if variant.get("InstanceType") == machine
    )


def _capture(config: Mapping[str, Any]) -> Record:
    enabled = bool(config.get("EnableCapture", False))
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }
