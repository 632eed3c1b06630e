"""CloudWatch's alarms, read back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from ml_control.aws.client import Clients, translated
from ml_control.ports import Alarm

_NAMES = 100  # of one request
_State = Literal["ok", "firing", "missing"]
_STATES: dict[str, _State] = {"OK": "ok", "ALARM": "firing"}


class CloudWatchAlarms:
    """``ports.Alarms``: of metrics, and those composed of others."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def read(self, names: Collection[str]) -> list[Alarm]:
        """See ``ports.Alarms``. An alarm with too little data is as good as none."""
        wanted = sorted(set(names))
        found: dict[str, Alarm] = {}
        for begin in range(0, len(wanted), _NAMES):
            for told in self._described(wanted[begin : begin + _NAMES]):
                alarm = _alarm(told)
                found[alarm.name] = alarm
        return [found.get(name, Alarm(name, "missing", reason="no such alarm")) for name in wanted]

    def _described(self, names: list[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            with translated("CloudWatch alarms"):
                answer = self._clients.client("cloudwatch").describe_alarms(
                    AlarmNames=names,
                    AlarmTypes=["MetricAlarm", "CompositeAlarm"],
                    MaxRecords=_NAMES,
                    **token,
                )
            found += [*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())]
            if not answer.get("NextToken"):
                return found
            token = {"NextToken": answer["NextToken"]}


def _alarm(told: dict[str, Any]) -> Alarm:
    # The time of the last change of state; the other is that of the last change of anything.
    changed = told.get("StateTransitionedTimestamp") or told.get("StateUpdatedTimestamp")
    since = changed.timestamp() if changed else 0.0
    state: _State = _STATES.get(told.get("StateValue", ""), "missing")
    return Alarm(told["AlarmName"], state, since, told.get("StateReason", ""))
