"""Model versions, their verdicts, training runs and the current candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_control.core.records import ModelVersion, Verdict
from ml_control.core.training_state import TrainingState
from ml_control.errors import Conflict, NotProven
from ml_control.ports import Check, Item, Put, Table, Tables

_MODELS: Table = "model-metadata"
_METRICS: Table = "training-metrics"
_LEDGER: Table = "control-ledger"
_CANDIDATE = "#candidate"


class Models:
    """What was trained, what was judged, and which version is to be deployed next."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def register(self, model: ModelVersion, fence: Check) -> None:
        """Record a version and make it the candidate; a version already there stays as it was."""
        item = Item(model.pipeline, model.version, model.to_json())
        candidate = Item(model.pipeline, _CANDIDATE, {"version": model.version})
        writes: list[Put | Check] = [fence, Put(_MODELS, candidate, None)]
        if self._tables.get(_MODELS, model.pipeline, model.version) is None:
            writes.append(Put(_MODELS, item, 0))
        self._tables.transact(writes)

    def get(self, pipeline: str, version: str) -> ModelVersion:
        """A version by its digest or an unambiguous beginning of it. Raises ``NotProven``."""
        item = self._tables.get(_MODELS, pipeline, version)
        if item is None and len(version) >= 6:
            found = list(self._tables.query(_MODELS, pipeline, prefix=version, limit=2))
            item = found[0] if len(found) == 1 else None
        if item is None or item.sk == _CANDIDATE:
            raise NotProven(
                f"{pipeline} model {version}",
                "no such model version is registered",
                f"see 'ml-control models {pipeline}'",
            )
        return ModelVersion.model_validate(item.body)

    def all(self, pipeline: str) -> list[ModelVersion]:
        """Every version, newest first."""
        found = [
            ModelVersion.model_validate(item.body)
            for item in self._tables.query(_MODELS, pipeline)
            if item.sk != _CANDIDATE
        ]
        return sorted(found, key=lambda model: model.created_at, reverse=True)

    def candidate(self, pipeline: str) -> ModelVersion | None:
        """The version that the last training made."""
        item = self._tables.get(_MODELS, pipeline, _CANDIDATE)
        return self.get(pipeline, str(item.body["version"])) if item else None

    def record_verdict(self, verdict: Verdict) -> Verdict:
        """Keep a verdict. The same question asked again keeps its first answer."""
        pk, sk = f"verdict#{verdict.pipeline}", f"{verdict.model_version}#{verdict.key}"
        try:
            self._tables.transact([Put(_LEDGER, Item(pk, sk, verdict.to_json()), 0)])
        except Conflict:
            kept = self._tables.get(_LEDGER, pk, sk)
            if kept is None:
                raise
            return Verdict.model_validate(kept.body)
        return verdict

    def verdicts(self, pipeline: str, version: str = "") -> list[Verdict]:
        """Verdicts of a pipeline or of one model version, newest first."""
        prefix = f"{version}#" if version else ""
        found = [
            Verdict.model_validate(item.body)
            for item in self._tables.query(_LEDGER, f"verdict#{pipeline}", prefix=prefix)
        ]
        return sorted(found, key=lambda verdict: verdict.at, reverse=True)

    def training(self, pipeline: str) -> TrainingState:
        """The last dataset that training was asked for."""
        item = self._tables.get(_LEDGER, f"training#{pipeline}", "state")
        return TrainingState.model_validate(item.body) if item else TrainingState(pipeline=pipeline)

    def set_training(self, state: TrainingState, fence: Check | None = None) -> None:
        """Record how the last training stands; with a fence, only while its lease is ours."""
        item = Item(f"training#{state.pipeline}", "state", state.to_json())
        put = Put(_LEDGER, item, None)
        self._tables.transact([fence, put] if fence else [put])

    def move_training(self, before: TrainingState, after: TrainingState) -> bool:
        """Replace a state by another one; False when it is not that one any more."""
        item = self._tables.get(_LEDGER, f"training#{before.pipeline}", "state")
        now = TrainingState.model_validate(item.body) if item else None
        if (now or TrainingState(pipeline=before.pipeline)) != before:
            return False
        fresh = Item(f"training#{after.pipeline}", "state", after.to_json())
        try:
            self._tables.transact([Put(_LEDGER, fresh, item.version if item else 0)])
        except Conflict:
            return False
        return True

    def note_call(
        self, pipeline: str, event: str, change: Callable[[TrainingState], TrainingState]
    ) -> bool:
        """Apply a change for a schedule's event, once for each; False when it was noted before."""
        pk = f"call#{pipeline}"
        while self._tables.get(_LEDGER, pk, event) is None:
            item = self._tables.get(_LEDGER, f"training#{pipeline}", "state")
            before = TrainingState.model_validate(item.body) if item else None
            after = change(before or TrainingState(pipeline=pipeline))
            fresh = Item(f"training#{pipeline}", "state", after.to_json())
            noted = Put(_LEDGER, Item(pk, event, {}), 0)
            try:
                self._tables.transact([noted, Put(_LEDGER, fresh, item.version if item else 0)])
            except Conflict:
                continue  # noted by someone else, or the state moved
            return True
        return False

    def change_training(
        self, pipeline: str, change: Callable[[TrainingState], TrainingState], fence: Check
    ) -> TrainingState:
        """Apply a change to the state as it is now, while the lease is ours (else ``Conflict``).

        What someone else wrote in between is read and the change applied anew.
        """
        while True:
            item = self._tables.get(_LEDGER, f"training#{pipeline}", "state")
            before = TrainingState.model_validate(item.body) if item else None
            after = change(before or TrainingState(pipeline=pipeline))
            expected = item.version if item else 0
            fresh = Item(f"training#{pipeline}", "state", after.to_json())
            try:
                self._tables.transact([fence, Put(_LEDGER, fresh, expected)])
            except Conflict:
                now = self._tables.get(_LEDGER, f"training#{pipeline}", "state")
                if (now.version if now else 0) != expected:
                    continue
                raise
            return after

    def record_trial(self, pipeline: str, job: str, trial: Mapping[str, Any]) -> None:
        """Keep what a training job logged; the same job replaces its own record."""
        self._tables.transact([Put(_METRICS, Item(pipeline, job, dict(trial)), None)])

    def trials(self, pipeline: str) -> Iterator[Mapping[str, Any]]:
        """What each training job logged, by job name."""
        return (item.body for item in self._tables.query(_METRICS, pipeline))

    def study(self, pipeline: str, study: str) -> Iterator[Mapping[str, Any]]:
        """The trials of one search for hyperparameters, in order; of all searches if unnamed."""
        prefix = f"{study}#" if study else "study-"
        return (item.body for item in self._tables.query(_METRICS, pipeline, prefix=prefix))

    def trial(self, pipeline: str, job: str) -> Mapping[str, Any] | None:
        """What one training job logged."""
        item = self._tables.get(_METRICS, pipeline, job)
        return item.body if item else None
