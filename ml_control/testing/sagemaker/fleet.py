"""Bringing up the servers of an endpoint configuration, and telling why that failed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_control.testing.sagemaker.configs import is_serverless
from ml_control.testing.sagemaker.director import Director, Plan
from ml_control.testing.sagemaker.hosts import Host, Unextractable
from ml_control.testing.sagemaker.logs import ENDPOINTS, Logs
from ml_control.testing.sagemaker.models import KIND as MODEL
from ml_control.testing.sagemaker.state import Account, Closing, Record
from ml_control.testing.sagemaker.storage import Storage
from ml_control.testing.sagemaker.training import CAPACITY

_POLL_SECONDS = 0.02
START_SECONDS = 120.0  # real seconds that a container on this machine may take to load its model


class Unhealthy(Exception):
    """The new servers cannot serve; the text is the endpoint's FailureReason."""


class Fleet:
    """Makes and ends the servers of one endpoint after the other."""

    def __init__(
        self, account: Account, logs: Logs, storage: Storage, director: Director, home: Path
    ) -> None:
        self._account = account
        self._logs = logs
        self._storage = storage
        self._director = director
        self._home = home

    def bring_up(self, name: str, config: Mapping[str, Any], alarms: list[str]) -> dict[str, Host]:
        """Servers by variant that answer their health check, shadow variants left out.

        ``alarms`` end it as soon as one fires. Raises ``Unhealthy``, having ended what it began.
        """
        plan = self._director.take("endpoint", name)
        self.watch(self._account.times.creating, alarms)
        self._stage(plan)
        hosts: dict[str, Host] = {}
        serverless = is_serverless(config)
        try:
            for variant in config["ProductionVariants"]:
                hosts[variant["VariantName"]] = self._host(name, variant)
            for variant_name, host in hosts.items():
                failing = plan is not None and plan.kind == "ping"
                self._await(variant_name, host, serverless=serverless, failing=failing)
                self.watch(0.0, alarms)
        except BaseException:
            end_all(hosts)
            raise
        return hosts

    def watch(self, seconds: float, alarms: list[str]) -> None:
        """Wait for so many of AWS's seconds. Raises ``Unhealthy`` once one of the alarms fires."""
        deadline = time.monotonic() + self._account.scaled(seconds)
        while True:
            if firing := self._director.firing(alarms):
                raise Unhealthy(
                    "The deployment was rolled back because the following alarms are in ALARM "
                    f"state: [{', '.join(firing)}]."
                )
            left = deadline - time.monotonic()
            if left <= 0:
                return
            if self._account.closing.wait(min(left, _POLL_SECONDS)):
                raise Closing

    def _stage(self, plan: Plan | None) -> None:
        if plan is None:
            return
        if plan.kind in CAPACITY:
            raise Unhealthy(plan.detail["reason"] or CAPACITY[plan.kind])
        while plan.kind == "hang" and not self._director.released(plan):
            if self._account.closing.wait(_POLL_SECONDS):
                raise Closing

    def _host(self, name: str, variant: Mapping[str, Any]) -> Host:
        with self._account.lock:
            model: Record | None = self._account.records[MODEL].get(variant["ModelName"])
        if model is None:
            raise Unhealthy(f"Model {variant['ModelName']} does not exist any more.")
        stream = f"{variant['VariantName']}/i-{int(time.time() * 1e6):017x}"

        def write(line: str) -> None:
            self._logs.write(f"{ENDPOINTS}/{name}", stream, line)

        folder = self._home / "endpoints" / name
        try:
            return Host(self._storage, model, folder, self._account.region, write)
        except Unextractable as error:
            raise Unhealthy(str(error)) from error

    def _await(self, variant: str, host: Host, *, serverless: bool, failing: bool) -> None:
        """Until it answers. A container that ended, or never will, fails after AWS's wait."""
        times, began = self._account.times, time.monotonic()
        while not (failing or host.ready()) and not host.ended():
            if time.monotonic() - began > START_SECONDS:
                break
            if self._account.closing.wait(_POLL_SECONDS):
                raise Closing
        if host.ready() and not failing:
            return
        self._account.pause(times.serverless_ping if serverless else times.ping)
        if serverless and not host.ended():
            raise Unhealthy(
                "Unable to successfully stand up your model within the allotted 180 second timeout"
            )
        raise Unhealthy(
            f"The primary container for production variant {variant} did not pass the ping health "
            "check. Please check CloudWatch logs for this endpoint."
        )


def end_all(hosts: Mapping[str, Host], grace: float = 0.0) -> None:
    """End servers, each with so many seconds for the requests that it answers."""
    for host in hosts.values():
        host.end(grace)
