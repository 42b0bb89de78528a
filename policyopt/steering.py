"""Controllers at work: what moves the fields of a recipe between steps, in runs and wherever a run is looked at."""

from __future__ import annotations

from collections.abc import Mapping

from policyopt.recipe import Recipe

States = dict[str, dict[str, float]]
"""What the controllers of a recipe remember, by their names in the slot."""


def control(recipe: Recipe, metrics: Mapping[str, float], states: States) -> Recipe:
    """The recipe of the next step: every controller moves its field, in order.

    ``metrics`` are those of the last step (empty before the first). ``states`` is changed in place; a controller without
    a state begins with its first.
    """
    for controller in recipe.controllers:
        state = states.setdefault(controller.handle, controller.start())
        recipe = recipe.set(controller.field, controller(recipe.get(controller.field), metrics, state))
    return recipe


def controlled(recipe: Recipe) -> dict[str, float]:
    """The numbers that controllers move, for the log: ``control/`` and the path of the field."""
    moved = {controller.field: recipe.get(controller.field) for controller in recipe.controllers}
    return {f"control/{path}": float(x) for path, x in moved.items() if isinstance(x, int | float)}
