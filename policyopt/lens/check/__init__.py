"""What a recipe does, measured on seeded random batches in float64: nothing here is looked up or known by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from policyopt.lens.check.measure import policy_part
from policyopt.lens.check.parts import faults, remarks
from policyopt.lens.check.report import Finding, Report, not_applicable
from policyopt.lens.check.rewards import no_signal, reward_scale, reward_shift
from policyopt.lens.check.sound import derivative, finite, microbatches, order, padding
from policyopt.lens.check.unbiased import off_policy
from policyopt.lens.check.weights import length_bias, ratio_limits, reinforce_on_policy
from policyopt.recipe import Recipe, parts_of

__all__ = ["Finding", "Report", "check"]

PROPERTIES: tuple[Callable[[Recipe], Any], ...] = (
    reward_shift,
    reward_scale,
    no_signal,
    length_bias,
    ratio_limits,
    reinforce_on_policy,
    off_policy,
)
"""Characteristics: none of them is a fault."""

SOUNDNESS: tuple[Callable[[Recipe], Finding], ...] = (finite, derivative, padding, order, microbatches)
"""What every recipe must do."""


def check(recipe: Recipe, name: str | None = None) -> Report:
    """Measure every property of a recipe, and say what is wrong with its parts."""
    name = name or recipe.name
    parts = [*(p for _, p in parts_of(recipe)), *recipe.live, *recipe.fixed]
    wrong = list(dict.fromkeys(fault for p in parts for fault in faults(p)))
    notes = [] if wrong else list(dict.fromkeys(remark for p in parts for remark in remarks(p)))
    sound: list[Finding] = []
    try:
        for must in SOUNDNESS:
            sound.append(must(recipe))
        left_out = recipe.regularizers if policy_part(recipe) != recipe else ()
    except Exception as error:  # the parts may be a user's own and raise anything
        return Report(name, tuple(sound), tuple(wrong or [f"{name} raises {type(error).__name__}: {error}"]))
    if any(f.key == "finite" and f.broken for f in sound):
        return Report(name, tuple(sound), tuple(wrong))
    if left_out:
        named = ", ".join(type(r).__name__ for r in left_out)
        notes.append(f"weights, groups of equal rewards and off-policy are measured without {named}")
    measured = [finding for measure in PROPERTIES for finding in _measured(measure, recipe)]
    return Report(name, (*measured, *sound), tuple(wrong), tuple(notes))


def _measured(measure: Callable[[Recipe], Any], recipe: Recipe) -> list[Finding]:
    try:
        found = measure(recipe)
    except Exception as error:
        words = measure.__name__.replace("_", " ")
        return [not_applicable(measure.__name__, words, f"a part raises {type(error).__name__}: {error}")]
    return found if isinstance(found, list) else [found]
