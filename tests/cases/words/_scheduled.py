"""Recipes in the course of a run, for cases that stand at a step."""

from __future__ import annotations

from policyopt.control import Schedule
from policyopt.recipe import Recipe


def scheduled(recipe: Recipe, step: float) -> Recipe:
    """The recipe as its schedules have it at a step, counted from 0; its other controllers do nothing."""
    for controller in recipe.controllers:
        if isinstance(controller, Schedule):
            recipe = recipe.set(controller.field, controller.value(step))
    return recipe
