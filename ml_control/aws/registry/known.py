"""What was last seen of items, so that a write need not ask before."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ml_control.aws.registry.stored import State
from ml_control.ports import Table

Key = tuple[Table, str, str]
_MOST = 20_000


class Known:
    """Guesses of items' states. A write is conditional on its guess, so a wrong one costs a try."""

    def __init__(self) -> None:
        self._states: OrderedDict[Key, State] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> State | None:
        """The state that an item had when it was last seen, if that is remembered."""
        with self._lock:
            return self._states.get(key)

    def set(self, key: Key, state: State) -> None:
        """Remember a state; an absent item is forgotten."""
        with self._lock:
            self._states.pop(key, None)
            if state.version:
                self._states[key] = state
                if len(self._states) > _MOST:
                    self._states.popitem(last=False)
