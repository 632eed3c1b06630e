"""Changing an endpoint until it serves what is wanted, and tidying up after what failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ml_control.aws.client import Clients, translated
from ml_control.aws.endpoint_failures import failure
from ml_control.aws.endpoint_logs import log_tail
from ml_control.aws.endpoint_parts import Parts, Wanted, described
from ml_control.aws.endpoint_turns import Turn, Turns
from ml_control.core.endpoint_steps import UNDER_WAY, Attempt, Look, next_step, seen
from ml_control.errors import MlControlError, PlatformFailed, Retryable

TOKEN_TAG = "ml-control:token"  # noqa: S105 - a fencing token is no secret
OWNER_TAG = "ml-control:owner"
_SKEW_SECONDS = 60.0  # between this clock and that of the log
# What a step is refused with when somebody else's came between it and the look.
_MEANWHILE = (
    "in-progress",
    "in progress",
    "already existing",
    "Could not find endpoint",
)


@dataclass(frozen=True)
class Times:
    """Seconds: between two looks, at first and at most; how long a deletion is waited for."""

    poll: float = 0.2
    longest_poll: float = 10.0
    stop: float = 1800.0
    give_up: float = 300.0  # for the deletion of what failed


class Changes:
    """Brings endpoints to where they should be. Called with the endpoint's turn only."""

    def __init__(
        self,
        clients: Clients,
        parts: Parts,
        turns: Turns,
        times: Times,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._clients = clients
        self._parts = parts
        self._turns = turns
        self._sleep = sleep
        self._clock = clock
        self.times = times

    def claimed(self, real: str) -> int:
        """The highest fencing token that the endpoint itself carries; 0 for none.

        It outlives a registry that is restored from an earlier time. Raises ``PlatformFailed`` when
        another installation of this account made it: project, pipeline and environment of two may
        give one name.
        """
        found = self._described(real)
        if found is None:
            return 0
        sagemaker = self._clients.client("sagemaker")
        answer = described(
            lambda: sagemaker.list_tags(ResourceArn=found["EndpointArn"]), f"endpoint {real}"
        )
        tags = {tag["Key"]: tag["Value"] for tag in (answer or {}).get("Tags", [])}
        other = tags.get(OWNER_TAG, self._owner)
        if other != self._owner:
            raise PlatformFailed(
                f"endpoint {real}",
                f"is another installation's: it belongs to {other}, and this is {self._owner}",
                "name another aws.project or aws.environment for one of them",
            )
        text = tags.get(TOKEN_TAG, "")
        return int(text) if text.isdecimal() else 0

    @property
    def _owner(self) -> str:
        """This installation, among others of the account."""
        return f"{self._clients.settings.project}/{self._clients.settings.environment}"

    def serve(self, turn: Turn, wanted: Wanted, archive: bytes, timeout: float) -> None:
        """Make the endpoint serve what is wanted. Raises as ``SageMakerEndpoints.deploy`` does."""
        found = self._described(wanted.endpoint)
        if found is not None and self._serves(found, wanted, archive, turn):
            self._mark(found, turn.token)
            return
        deadline = time.monotonic() + timeout
        # Noted before it is made, so that whatever happens it can be removed.
        made = {**self._noted(turn, found), wanted.config: wanted.part}
        before = str(found.get("EndpointConfigName", "")) if found else ""
        self._turns.renew(turn, made=made, wanted=wanted.config, stopped=False)
        try:
            if found is not None and before == wanted.config:
                self._away(turn, wanted, found)
            self._parts.store(wanted, archive)
            self._reach(turn, wanted, deadline, timeout)
        except (PlatformFailed, Retryable) as error:
            self._note_failure(turn, wanted, error)
            self._tidy(turn, wanted.endpoint, {before})
            raise
        self._turns.renew(
            turn, served={**wanted.served, "at": self._clock()}, failed=None, stopped=False
        )
        self._tidy(turn, wanted.endpoint, {before, wanted.config})

    def _noted(self, turn: Turn, found: dict[str, Any] | None) -> dict[str, Any]:
        """What was made for an endpoint. A registry that was restored from an earlier time does not
        know what serves: if that is one of ours, it is noted again, so that it is removed once.
        """
        made: dict[str, Any] = dict(turn.body.get("made", {}))
        config = str(found.get("EndpointConfigName", "")) if found else ""
        if found and config not in made:
            runs = self._parts.running(config, found["LastModifiedTime"])
            if runs.archive:
                made[config] = {"model": runs.model, "key": runs.key}
        return made

    def _away(self, turn: Turn, wanted: Wanted, found: dict[str, Any]) -> None:
        """Delete an endpoint that has the wanted configuration by name only.

        Its model was made anew under that name, or its machines may have read another archive: an
        update to what it is called already would change nothing.
        """
        if found["EndpointStatus"] != "InService":  # it is left to come up, or to fail
            return
        runs = self._parts.running(wanted.config, found["LastModifiedTime"])
        if runs.archive == wanted.archive:
            return
        self._deleted(turn, wanted.endpoint, self.times.stop)
        self._parts.remove(wanted.config, wanted.part, model=True, archive=False)

    def stop(self, turn: Turn, real: str) -> None:
        """Delete the endpoint and everything noted of it."""
        found = self._described(real)
        served = turn.body.get("served")
        if found is not None:
            # What it holds now, if that is one of ours: a restored registry may know an older one.
            config = str(found.get("EndpointConfigName", ""))
            runs = self._parts.running(config, found["LastModifiedTime"])
            if runs.archive or not served:
                served = {"model_version": runs.model_version, "archive_sha256": runs.archive}
        made = self._noted(turn, found)
        self._deleted(turn, real, self.times.stop)
        self._turns.renew(turn, served=served, failed=None, stopped=True, wanted="", made=made)
        self._tidy(turn, real, set())

    def _serves(self, found: dict[str, Any], wanted: Wanted, archive: bytes, turn: Turn) -> bool:
        """Whether exactly what is wanted serves. Its bytes are at their place then, proven.

        An endpoint on instances cannot become serverless. With the same model it is left as it is.
        """
        if found["EndpointStatus"] != "InService":
            return False
        config = str(found["EndpointConfigName"])
        runs = self._parts.running(config, found["LastModifiedTime"])
        same = (runs.archive, runs.model_version, runs.container) == (
            wanted.archive, wanted.model_version, wanted.container,
        )  # fmt: skip
        shrinks = runs.instances and "ServerlessConfig" in wanted.hosting.variant
        if shrinks and not same:
            raise PlatformFailed(
                f"endpoint {wanted.name}",
                "runs on instances, and SageMaker converts none to serverless",
                "keep endpoint.instances, or wait until it is retired (rollout.keep_alive): the "
                "next deployment after that makes it anew",
            )
        if not same or (config != wanted.config and not shrinks):
            return False
        self._parts.store(wanted, archive)  # new machines would read it
        self._turns.renew(turn, served={**wanted.served, "config": config, "at": self._clock()},
                          failed=None, stopped=False)  # fmt: skip
        return True

    def _reach(self, turn: Turn, wanted: Wanted, deadline: float, timeout: float) -> None:
        """Step by step, until it serves what is wanted, has failed, or time is up."""
        attempt, pause = Attempt(wanted.config), self.times.poll
        trouble: Retryable | None = None
        began = self._clock()
        while True:
            self._turns.keep(turn)
            look: Look | None = None
            try:
                found = self._described(wanted.endpoint)
                look = _look(found) if found else None
                attempt = seen(attempt, look)
                step = next_step(attempt, look)
                if step not in ("wait", "failed"):
                    self._turns.renew(turn)  # only whoever still has the turn changes anything
                if step == "done":
                    self._mark(found or {}, turn.token)
                    return
                if step == "failed":
                    raise self._failed(wanted, attempt, look or Look("", ""), found or {}, began)
                if step != "wait":
                    attempt = self._act(step, attempt, look, wanted, turn)
                    pause = self.times.poll
                trouble = None
            except Retryable as error:
                if "failure_reason" in error.detail:
                    raise
                trouble = error  # throttled, or an answer was lost: the next look tells
            if time.monotonic() >= deadline:
                raise trouble or self._too_late(wanted, look, timeout)
            self._sleep(min(pause, max(0.01, deadline - time.monotonic())))
            pause = min(pause * 1.25, self.times.longest_poll)

    def _act(
        self, step: str, attempt: Attempt, look: Look | None, wanted: Wanted, turn: Turn
    ) -> Attempt:
        """One step, and what is known then. A change by somebody else meanwhile is looked at."""
        sagemaker, real = self._clients.client("sagemaker"), wanted.endpoint
        named = {"EndpointName": real, "EndpointConfigName": wanted.config}
        try:
            with translated(f"endpoint {wanted.name}"):
                if step == "delete":
                    sagemaker.delete_endpoint(EndpointName=real)
                    return replace(attempt, asked=False)
                self._parts.make(wanted, turn.token)
                if step == "create":
                    tags = {**self._clients.settings.all_tags, TOKEN_TAG: str(turn.token)}
                    tags[OWNER_TAG] = self._owner
                    told = [{"Key": key, "Value": value} for key, value in tags.items()]
                    sagemaker.create_endpoint(**named, Tags=told)
                    return replace(attempt, asked=True, before="", moved=False)
                more: dict[str, Any] = {}
                if wanted.hosting.deployment is not None:
                    more["DeploymentConfig"] = wanted.hosting.deployment
                sagemaker.update_endpoint(**named, **more)
                before = look or Look("", "")
                return replace(attempt, asked=True, before=before.config, at=before.at, moved=False)
        except PlatformFailed as error:
            if error.detail.get("code") != "ValidationException" or not any(
                text in error.reason for text in _MEANWHILE
            ):
                raise
            return attempt

    def _failed(
        self,
        wanted: Wanted,
        attempt: Attempt,
        look: Look,
        found: dict[str, Any],
        began: float,
    ) -> MlControlError:
        """The error of a deployment that did not come to serve. Its log is read here."""
        created = attempt.before == ""
        what = "it was being created, and is removed" if created else (
            "the update was rolled back; the model before serves on"
        )  # fmt: skip
        since = found["CreationTime"].timestamp() if created else began - _SKEW_SECONDS
        log = log_tail(self._clients, wanted.endpoint, since)
        return failure(
            f"endpoint {wanted.name}",
            look.reason,
            what=what,
            log=log,
            model_version=wanted.model_version,
        )

    def _too_late(self, wanted: Wanted, look: Look | None, timeout: float) -> PlatformFailed:
        status = look.status if look else "absent"
        log = log_tail(self._clients, wanted.endpoint)
        said = f"; its log ends: {log}" if log else "; it wrote no log"
        return PlatformFailed(
            f"endpoint {wanted.name}",
            f"did not answer within {timeout:g} s (SageMaker says {status}){said}",
            "look at it in SageMaker, then deploy again: what has come up by then is adopted",
            model_version=wanted.model_version,
        )

    def _note_failure(self, turn: Turn, wanted: Wanted, error: MlControlError) -> None:
        """Remember why, and remove an endpoint that never served."""
        failed = {
            "model_version": wanted.model_version,
            "reason": error.reason,
            "at": self._clock(),
        }
        self._turns.renew(turn, failed=failed, wanted="")
        with suppress(MlControlError):  # the deployment's own error is the one to tell
            found = self._described(wanted.endpoint)
            if found is not None and found["EndpointStatus"] in ("Creating", "Failed"):
                self._deleted(turn, wanted.endpoint, self.times.give_up)

    def _deleted(self, turn: Turn, real: str, timeout: float) -> None:
        """Delete an endpoint and wait until it is gone; one that is being changed is waited for."""
        sagemaker, object = self._clients.client("sagemaker"), f"endpoint {real}"
        deadline, pause = time.monotonic() + timeout, self.times.poll
        while True:
            trouble = Retryable(
                object,
                f"could not be deleted within {timeout:g} s: it is being changed",
                "wait until SageMaker has finished, then do it again",
            )
            try:
                found = self._described(real)
                if found is None:
                    return
                # One that is being created may be deleted, or may not yet.
                if found["EndpointStatus"] not in UNDER_WAY - {"Creating"}:
                    described(lambda: sagemaker.delete_endpoint(EndpointName=real), object)
            except PlatformFailed as error:
                if "in-progress" not in error.reason:
                    raise
            except Retryable as error:
                trouble = error  # throttled, or an answer was lost: the next look tells
            if time.monotonic() >= deadline:
                raise trouble
            self._sleep(pause)
            pause = min(pause * 1.5, self.times.longest_poll)
            self._turns.renew(turn)

    def _tidy(self, turn: Turn, real: str, keep: set[str]) -> None:
        """Remove every noted part but those kept and those that run; what fails is left noted."""
        with suppress(Retryable, PlatformFailed):
            found = self._described(real)
            now = _look(found) if found else Look("", "")
            keep = {*keep, now.config, now.pending} - {""}
            made = dict(turn.body.get("made", {}))
            kept = {config: part for config, part in made.items() if config in keep}
            models = {part["model"] for part in kept.values()}
            keys = {part["key"] for part in kept.values()}
            for config, part in made.items():
                if config not in kept:
                    self._turns.renew(turn)
                    self._parts.remove(
                        config,
                        part,
                        model=part["model"] not in models,
                        archive=part["key"] not in keys,
                    )
            if kept != made:
                self._turns.renew(turn, made=kept)

    def _mark(self, found: dict[str, Any], token: int) -> None:
        """Have the endpoint carry the token; where that fails, the registry has it."""
        sagemaker, arn = self._clients.client("sagemaker"), str(found.get("EndpointArn", ""))
        with suppress(MlControlError), translated(arn):
            told = {TOKEN_TAG: str(token), OWNER_TAG: self._owner}
            tags = [{"Key": key, "Value": value} for key, value in told.items()]
            sagemaker.add_tags(ResourceArn=arn, Tags=tags)

    def _described(self, real: str) -> dict[str, Any] | None:
        sagemaker = self._clients.client("sagemaker")
        return described(lambda: sagemaker.describe_endpoint(EndpointName=real), f"endpoint {real}")


def _look(found: dict[str, Any]) -> Look:
    pending = found.get("PendingDeploymentSummary") or {}
    return Look(
        str(found["EndpointStatus"]),
        str(found.get("EndpointConfigName", "")),
        str(pending.get("EndpointConfigName", "")),
        str(found.get("FailureReason", "")),
        found["LastModifiedTime"].timestamp(),
    )
