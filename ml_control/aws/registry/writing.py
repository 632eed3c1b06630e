"""Writes to the registry's tables: one transaction, or as few as many writes fit into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_control.aws.client import Clients
from ml_control.aws.registry import planning, stored
from ml_control.aws.registry.known import Key, Known
from ml_control.aws.registry.planning import Planned
from ml_control.aws.registry.reading import Reader
from ml_control.aws.registry.schema_check import diagnosed
from ml_control.aws.registry.sending import Waits, send
from ml_control.errors import Retryable
from ml_control.lake import Lake
from ml_control.ports import Check, Put

_EXISTS = stored.State(-1)  # there, in a state that nobody asked for


class Writer:
    """Conditional writes of items together with their entries in the index.

    What a write does to the index depends on the item that it replaces. That is taken from what
    was seen last, or read, and made a condition of the transaction: when it has changed meanwhile
    the transaction fails, tells what is there, and is decided anew.
    """

    def __init__(self, clients: Clients, lake: Lake, known: Known, reader: Reader,
                 patience: float) -> None:  # fmt: skip
        self._clients = clients
        self._lake = lake
        self._known = known
        self._reader = reader
        self._patience = patience

    def together(self, writes: Sequence[Put | Check]) -> None:
        """All or none; raises ``Conflict`` for the first whose condition does not hold."""
        plans = [planning.planned(place, write) for place, write in enumerate(writes)]
        waits, tries = Waits(self._patience), 0
        self._look(plans)
        while plans:
            self._judge(plans)
            for plan in plans:
                planning.inline(plan, self._lake)
            planning.fit(plans, self._lake)
            failed = self._send(plans, waits, tell=True)
            if not failed:
                return
            for plan, found in failed:
                plan.found, plan.state = dict(found or {}), stored.state_of(found)
            if tries:
                waits.wait(_contended(plans[0].object))
            tries += 1

    def _judge(self, plans: Iterable[Planned]) -> None:
        for plan in plans:
            if isinstance(plan.write, Check):
                item = self._reader.item(plan.key[0], plan.found) if plan.found else None
                planning.require(plan.write, item)
            elif not plan.holds:
                raise planning.moved(plan.object)

    def _look(self, plans: Sequence[Planned]) -> None:
        """Find the state that each write is about: as it was seen last, or in one request.

        A look at one is a look at all, so that the first condition that fails is named.
        """
        for plan in plans:
            self._guess(plan)
        if all(plan.state is not None for plan in plans):
            return
        found = self._reader.many((plan.key for plan in plans), bodies=True)
        for plan in plans:
            plan.found = found.get(plan.key)
            plan.state = stored.state_of(plan.found)

    def _guess(self, plan: Planned) -> None:
        if plan.state is None and isinstance(plan.write, Put):
            guess = self._known.get(plan.key)
            if guess is not None and plan.write.expect in (None, guess.version):
                plan.state = guess

    def each(self, writes: Sequence[Put]) -> list[bool]:
        """Each on its own; whether it held."""
        done: list[bool] = [False] * len(writes)
        left = [planning.planned(place, write) for place, write in enumerate(writes)]
        for plan in left:
            planning.inline(plan, self._lake)
        contended = Waits(self._patience)
        while left:
            wave, later = _one_each(left)
            self._look_up(wave)
            again = []
            for chunk in _chunks([plan for plan in wave if plan.holds]):
                refused = self._attempt(chunk)
                again += refused
                left_over = {plan.place for plan in refused}
                for plan in chunk:
                    done[plan.place] = plan.holds and plan.place not in left_over
            if again and len(again) == len(wave):
                contended.wait(_contended(again[0].object))
            else:
                contended = Waits(self._patience)
            left = sorted([*again, *later], key=lambda plan: plan.place)
        return done

    def _look_up(self, plans: Sequence[Planned]) -> None:
        for plan in plans:
            self._guess(plan)
        unknown = [plan for plan in plans if plan.state is None]
        found = self._reader.many((plan.key for plan in unknown), bodies=False)
        for plan in unknown:
            plan.state = stored.state_of(found.get(plan.key))

    def _attempt(self, chunk: Sequence[Planned]) -> list[Planned]:
        """Send writes; gives those that are to be sent again. What did not hold says so then."""
        failed = self._send(chunk, Waits(self._patience), tell=False)
        if not failed:
            return []
        refused = {plan.place for plan, _ in failed}
        for plan, found in failed:
            absent_wanted = isinstance(plan.write, Put) and plan.write.expect == 0
            plan.state = _EXISTS if absent_wanted else stored.state_of(found)
        return [plan for plan in chunk if plan.place not in refused or plan.holds]

    def _send(
        self, plans: Sequence[Planned], waits: Waits, *, tell: bool
    ) -> list[tuple[Planned, Mapping[str, Any] | None]]:
        """One transaction; gives the writes whose condition failed, with what was there."""
        actions: list[Mapping[str, Any]] = []
        owners: dict[int, Planned] = {}
        for plan in plans:
            owners[len(actions)] = plan
            name = self._clients.settings.table(plan.key[0])
            new = isinstance(plan.write, Put) and plan.write.expect == 0
            actions += planning.actions_of(plan, name, tell=tell or not new)
        failed = send(
            self._clients.client("dynamodb"),
            actions,
            plans[0].object,
            waits,
            lambda error: diagnosed(self._clients, error),
        )
        if not failed:
            for plan in plans:
                if isinstance(plan.write, Put):
                    self._known.set(plan.key, plan.after)
        for place, found in failed.items():
            if found or owners[place].state != stored.ABSENT:  # else what is there was not told
                self._known.set(owners[place].key, stored.state_of(found))
        return [(owners[place], found) for place, found in failed.items()]


def _contended(object: str) -> Retryable:
    return Retryable(object, "others write it all the time", "try again")


def _one_each(plans: Sequence[Planned]) -> tuple[list[Planned], list[Planned]]:
    """The first write of each item, and what must wait for it."""
    first: dict[Key, Planned] = {}
    later = [plan for plan in plans if first.setdefault(plan.key, plan) is not plan]
    return list(first.values()), later


def _chunks(plans: Sequence[Planned]) -> Iterable[list[Planned]]:
    """Writes in as few transactions as take them, in their order."""
    chunk: list[Planned] = []
    actions = size = 0
    for plan in plans:
        more, bytes = planning.count_of(plan), planning.size_of(plan)
        if chunk and (actions + more > planning.MOST_ACTIONS or size + bytes > planning.MOST_BYTES):
            yield chunk
            chunk, actions, size = [], 0, 0
        chunk.append(plan)
        actions, size = actions + more, size + bytes
    if chunk:
        yield chunk
