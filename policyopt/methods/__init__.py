"""All methods: ``policyopt.methods.grpo()`` is the recipe of GRPO with its published defaults."""

from __future__ import annotations

from policyopt.index import entry_name as _entry_name
from policyopt.index import function_name as _function_name
from policyopt.registry import Method
from policyopt.registry import methods as _methods


def __getattr__(name: str) -> Method:
    if name.startswith("__"):
        raise AttributeError(name)
    known = _methods()
    if _entry_name(name) not in known:
        raise AttributeError(f"no method is called {name!r}; `policyopt list` shows all {len(known)}")
    return known[_entry_name(name)]


def __dir__() -> list[str]:
    return [_function_name(name) for name in _methods()]
