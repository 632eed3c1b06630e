"""What an endpoint is made of: the served archive, its model, its configuration.

All are named by their content and never changed: what is there under a name is what was wanted, or
somebody else's, which is found by comparing.

    artifacts/_served/<endpoint>/<sha256>/model.tar.gz    the archive, once for each endpoint
    <endpoint>-<digest>                                   the model, and likewise its configuration
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ml_control.aws.client import Clients, code_of, translated
from ml_control.core.digests import digest_of, sha256
from ml_control.core.hosting import Hosting
from ml_control.errors import Conflict, InvalidSpec, PlatformFailed
from ml_control.lake import Lake

LONGEST_NAME = 63
VERSION_VARIABLE = "ML_CONTROL_MODEL_VERSION"
CONTAINER_VARIABLE = "ML_CONTROL_CONTAINER"
UNKNOWN = "unknown"  # the model version of what ml-control did not put there
_SERVED = "artifacts/_served"
_DIGITS = 16


@dataclass(frozen=True)
class Wanted:
    """One deployment: everything that decides what serves, and the names that follow from it."""

    name: str
    endpoint: str  # SageMaker's name of it
    archive: str
    model_version: str
    container: str
    image: str
    hosting: Hosting
    url: str
    key: str
    role: str
    capture_url: str
    kms_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The container's variables; it heeds none of them."""
        return {VERSION_VARIABLE: self.model_version, CONTAINER_VARIABLE: self.container}

    @property
    def model(self) -> str:
        """SageMaker's name of the model."""
        return _model_name(self.endpoint, self.url, self.image, self.role, self.environment)

    @property
    def config(self) -> str:
        """SageMaker's name of the endpoint configuration."""
        hosting = self.hosting
        content = [self.model, hosting.variant, hosting.capture, self.capture_url, self.kms_key]
        return _named(self.endpoint, digest_of(content))

    @property
    def part(self) -> dict[str, str]:
        """What is noted of it before it is made, so that it can be removed."""
        return {"model": self.model, "key": self.key}

    @property
    def served(self) -> dict[str, str]:
        """What is told of it once it serves."""
        return {
            "config": self.config,
            "model_version": self.model_version,
            "archive_sha256": self.archive,
            "container": self.container,
        }


@dataclass(frozen=True)
class Running:
    """What a configuration serves. ``archive`` is empty where that is not exactly one of ours.

    ``replaced``: the address of an archive that was ours and has other bytes now.
    """

    model_version: str = UNKNOWN
    archive: str = ""
    container: str = ""
    instances: bool = False
    model: str = ""
    key: str = ""
    replaced: str = ""


