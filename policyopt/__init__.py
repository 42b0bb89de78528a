"""policyopt: policy optimisation of language models, every method a short recipe of verified parts."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Names are loaded at first use: a judge's worker process imports policyopt without paying for torch.
_HOME = {
    "Batch": "policyopt.rows",
    "Claim": "policyopt.claims",
    "Effect": "policyopt.claims",
    "judge": "policyopt.items",
    "make_batch": "policyopt.rows",
    "Recipe": "policyopt.recipe",
    "Result": "policyopt.training.result",
    "UserError": "policyopt.errors",
    "co_scaled": "policyopt.methods.settings.ppo_million_envs",
    "column": "policyopt.schema",
    "get_method": "policyopt.own:resolve",
    "library_part": "policyopt.registry",
    "load_run": "policyopt.training.result",
    "load_task": "policyopt.data",
    "method": "policyopt.registry",
    "check": "policyopt.lens.asked",
    "advise": "policyopt.comparing.advise.asked",
    "compare": "policyopt.comparing.asked",
    "differences": "policyopt.lens.asked",
    "evaluate": "policyopt.training.measure",
    "explain": "policyopt.lens.asked",
    "run_plan": "policyopt.stages.carry",
    "sample": "policyopt.training.measure",
    "train": "policyopt.training.train",
}
_MODULES = ("methods", "parts", "control", "sources", "data", "judging", "models", "training", "engine", "lens")

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module, _, there = _HOME[name].partition(":")
        return getattr(importlib.import_module(module), there or name)
    if name in _MODULES:
        return importlib.import_module(f"policyopt.{name}")
    raise AttributeError(f"module 'policyopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
