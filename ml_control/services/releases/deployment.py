"""endpoint and ab_config: a proven model on the idle variant, then its rollout begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_control.core.hosting import SERVERLESS_BYTES, start_seconds
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Lease, Rollout, Variant
from ml_control.core.rollout import (
    Action,
    apply,
    champion_variant,
    idle_variant,
    variant_of,
)
from ml_control.core.rollout.policy import released
from ml_control.core.rows import bodies
from ml_control.core.tolerance import allowed, scale_of
from ml_control.errors import Conflict, MlControlError, NotProven, PlatformFailed, Retryable
from ml_control.platform import Platform
from ml_control.ports import EndpointState
from ml_control.services.models.evidence import ARCHIVE
from ml_control.services.models.gatekeeper import Proven, require_once_proven, require_proven
from ml_control.services.releases.approvals import require_consent
from ml_control.services.releases.reconcile import (
    STAGE,
    endpoint_name,
    halt_unproven,
    require_known,
)

Say = Callable[[str], None]
# What history calls each change of the Rollout; the others are called by their own name.
DONE = {
    "deploy": "deployed",
    "start": "started",
    "share": "traffic",
    "promote": "promoted",
    "revert": "rolled_back",
    "roll_back": "rolled_back",
    "keep": "kept",
    "release": "released",
    "retire": "retired",
    "halt": "halted",
    "pause": "paused",
    "resume": "resumed",
    "rebase": "rebased",
}


@dataclass(frozen=True)
class Deployed:
    """A variant that serves a proven model and answered its golden records live."""

    variant: str
    state: EndpointState
    proven: Proven
    golden_rows: int
    changed: bool


def deploy(
    platform: Platform, pipeline: Pipeline, run: str, say: Say, version: str | None = None
) -> Deployed:
    """Put a proven model on the idle variant and make it answer its golden records live.

    The version is the candidate's unless named. Traffic does not move. Raises ``NotProven`` or
    ``Conflict`` before anything is started (see :func:`require_proven`), also when a person has to
    approve it first or another model's rollout is in progress (``waits`` says that its turn will
    come), ``PlatformFailed`` when the server does not come up or answers differently from
    training; the other variant serves on.
    """
    registry = platform.registry
    version = version or candidate_of(platform, pipeline)
    rollout = registry.rollouts.get(pipeline.name)
    if rollout.state != "idle":  # told without the lease, which its job may hold now
        require_turn(platform, pipeline, rollout, require_proven(platform, pipeline, version))
    with registry.leases.hold(pipeline.name, STAGE, run) as lease:
        proven = require_proven(platform, pipeline, version)
        rollout = registry.rollouts.get(pipeline.name)
        require_turn(platform, pipeline, rollout, proven)
        holder = variant_of(rollout, version)
        variant = holder or idle_variant(rollout)
        has = "has this model already" if holder else f"starts with model {version[:12]}"
        say(f"variant {variant} {has}")
        if holder is not None:
            state, rows = serve(platform, pipeline, variant, proven, lease)
            return Deployed(variant, state, proven, rows, changed=False)
        if variant in rollout.losing_since:
            because = released(rollout, variant, version)
            rollout = write(
                platform, rollout, Action("release", because, rollout.id, variant,
                                          rollout.variants[variant].model_version), lease, run
            )  # fmt: skip
        state, rows = serve(platform, pipeline, variant, proven, lease)
        say(f"{state.url} answered {rows} golden records as in training")
        name_it(platform, rollout, variant, state, proven, lease, run)
        return Deployed(variant, state, proven, rows, changed=True)


def require_turn(platform: Platform, pipeline: Pipeline, rollout: Rollout, proven: Proven) -> None:
    """Raise ``NotProven`` or ``Conflict`` when a proven model may not be put up, or not yet."""
    version = proven.model.version
    name = f"{pipeline.name} model {version[:12]}"
    if version == rollout.champion:
        return
    if version in rollout.rolled_back:
        raise NotProven(
            name,
            "it lost live and was rolled back",
            f"train another model: 'ml-control run {pipeline.name}' once there is new data",
        )
    require_consent(platform, pipeline, version, proven.verdict)
    if rollout.state != "idle" and variant_of(rollout, version) is None:
        raise Conflict(
            name,
            f"rollout {rollout.id} is in progress; it waits for its end and is then gated again",
            f"wait, or end it with 'ml-control rollback {pipeline.name}'",
            rollout=rollout.id,
            waits=True,
        )


def name_it(
    platform: Platform,
    rollout: Rollout,
    variant: str,
    state: EndpointState,
    proven: Proven,
    lease: Lease,
    actor: str,
) -> Rollout:
    """Name a model on a variant, once it serves there and answered its golden records."""
    version = proven.model.version
    entry = Variant(
        endpoint=state.name,
        model_version=version,
        verdict=proven.verdict.key,
        proven_live_at=platform.registry.clock(),
    )
    because = f"variant {variant} answered its golden records live"
    action = Action("deploy", because, rollout.id, variant, version)
    return write(platform, rollout, action, lease, actor, entry=entry)


def write(
    platform: Platform,
    rollout: Rollout,
    action: Action,
    lease: Lease,
    actor: str,
    *,
    entry: Variant | None = None,
    details: Mapping[str, Any] | None = None,
) -> Rollout:
    """What an action makes of the Rollout, in one write under the lease, with its decision."""
    registry = platform.registry
    after = apply(rollout, action, registry.clock(), entry)
    if after is rollout:
        return rollout
    more = {"model": action.version, "variant": action.variant} if action.variant else {}
    return registry.rollouts.write(
        rollout,
        after,
        registry.leases.fence(lease),
        action=DONE.get(action.kind, action.kind),
        because=action.because,
        actor=actor,
        details={**more, **(details or {})},
    )


def route(platform: Platform, pipeline: Pipeline, run: str, say: Say) -> Rollout:
    """Begin the rollout of the variant that serves the candidate, by the pipeline's strategy.

    The first model of a pipeline takes all traffic, and so does any by ``all_at_once``. Asks the
    verdict anew, and the endpoint its golden records, so that materialising this step by hand
    cannot route to anything unproven. Raises ``NotProven``, ``Conflict``, ``PlatformFailed``; the
    routing before it stands.
    """
    # It is above this module, and it deploys by it.
    from ml_control.services.releases.rollout import advance_under

    registry = platform.registry
    with registry.leases.hold(pipeline.name, STAGE, run) as lease:
        version = candidate_of(platform, pipeline)
        rollout = registry.rollouts.get(pipeline.name)
        if rollout.champion == version and rollout.live is not None:
            say(f"all traffic goes to model {version[:12]} already")
            return rollout
        proven = require_proven(platform, pipeline, version)
        require_turn(platform, pipeline, rollout, proven)
        if variant_of(rollout, version) is None:
            raise NotProven(
                f"{pipeline.name} model {version[:12]}",
                "no variant serves it",
                f"materialise {pipeline.name}/endpoint first",
            )
        done = advance_under(platform, pipeline, lease, run, say)
        say(done.because)
        return done.rollout


def ensure_serving(platform: Platform, pipeline: Pipeline) -> dict[str, EndpointState]:
    """Bring back every variant that the Rollout names, the live one first.

    Only bytes with a passing verdict come back, and what serves without one is stopped first. While
    a run deploys, nothing is touched. What keeps one variant down does not keep the other: the live
    one's error is raised at the end, or ``Unknown`` when all that served had to be stopped.
    """
    rollout = platform.registry.rollouts.get(pipeline.name)
    states: dict[str, EndpointState] = {}
    refused: MlControlError | None = None
    for variant, unknown in halt_unproven(platform, pipeline).items():
        name = endpoint_name(pipeline, variant)
        states[variant] = EndpointState(name, "Failed", reason=f"stopped: {unknown}")
        refused = unknown if rollout.live is None else None
    for variant in sorted(rollout.variants, key=lambda name: name != rollout.live):
        name = endpoint_name(pipeline, variant)
        state = platform.endpoints.describe(name)
        wanted = rollout.variants[variant].model_version
        if state.state != "InService" or state.model_version != wanted:
            try:
                state = _bring_back(platform, pipeline, variant)
            except Conflict:
                pass  # a run is deploying; it leaves the endpoints as the Rollout says
            except MlControlError as error:
                state = EndpointState(name, "Failed", reason=str(error))
                refused = error if variant == rollout.live else refused
        states[variant] = state
    if refused is not None:
        raise refused
    return states


def _bring_back(platform: Platform, pipeline: Pipeline, variant: str) -> EndpointState:
    """Serve what the Rollout names for a variant, read again under the deployer's lease."""
    registry = platform.registry
    name = endpoint_name(pipeline, variant)
    with registry.leases.hold(pipeline.name, STAGE, f"keeper of {name}") as lease:
        rollout = registry.rollouts.get(pipeline.name)
        entry, held = rollout.variants[variant], platform.endpoints.describe(name).model_version
        judged = variant in (rollout.challenger, champion_variant(rollout))
        if rollout.state == "in_progress" and judged and held not in ("", entry.model_version):
            why = f"endpoint {name} held model {held[:12]}: whose answers were counted is unknown"
            write(platform, rollout, Action("halt", why, rollout.id), lease, lease.holder)
        proven = require_once_proven(platform, pipeline, entry.model_version)
        return serve(platform, pipeline, variant, proven, lease)[0]