class Parts:
    """Makes, reads and removes the parts of endpoints."""

    def __init__(self, clients: Clients, lake: Lake) -> None:
        self._clients = clients
        self._lake = lake
        self._known: dict[str, tuple[object, Running]] = {}
        self._seen: dict[str, str] = {}  # by key of an archive, the stamp of its proven bytes

    def wanted(
        self,
        name: str,
        archive: bytes,
        model_version: str,
        container: str,
        image: str,
        hosting: Hosting,
    ) -> Wanted:
        """A deployment by all that decides it. Raises ``InvalidSpec`` without a role."""
        settings = self._clients.settings
        if not settings.role_arn:
            raise InvalidSpec(
                "setting aws.role_arn",
                "is not set, and SageMaker needs a role to read the model with",
                "name the role under [aws] in ml-control.toml",
            )
        digest = sha256(archive)
        key = f"{_SERVED}/{name}/{digest}/model.tar.gz"
        return Wanted(
            name=name,
            endpoint=endpoint_name(settings.project, name, settings.environment),
            archive=digest,
            model_version=model_version,
            container=container,
            image=image,
            hosting=hosting,
            url=self._lake.uri(key),
            key=key,
            role=settings.role_arn,
            capture_url=self._lake.uri(f"logs/_capture/{name}") if hosting.capture else "",
            kms_key=settings.kms_key,
        )

    def store(self, wanted: Wanted, archive: bytes) -> None:
        """The archive where SageMaker reads it, its bytes proven after. Another's are replaced."""
        try:
            self._lake.create(wanted.key, archive)
        except Conflict:
            if sha256(self._lake.get(wanted.key)) != wanted.archive:
                self._lake.put(wanted.key, archive)
        self._lake.verified(wanted.key, wanted.archive)

    def make(self, wanted: Wanted, token: int) -> None:
        """The model and the configuration, unless they are there."""
        tags = _tags(
            self._clients.settings.all_tags,
            {
                "ml-control:model-version": wanted.model_version,
                "ml-control:archive": wanted.archive,
                "ml-control:container": wanted.container,
                "ml-control:token": str(token),
            },
        )
        container = {
            "Image": wanted.image,
            "ModelDataUrl": wanted.url,
            "Environment": wanted.environment,
        }
        model = {"PrimaryContainer": container, "ExecutionRoleArn": wanted.role}
        self._create("model", wanted.model, {"ModelName": wanted.model, **model}, model, tags)
        variant = {**wanted.hosting.variant, "ModelName": wanted.model}
        config: dict[str, Any] = {"ProductionVariants": [variant]}
        if wanted.hosting.capture:
            config["DataCaptureConfig"] = _capture(wanted)
        more = {"KmsKeyId": wanted.kms_key} if self._takes_key(wanted) else {}
        asked = {"EndpointConfigName": wanted.config, **config, **more}
        self._create("endpoint_config", wanted.config, asked, config, tags)

    def running(self, config: str, at: object) -> Running:
        """What a configuration serves. ``at``: when its endpoint was last changed.

        Asked once for each change: neither it nor its model can be changed, but somebody may make
        others of their names. The archive is looked at each time, for machines that are started
        later read what is there then: one that was replaced is none of ours.
        """
        known, found = self._known.get(config, (None, Running()))
        if not found.archive or known != at:
            found = self._read(config)
            if found.archive:  # else it may have been read in the moment before it was whole
                self._known[config] = (at, found)
        if self._is_whole(found):
            return found
        return replace(found, archive="", replaced=self._lake.uri(found.key))

    def _is_whole(self, runs: Running) -> bool:
        """Whether a served archive has its bytes. One that is gone can be read by nobody."""
        if not runs.archive or not (stamp := self._lake.stamp(runs.key)):
            return True
        if self._seen.get(runs.key) == stamp:
            return True
        if sha256(self._lake.get(runs.key)) != runs.archive:
            return False
        if self._lake.stamp(runs.key) == stamp:  # it was this one that was read
            self._seen[runs.key] = stamp
        return True

    def remove(self, config: str, part: Mapping[str, str], *, model: bool, archive: bool) -> None:
        """A configuration and, unless others use them, its model and its archive."""
        sagemaker = self._clients.client("sagemaker")
        _absent_is_fine(
            lambda: sagemaker.delete_endpoint_config(EndpointConfigName=config),
            f"endpoint configuration {config}",
        )
        self._known.pop(config, None)
        if model:
            name = part["model"]
            _absent_is_fine(lambda: sagemaker.delete_model(ModelName=name), f"model {name}")
        if archive:
            self._lake.delete(part["key"])

    def _takes_key(self, wanted: Wanted) -> bool:
        return bool(wanted.kms_key) and wanted.hosting.volume_key

    def _create(
        self,
        kind: str,
        name: str,
        asked: Mapping[str, Any],
        compared: Mapping[str, Any],
        tags: list[dict[str, str]],
    ) -> None:
        """Create a part; one that is there must be the same. Raises ``Conflict`` when it is not."""
        sagemaker = self._clients.client("sagemaker")
        object = f"{kind.replace('_', ' ')} {name}"
        if (found := self._described(kind, name)) is None:
            try:
                with translated(object):
                    getattr(sagemaker, f"create_{kind}")(**asked, Tags=tags)
                return
            except PlatformFailed:
                # It was made in the meantime, perhaps by the request before, whose answer was lost.
                if (found := self._described(kind, name)) is None:
                    raise
        if not _contains(found, compared):
            raise Conflict(
                object,
                "is there, and is not what its name says: somebody made it by hand",
                f"delete the {object} in SageMaker, then deploy again",
            )

    def _described(self, kind: str, name: str) -> dict[str, Any] | None:
        sagemaker = self._clients.client("sagemaker")
        field = "ModelName" if kind == "model" else "EndpointConfigName"
        return described(lambda: getattr(sagemaker, f"describe_{kind}")(**{field: name}), name)

    def _read(self, config: str) -> Running:
        found = self._described("endpoint_config", config)
        variants = (found or {}).get("ProductionVariants", [])
        if found is None or len(variants) != 1 or found.get("ShadowProductionVariants"):
            return Running()
        instances = "ServerlessConfig" not in variants[0]
        name = str(variants[0].get("ModelName", ""))
        model = self._described("model", name) if name else None
        container = (model or {}).get("PrimaryContainer", {})
        environment = dict(container.get("Environment", {}))
        version = str(environment.pop(VERSION_VARIABLE, "")) or UNKNOWN
        tag = str(environment.pop(CONTAINER_VARIABLE, ""))
        key, archive = self._served(str(container.get("ModelDataUrl", "")))
        # Other variables change the answers, and so does another image. The name tells the rest:
        # somebody may run our archive in another of our containers than it was proven for.
        own = not environment and bool(tag) and not (model or {}).get("Containers")
        if not own or container.get("Image") != self._known_image(tag):
            archive = ""
        if name != self._name_of(key, container, str((model or {}).get("ExecutionRoleArn", ""))):
            archive = ""
        return Running(version, archive, tag, instances, name, key)

    def _name_of(self, key: str, container: Mapping[str, Any], role: str) -> str:
        """What a model of ours is called that is made of this; nothing for another's archive."""
        if not key:
            return ""
        settings, name = self._clients.settings, key.split("/")[2]
        endpoint = endpoint_name(settings.project, name, settings.environment)
        environment = dict(container.get("Environment", {}))
        return _model_name(
            endpoint, str(container["ModelDataUrl"]), str(container["Image"]), role, environment
        )

    def _known_image(self, tag: str) -> str:
        """The image of a tag that somebody else may have written; none for an unknown one."""
        try:
            return self.image(tag)
        except InvalidSpec:
            return ""

    def image(self, tag: str) -> str:
        """The image of a container here. Raises ``InvalidSpec`` for an unknown tag."""
        from ml_control.aws.images import image_uri

        return image_uri(tag, self._clients.region)

    def _served(self, url: str) -> tuple[str, str]:
        """(lake key, digest) of an archive of ours behind an address; empty for another."""
        root = self._lake.uri(_SERVED)
        found = re.fullmatch(rf"{re.escape(root)}/([\w-]+)/([0-9a-f]{{64}})/model\.tar\.gz", url)
        return (f"{_SERVED}{url[len(root) :]}", found[2]) if found else ("", "")


