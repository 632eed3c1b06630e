"""Put off the import of libraries that another library loads and may never use."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands in for a module until something of it is asked for."""

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__") and key != "__path__":
            raise AttributeError(key)  # the import system asks for these; they are no use of it
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), key)


@contextmanager
def put_off(*names: str) -> Iterator[None]:
    """While it lasts, importing these modules gives stand-ins, which load them when first used.

    Afterwards the modules are imported as ever; who got a stand-in keeps it, and it works.
    """
    stand_ins: dict[str, ModuleType] = {}
    for name in names:
        spec = importlib.util.find_spec(name) if name not in sys.modules else None
        if spec is not None:
            stand_ins[name] = _Later(name)
            stand_ins[name].__spec__ = spec
            sys.modules[name] = stand_ins[name]
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
                # The import system has also hung it onto its package.
                package, _, last = name.rpartition(".")
                if package and vars(sys.modules[package]).get(last) is stand_in:
                    delattr(sys.modules[package], last)
