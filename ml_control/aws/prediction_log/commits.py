"""Commits of one pipeline's log: units in order, as many in one as fit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from ml_control.aws.prediction_log.appending import load, take
from ml_control.aws.prediction_log.draft import Draft, Full, Seen
from ml_control.aws.prediction_log.entries import Step, Unit
from ml_control.aws.prediction_log.head import Head, new_head, read_head
from ml_control.aws.prediction_log.keys import Keys
from ml_control.aws.prediction_log.outcomes import Missing
from ml_control.aws.prediction_log.store import ACTIONS, Refused, Store, pause
from ml_control.errors import BadObject, MlControlError, Retryable, Unknown


class Commits:
    """The commits that this process makes; used by one thread."""

    def __init__(self, store: Store, keys: Keys, days: float, patience: float) -> None:
        self._store, self._keys, self._days, self._patience = store, keys, days, patience
        self._head: Head | None = None  # as it was when we last saw it
        self._seen = Seen()

    def commit(self, units: Sequence[Unit]) -> list[Any]:
        """Do the first units, at least one; gives their answers: values, or our errors.

        Raises our errors, with nothing done; but after ``Retryable`` it may have been done, or may
        yet be, and is known as these units' own when they are brought again.
        """
        deadline = time.monotonic() + self._patience
        lost: dict[str, tuple[Draft, list[Any]]] = {}
        careful, attempt = False, 0
        while True:
            head = self._head or self._read()
            done = next((commit for commit in head.recent if commit in lost), None)
            if done is not None:  # its answer was lost, but it was done
                draft, answers = lost[done]
                draft.committed()
                self._head = head
                return answers
            draft = Draft(self._store, self._keys, head, self._seen, self._days)
            try:
                answers = self._draft(draft, units, careful=careful)
                if draft.changes:
                    self._transact(draft, units, answers, lost)
                    self._head = draft.committed()
                return answers
            except Refused as refused:
                self._head = head
                if refused.moved or isinstance(refused, Missing):
                    self._head = read_head(refused.head) if refused.head else None
                if refused.taken and not careful:  # an id is not new: look at once
                    careful = True
                    continue
                if time.monotonic() >= deadline:
                    raise self._given_up(refused) from refused
            except Retryable:
                self._head = None
                if draft.commit not in lost or time.monotonic() >= deadline:
                    raise
            except MlControlError:
                self._head = None
                raise
            careful = True
            pause(attempt)
            attempt += 1

    def _transact(
        self,
        draft: Draft,
        units: Sequence[Unit],
        answers: list[Any],
        lost: dict[str, tuple[Draft, list[Any]]],
    ) -> None:
        try:
            self._store.transact(draft.actions(), draft.commit)
        except Retryable:
            lost[draft.commit] = draft, answers
            for unit in units[: len(answers)]:
                unit.tried.add(draft.commit)
            raise

    def _read(self) -> Head:
        item = self._store.get([self._keys.head]).get(self._keys.head)
        return new_head() if item is None else read_head(item)

    def _draft(self, draft: Draft, units: Sequence[Unit], *, careful: bool) -> list[Any]:
        if isinstance(units[0], Step):  # alone: nobody knows what it needs
            return [units[0].work(draft)]
        ahead = list(takewhile(lambda unit: not isinstance(unit, Step), units[:ACTIONS]))
        load(draft, ahead, careful=careful)
        answers: list[Any] = []
        for unit in ahead:
            try:
                answers.append(take(draft, unit))
            except Full:
                if answers:
                    break
                answers.append(self._too_large())
            except MlControlError as error:
                answers.append(error)
        return answers

    def _too_large(self) -> BadObject:
        return BadObject(
            self._keys.subject,
            f"more than {ACTIONS} items would change in one commit",
            "tell outcomes of fewer records at once",
        )

    def _given_up(self, refused: Refused) -> MlControlError:
        if isinstance(refused, Missing):
            return Unknown(
                self._keys.subject,
                "a request is noted whose group is not in the table",
                "restore the table to a point in time; what was flushed is in the lake",
            )
        return Retryable(
            self._store.object,
            f"other writers were ahead for {self._patience:g} s, or DynamoDB throttles it",
            "wait, or raise the table's capacity, then do it again",
        )
