"""Contract suites run again over other adapters: the same tests, with other fixtures."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CONTRACT = Path(__file__).parent / "contract"


def _module(name: str) -> ModuleType:
    if name not in sys.modules:
        pytest.register_assert_rewrite(name)
    return importlib.import_module(name)


def contract(
    module: str, *, fixtures: Collection[str] = (), without: Mapping[str, str] | None = None,
    only: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The tests of a contract module, and its own fixtures but for ``fixtures``.

    ``without`` names tests, by a beginning, that make no sense there, each with its reason;
    ``only`` chooses some instead. A name that no test has is refused, so that neither list can
    outlive what it is about.
    """
    source = vars(_module(module))
    tests = {name for name in source if name.startswith("test_")}
    left_out = dict.fromkeys(without or {}, False)
    chosen = set(only) or tests
    assert chosen <= tests, f"{module} has no {chosen - tests}"
    for name in sorted(tests):
        for start in left_out:
            if name.startswith(start):
                left_out[start] = True
                chosen.discard(name)
    assert all(left_out.values()), f"{module} has no {[n for n, f in left_out.items() if not f]}"
    own = {
        name: found
        for name, found in source.items()
        if type(found).__name__ == "FixtureFunctionDefinition" and name not in fixtures
    }
    return {name: source[name] for name in sorted(chosen)} | own


def parts() -> ModuleType:
    """The contract suites' shared fixtures and places (``Storage``, ``Place``, ``Clock``)."""
    name = "contract_parts"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, CONTRACT / "conftest.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