def serve(
    platform: Platform, pipeline: Pipeline, variant: str, proven: Proven, lease: Lease
) -> tuple[EndpointState, int]:
    """Serve these bytes on a variant; if they are serving already, nothing changes.

    Gives the endpoint's state and the number of golden records that it answered as in training.
    The lease's token goes along, so that a deployer which slept past its lease replaces nothing. A
    holder whose token is refused all the same has a registry that was restored from a backup: its
    counter catches up, and ``Retryable`` is raised, for the next lease is beyond it.
    """
    model, name = proven.model, endpoint_name(pipeline, variant)
    try:
        state = platform.endpoints.deploy(
            name,
            proven.archive,
            model.version,
            model.container,
            start_seconds(platform.settings.platform, pipeline.spec.endpoint),
            lease.token,
            pipeline.spec.endpoint,
        )
    except OSError as error:
        raise PlatformFailed(
            f"endpoint {name}",
            f"its files could not be written: {error}",
            "free space or correct permissions; the earlier variant serves on",
        ) from error
    except Conflict as error:
        if "seen" not in error.detail:
            raise
        platform.registry.leases.catch_up(lease, int(error.detail["seen"]))
        raise Retryable(
            f"endpoint {name}",
            "it was deployed to by a later state of this registry, which has caught up now",
            "do it again",
        ) from error
    return state, answer_golden(platform, name, proven)


