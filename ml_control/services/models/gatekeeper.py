"""The one door to serving: nothing is deployed but bytes with a passing verdict of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ml_control.core.artifact import unpack, version_of
from ml_control.core.containers import container
from ml_control.core.digests import sha256
from ml_control.core.gates import gate_config, gate_names
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import ModelVersion, Verdict
from ml_control.errors import Conflict, NotProven, Retryable
from ml_control.platform import Platform
from ml_control.services.data.audit import quality_digest
from ml_control.services.models.evidence import ARCHIVE, FEATURES, GOLDEN, MODEL_FILES


@dataclass(frozen=True)
class Proven:
    """Bytes that may serve, with the verdict that says so."""

    model: ModelVersion
    verdict: Verdict
    archive: bytes
    features: bytes
    golden: dict[str, Any]


def require_proven(platform: Platform, pipeline: Pipeline, version: str) -> Proven:
    """Read a model version's bytes and the verdict for exactly them, under the present question.

    Raises ``NotProven`` when the bytes are not this version's, when no verdict exists or a gate
    said no, when a record contradicts itself or the history, and ``Conflict`` when the champion or
    the gates changed since the verdict.
    """
    model, files = _authentic(platform, pipeline, version)
    version = model.version
    name = f"{pipeline.name} model {version[:12]}"
    champion = platform.registry.rollouts.get(pipeline.name).champion
    config = gate_config(pipeline.spec, quality_digest(pipeline.spec, pipeline.suite))
    verdicts = _verdicts(platform, pipeline, version)
    if not verdicts:
        raise NotProven(name, "there is no verdict for it", _again(pipeline))
    # Once champion, a model is compared with itself: the verdict it was promoted on still stands.
    champions = {champion} if champion != version else {v.champion for v in verdicts}
    asked = [v for v in verdicts if v.gate_config == config and v.champion in champions]
    if not asked:
        newest = verdicts[0]
        if not newest.passed:
            raise NotProven(name, _refusal(newest), _fix(pipeline))
        moved = "the gates" if newest.gate_config != config else "the champion"
        raise Conflict(name, f"{moved} changed since its verdict", _again(pipeline))
    if not asked[0].passed:
        raise NotProven(name, _refusal(asked[0]), _fix(pipeline), failed=asked[0].failed)
    _complete(pipeline, asked[0])
    _remembered(platform, pipeline, asked[0])
    golden: dict[str, Any] = json.loads(files[GOLDEN])
    return Proven(model, asked[0], files[ARCHIVE], files[FEATURES], golden)


def require_once_proven(platform: Platform, pipeline: Pipeline, version: str) -> Proven:
    """Like :func:`require_proven` for a version that the Rollout already names.

    Its verdict was asked when it was promoted; a later champion or gate does not unmake it. Raises
    ``NotProven`` for other bytes, another container, no passing verdict, or an edited one.
    """
    model, files = _authentic(platform, pipeline, version)
    passed = [v for v in _verdicts(platform, pipeline, model.version) if v.passed]
    if not passed:
        raise NotProven(
            f"{pipeline.name} model {version[:12]}",
            "there is no passing verdict for it",
            _again(pipeline),
        )
    _remembered(platform, pipeline, passed[0])
    golden: dict[str, Any] = json.loads(files[GOLDEN])
    return Proven(model, passed[0], files[ARCHIVE], files[FEATURES], golden)


def _verdicts(platform: Platform, pipeline: Pipeline, version: str) -> list[Verdict]:
    """The recorded verdicts of exactly these bytes. Raises ``NotProven`` for a changed record."""
    found = platform.registry.models.verdicts(pipeline.name, version)
    for verdict in found:
        said = bool(verdict.gates) and not verdict.failed
        about = (verdict.pipeline, verdict.model_version)
        if verdict.passed != said or about != (pipeline.name, version):
            raise NotProven(
                f"{pipeline.name} model {version[:12]}",
                "its recorded verdict contradicts itself: the record was changed",
                "restore the registry from a backup, or train again",
            )
    return found


def _complete(pipeline: Pipeline, verdict: Verdict) -> None:
    """Raise ``NotProven`` when a verdict under the present gates lacks one of them."""
    missing = set(gate_names(pipeline.spec)) - {gate.name for gate in verdict.gates}
    if missing:
        raise NotProven(
            f"{pipeline.name} model {verdict.model_version[:12]}",
            f"its recorded verdict lacks the gates {', '.join(sorted(missing))}",
            "restore the registry from a backup, or train again",
        )


def _remembered(platform: Platform, pipeline: Pipeline, verdict: Verdict) -> None:
    """Raise ``NotProven`` when history remembers another outcome of a passing verdict."""
    for decision in platform.registry.history.decisions(pipeline.name):
        about = decision.subject == verdict.model_version and decision.action.startswith("gated:")
        same = about and decision.details.get("verdict") == verdict.key
        if same and decision.action != "gated: passed":
            raise NotProven(
                f"{pipeline.name} model {verdict.model_version[:12]}",
                f"its recorded verdict is yes, but history says {decision.action} "
                f"({decision.because}): the record was changed",
                "restore the registry from a backup, or train again",
            )


def _authentic(
    platform: Platform, pipeline: Pipeline, version: str
) -> tuple[ModelVersion, dict[str, bytes]]:
    model = platform.registry.models.get(pipeline.name, version)
    name = f"{pipeline.name} model {version[:12]}"
    if model.pipeline != pipeline.name or not model.version.startswith(version):
        raise NotProven(
            name,
            f"its record is about {model.pipeline} model {model.version[:12]}: it was changed",
            "restore the registry from a backup, or train again",
        )
    files = {file: _file(platform, name, f"{model.prefix}/{file}") for file in MODEL_FILES}
    found = version_of({file: sha256(data) for file, data in files.items()})
    if found != model.version:
        raise NotProven(
            name,
            f"its files are not the ones that were judged (their digest is {found[:12]})",
            f"restore {model.prefix} from a backup, or train again",
        )
    unpack(files[ARCHIVE], container(model.container))  # what its record says it was proven for
    return model, files


def _file(platform: Platform, name: str, key: str) -> bytes:
    """A file of a model. Raises ``NotProven`` when it is gone, ``Retryable`` when the lake is
    busy: a throttled read says nothing about the model.
    """
    try:
        return platform.lake.get(key)
    except Retryable as error:
        if platform.lake.exists(key):
            raise
        raise NotProven(
            name, f"{error.object} {error.reason}", "restore the file or train again"
        ) from error


def _refusal(verdict: Verdict) -> str:
    reasons = [f"{gate.name}: {gate.reason}" for gate in verdict.gates if not gate.passed]
    return "its verdict is no: " + "; ".join(reasons)


def _again(pipeline: Pipeline) -> str:
    return f"gate it again: materialise {pipeline.name}/model, or 'ml-control run {pipeline.name}'"


def _fix(pipeline: Pipeline) -> str:
    return f"see the gates in 'ml-control models {pipeline.name}', then train on better data"
