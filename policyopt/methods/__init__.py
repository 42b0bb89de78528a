"""All methods: ``policyopt.methods.grpo()`` is the recipe of GRPO with its published defaults."""

from __future__ import annotations

from policyopt.registry import Method
from policyopt.registry import methods as _methods


def __getattr__(name: str) -> Method:
    if name.startswith("__"):
        raise AttributeError(name)
    known = _methods()
    if name.replace("_", "-") not in known:
        raise AttributeError(f"no method is called {name!r}; `policyopt list` shows all {len(known)}")
    return known[name.replace("_", "-")]


def __dir__() -> list[str]:
    return [name.replace("-", "_") for name in _methods()]
