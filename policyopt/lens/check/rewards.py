"""Properties of the path from the judge's reward to the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from policyopt.lens.check.measure import SEEDS, batch_for, deviation, draws, group_size, policy_part, prepared, weights
from policyopt.lens.check.report import Finding, not_applicable
from policyopt.recipe import Recipe, parts_of
from policyopt.rows import Batch

TOLERANCE = 1e-3
"""Relative; loose, because an eps beside a standard deviation is meant to be forgiven. The number is reported."""

REWARDS = ("reward", "baseline_reward", "step_reward")


def rewarded(batch: Batch, scale: float = 1.0, shift: float = 0.0) -> Batch:
    """The batch under a judge that gives ``scale`` times as much, plus ``shift``, for everything that it scores."""
    columns = {name: getattr(batch, name) for name in REWARDS}
    return batch.replace(**{name: scale * x + shift for name, x in columns.items() if x is not None})


def unrewarded(recipe: Recipe) -> str:
    """Why the judge's reward does not reach the gradient; empty where it does."""
    for batch in draws(recipe):
        other = rewarded(batch, scale=-0.6, shift=0.8)
        if deviation(weights(recipe, batch), weights(recipe, other)) > 0:
            return ""
    for shape in recipe.shape:
        before, after = shape(batch).reward, shape(other).reward
        if deviation(before, after) == 0 and deviation(batch.reward, other.reward) > 0:
            return f"{type(shape).__name__} puts another reward in the place of the judge's"
        batch, other = shape(batch), shape(other)
    readers = [type(p).__name__ for _, p in parts_of(recipe) if "correct" in p.needs]
    return f"{', '.join(readers)} reads `correct`, nothing reads the reward" if readers else "nothing reads the reward"


def refilters(recipe: Recipe, change: Callable[[Batch], Batch]) -> str:
    """A note where a change of the rewards lets other rows through the filters."""
    pairs = ((prepared(recipe, b)[1], prepared(recipe, change(b))[1]) for b in draws(recipe))
    return "deviation" if all(torch.equal(a, b) for a, b in pairs) else "deviation; the filters keep other rows"


def reward_shift(recipe: Recipe) -> Finding:
    """Whether the token weights stay the same when every reward is moved by the same number."""
    key, name = "shift", "every reward + c"
    if reason := unrewarded(recipe):
        return not_applicable(key, name, reason)
    worst = 0.0
    for batch, shift in zip(draws(recipe), (0.7, -1.3, 4.0), strict=True):
        moved = weights(recipe, rewarded(batch, shift=shift))
        if not moved.isfinite().all():
            return not_applicable(key, name, "the gradient is not finite for rewards outside [0, 1]")
        worst = max(worst, deviation(moved, weights(recipe, batch)))
    if worst < TOLERANCE:
        return Finding(key, name, "invariant", "yes", worst, "deviation")
    note = refilters(recipe, lambda batch: rewarded(batch, shift=0.7))
    return Finding(key, name, "changes the gradient", "no", worst, note)


def reward_scale(recipe: Recipe) -> Finding:
    """What doubling every reward does to the token weights: nothing, double what the reward contributes, or neither.

    The contribution of the reward is the weight less what it is when every reward is 0 (a KL in the reward, say).
    """
    key, name = "scale", "every reward * 2"
    if reason := unrewarded(recipe):
        return not_applicable(key, name, reason)
    invariant = linear = beside = 0.0
    for batch in draws(recipe):
        zero, once, twice = (weights(recipe, rewarded(batch, scale=k)) for k in (0.0, 1.0, 2.0))
        if not twice.isfinite().all():
            return not_applicable(key, name, "the gradient is not finite for rewards outside [0, 1]")
        invariant = max(invariant, deviation(twice, once))
        linear = max(linear, deviation(twice - zero, 2 * (once - zero))) if zero.isfinite().all() else math.inf
        beside = max(beside, deviation(once, once - zero))
    if invariant < TOLERANCE:
        return Finding(key, name, "invariant", "inv", invariant, "deviation")
    if linear < TOLERANCE:
        note = "deviation" + (", beside a term without the reward" if beside > TOLERANCE else "")
        return Finding(key, name, "doubles the gradient", "lin", linear, note)
    note = refilters(recipe, lambda batch: rewarded(batch, scale=2.0))
    return Finding(key, name, "neither the same nor double", "no", min(invariant, linear), note)


def no_signal(recipe: Recipe) -> Finding:
    """The largest weight in groups whose answers all have the same reward, over the largest in the batch.

    One group is all right (1), one all wrong (0), one mixed; regularisers are left out.
    """
    key, name = "dead", "groups of equal rewards"
    alone = policy_part(recipe)
    right = wrong = change = 0.0
    seen = False
    for seed in SEEDS:
        batch = batch_for(alone, seed, groups=(group_size(alone),) * 3)
        w, other = (weights(alone, equal_in(equal_in(batch, 0, r), 1, 1 - r)) for r in (1.0, 0.0))
        if w.any():
            seen = True
            sizes = [float(w[batch.group == g].abs().max() / w.abs().max()) for g in (0, 1)]
            right, wrong = max(right, sizes[0]), max(wrong, sizes[1])
            change = max(change, deviation(w, other))
    if not seen:
        return not_applicable(key, name, "the other groups have no gradient either")
    if max(right, wrong) < TOLERANCE:
        return Finding(key, name, "no gradient", "0", max(right, wrong), "share of the largest weight")
    note = f"share of the largest weight: {right:.2g} all right, {wrong:.2g} all wrong"
    if change < TOLERANCE:
        return Finding(key, name, "gradient, whatever the reward", "other", max(right, wrong), note)
    for size, side, short in ((right, "right", "+"), (wrong, "wrong", "-")):
        if size >= TOLERANCE > min(right, wrong):
            return Finding(key, name, f"gradient where all are {side}", short, size, note)
    return Finding(key, name, "gradient", "yes", max(right, wrong), note)


def equal_in(batch: Batch, group: int, reward: float) -> Batch:
    """The batch with everything that was judged in a group set to the same number, 0 or 1."""

    def level(x: Tensor) -> Tensor:
        mine = (batch.group == group).view(-1, *[1] * (x.dim() - 1))
        return torch.where(mine, reward, x)

    columns = {name: getattr(batch, name) for name in (*REWARDS, "correct", "formatted", "consistency")}
    return batch.replace(**{name: level(x) for name, x in columns.items() if x is not None})