def answer_golden(platform: Platform, name: str, proven: Proven) -> int:
    """Send the golden rows to the live endpoint and compare its answers with the trainer's.

    Gives the number of rows. Raises ``PlatformFailed`` naming the first that differs.
    """
    rows: list[str] = proven.golden["rows"]
    answers: list[list[float]] = []
    for body in bodies(rows, SERVERLESS_BYTES):
        reply = platform.endpoints.invoke(name, body, archive=proven.model.files[ARCHIVE])
        if reply.status != 200:
            raise PlatformFailed(
                f"endpoint {name}",
                f"answered its golden records with status {reply.status}: {reply.body[:300]!r}",
                "see the endpoint's log; the earlier variant serves on",
            )
        answers += parse_predictions(reply.body)
    expected: list[list[float]] = proven.golden["predictions"]
    difference = first_difference(expected, answers)
    if difference is not None:
        raise PlatformFailed(
            f"endpoint {name}",
            f"answered golden record {difference} differently from training",
            "compare with 'ml-control verify'; the earlier variant serves on",
        )
    return len(rows)


def parse_predictions(body: bytes) -> list[list[float]]:
    """The values of a CSV answer, a list per row. Raises ``PlatformFailed`` for another form."""
    try:
        return [[float(cell) for cell in line.split(",")] for line in body.decode().split()]
    except ValueError as error:
        raise PlatformFailed(
            "endpoint", f"answered no numbers: {body[:200]!r}", "see the endpoint's log"
        ) from error


def first_difference(expected: list[list[float]], answers: list[list[float]]) -> int | None:
    """The first row that is not equal within the float32 tolerance, or None."""
    if len(expected) != len(answers):
        return min(len(expected), len(answers))
    scale = scale_of(expected)
    for i, (row, answer) in enumerate(zip(expected, answers, strict=True)):
        if len(row) != len(answer) or not all(
            abs(e - a) <= allowed(e, scale) for e, a in zip(row, answer, strict=True)
        ):
            return i
    return None


def predict(
    platform: Platform, pipeline: Pipeline, records: list[dict[str, Any]]
) -> dict[str, Any]:
    """Predictions of the live variant for raw records, in the shape of the HTTP answer.

    Raises ``NotProven`` when nothing is live, ``BadObject`` for records that do not fit,
    ``PlatformFailed`` when the endpoint refuses.
    """
    import secrets

    from ml_control.core.features import FeatureSpec, csv_row

    rollout = platform.registry.rollouts.get(pipeline.name)
    live = rollout.live
    if live is None:
        require_known(platform, pipeline)
        raise NotProven(
            f"{pipeline.name}", "no model is live", f"run 'ml-control run {pipeline.name}'"
        )
    entry = rollout.variants[live]
    ensure_serving(platform, pipeline)
    proven = require_once_proven(platform, pipeline, entry.model_version)
    features = FeatureSpec.model_validate_json(proven.features)
    rows = [csv_row(features.encode_record(record)) for record in records]
    answers: list[list[float]] = []
    for body in bodies(rows, SERVERLESS_BYTES):
        reply = platform.endpoints.invoke(entry.endpoint, body, archive=proven.model.files[ARCHIVE])
        if reply.status != 200:
            raise PlatformFailed(
                f"endpoint {entry.endpoint}",
                f"status {reply.status}: {reply.body[:300].decode(errors='replace')}",
                "correct the records",
            )
        answers += parse_predictions(reply.body)
    return {
        "request_id": secrets.token_hex(8),
        "variant": live,
        "model_version": entry.model_version,
        "predictions": [features.decode(row) for row in answers],
    }


def candidate_of(platform: Platform, pipeline: Pipeline) -> str:
    """The newest model's version. Raises ``NotProven`` when there is none."""
    candidate = platform.registry.models.candidate(pipeline.name)
    if candidate is None:
        raise NotProven(
            f"{pipeline.name}", "no model was trained yet", f"materialise {pipeline.name}/model"
        )
    return candidate.version