def endpoint_name(project: str, name: str, environment: str) -> str:
    """SageMaker's name of an endpoint: ``<project>-<name>-<environment>``.

    One that SageMaker would not take, for its length or a ``_``, is told apart by a digest.
    """
    whole = f"{project}-{name}-{environment}"
    if len(whole) <= LONGEST_NAME and "_" not in whole:
        return whole
    return _named(whole.replace("_", "-"), digest_of([whole]))


def described(ask: Any, object: str) -> dict[str, Any] | None:
    """What a describe call answers; None when there is no such thing. Raises as ``translate``."""
    with translated(object):
        try:
            answer: dict[str, Any] = ask()
        except Exception as error:
            if is_absent(error):
                return None
            raise
    return answer


def is_absent(error: Exception) -> bool:
    """Whether SageMaker says that something is not there: it has no code of its own for that."""
    return code_of(error) in ("ValidationException", "ResourceNotFound") and (
        "Could not find" in str(error) or "does not exist" in str(error)
    )


def _absent_is_fine(call: Any, object: str) -> None:
    described(call, object)


def _model_name(
    endpoint: str, url: str, image: str, role: str, environment: Mapping[str, str]
) -> str:
    return _named(endpoint, digest_of([endpoint, url, image, role, dict(environment)]))


def _named(prefix: str, digest: str) -> str:
    return f"{prefix[: LONGEST_NAME - _DIGITS - 1].rstrip('-')}-{digest[:_DIGITS]}"


def _tags(*groups: Mapping[str, str]) -> list[dict[str, str]]:
    merged = {key: value for group in groups for key, value in group.items()}
    return [{"Key": key, "Value": value} for key, value in merged.items() if value]


def _capture(wanted: Wanted) -> dict[str, Any]:
    capture: dict[str, Any] = {
        "EnableCapture": True,
        "InitialSamplingPercentage": wanted.hosting.capture,
        "DestinationS3Uri": wanted.capture_url,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }
    if wanted.kms_key:
        capture["KmsKeyId"] = wanted.kms_key
    return capture


def _contains(found: Any, wanted: Any) -> bool:
    """Whether everything wanted is in what was found; SageMaker adds defaults of its own."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and _contains(found[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_contains(a, b) for a, b in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)
