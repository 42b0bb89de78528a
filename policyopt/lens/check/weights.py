"""Properties of the token weights as a function of a response's length, its ratio and its advantage."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from policyopt.lens.check.measure import (
    batch_for,
    deviation,
    draws,
    gradients,
    on_policy,
    policy_part,
    prepared,
    sampled_by,
    token_weights,
)
from policyopt.lens.check.report import Finding, not_applicable
from policyopt.objective import credit, shaped
from policyopt.recipe import Recipe
from policyopt.rows import BOUND, Batch

LENGTHS = (8, 16, 32, 64)
EXACT = 1e-6
FAR = (0.45 * BOUND, 0.9 * BOUND)
"""Log-ratios at which weights are compared, both of them where a log-ratio is what it is."""
SIGNS = {1.0: "A > 0", -1.0: "A < 0"}


def credited(batch: Batch, advantage: Tensor) -> Batch:
    """The batch with an advantage [N] for each response, and everything that was judged in agreement with its sign."""
    right = (advantage > 0).to(advantage)
    judged = {
        "reward": right,
        "correct": right,
        "formatted": right,
        "baseline_reward": right.new_full(right.shape, 0.5),
    }
    there = {name: x for name, x in judged.items() if getattr(batch, name) is not None}
    if batch.value is not None:  # a critic that has learned nothing yet
        there |= dict.fromkeys(("value", "old_value", "returns"), 0.5 * batch.mask)
    return batch.replace(
        **there,
        advantage=advantage[:, None] * batch.mask,
        truncated=torch.zeros_like(right),
        origin=torch.zeros_like(batch.origin),
        **dict.fromkeys(("consistency", "new_from", "turn")),
    )


def alike(batch: Batch, period: int) -> Batch:
    """The batch with the first ``period`` tokens of row 0 written into every row, over and over."""
    index = torch.arange(batch.mask.shape[1]) % period

    def tile(x: Tensor) -> Tensor:
        return torch.where(batch.mask.view(*batch.mask.shape, *[1] * (x.dim() - 2)) > 0, x[:1, index], 0.0)

    tiled = {name: tile(x) for name, x in batch.clean_columns().items()}
    rows = {name: getattr(batch, name)[:1].expand(len(batch.mask)).clone() for name in ("temperature", "budget")}
    return batch.replace(**tiled, **rows)


def length_bias(recipe: Recipe) -> list[Finding]:
    """The slope d log|w| / d log|y| over responses that differ in nothing but their length, in one batch.

    Every response repeats the same eight tokens, the reference is the policy, ratios are 1, the advantage is +1 or -1.
    0 is no length bias, -1 is a weight of 1/|y|. The note says whether the recipe's own advantage, from equal rewards,
    goes with the length too.
    """
    names = {sign: f"length bias, {words}" for sign, words in SIGNS.items()}
    alone = policy_part(recipe)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(len(LENGTHS))
    lengths = tuple(n for n in LENGTHS for _ in SIGNS)
    slopes: dict[float, list[float]] = {s: [] for s in SIGNS}
    own: dict[float, list[float]] = {s: [] for s in SIGNS}
    for seed in (0, 1):
        batch = batch_for(alone, seed, groups=(len(lengths),), width=LENGTHS[-1], lengths=lengths)
        batch = on_policy(credited(alike(batch, LENGTHS[0]), sign))
        still = {name: batch.old_logp for name in ("ref_logp", "prev_logp") if getattr(batch, name) is not None}
        batch = batch.replace(budget=torch.full_like(batch.budget, 10 * LENGTHS[-1]), **still)
        sizes = {name: torch.zeros(len(lengths), dtype=torch.float64) for name in ("w", "A")}
        for turn in range(len(LENGTHS)):  # each in each place: equal rewards may be ranked by the order of the rows
            rows = torch.arange(len(lengths)).roll(2 * turn)
            for name, x in (
                ("w", token_weights(alone, batch[rows])),
                ("A", credit(alone, shaped(alone, batch[rows])).advantage),
            ):
                sizes[name][rows] += x.abs().sum(-1) / batch[rows].mask.sum(-1)
        for s in SIGNS:
            slopes[s].append(slope(sizes["w"][sign == s]))
            own[s].append(slope(sizes["A"][sign == s]))
    findings = []
    for s, key in ((1.0, "len+"), (-1.0, "len-")):
        if not all(map(math.isfinite, slopes[s])):
            findings.append(not_applicable(key, names[s], "sampled tokens have no weight"))
            continue
        value = round(sum(slopes[s]) / len(slopes[s]), 2) + 0.0  # no negative zero
        words = {0.0: "none", -1.0: "|w| ~ 1/|y|"}.get(value, f"|w| ~ |y|^{value:g}")
        mine = sum(own[s]) / len(own[s])
        note = f"d log|w| / d log|y|{f'; the advantage itself goes with |y|^{mine:.2g}' if abs(mine) > 0.02 else ''}"
        findings.append(Finding(key, names[s], words, f"{value:.2f}".rstrip("0").rstrip("."), value, note))
    return findings


def slope(sizes: Tensor) -> float:
    """The slope of log sizes over log lengths, by least squares; NaN where a size is 0."""
    x = torch.tensor(LENGTHS, dtype=torch.float64).log()
    x = x - x.mean()
    return float((x * sizes.log()).sum() / (x * x).sum()) if (sizes > 0).all() else math.nan


def ratio_limits(recipe: Recipe) -> list[Finding]:
    """What becomes of |w| as the ratio of a response goes to 0 or to infinity, for either sign of its advantage.

    All tokens of one response move together, the rest of the batch stays at ratio 1. The likelier of the two policies
    gives every token of it log-probability -1. Responses differ in nothing else but their advantage. "grows" is
    without bound, as far as log-ratios are not held (:data:`~policyopt.rows.BOUND`), which is beyond what is measured here.
    """
    alone = policy_part(recipe)
    found = []
    for sign, mark in ((1.0, "+"), (-1.0, "-")):
        for direction, end in ((-1, "0"), (1, "inf")):
            key, name = f"{mark}{end}", f"|w| for ratio -> {end}, {SIGNS[sign]}"
            start, middle, far = (_weight_at(alone, sign, direction * x) for x in (0.0, *FAR))
            if not max(start, middle, far) > 0:
                found.append(not_applicable(key, name, "sampled tokens have no weight"))
                continue
            growth = far / middle if middle else math.inf if far else 0.0
            value = "vanishes" if growth < 0.7 else "bounded" if growth < 1.4 else "grows"
            number = far / start if value == "bounded" and start else None
            short = {"vanishes": "0", "bounded": "c", "grows": "inf"}[value]
            found.append(Finding(key, name, value, short, number, "" if number is None else "of |w| at ratio 1"))
    return found


def _weight_at(recipe: Recipe, sign: float, log_ratio: float) -> float:
    """The mean |w| over the first response of a batch, at a ratio of its own."""
    batch = alike(batch_for(recipe, 0, groups=(4, 4), width=8, lengths=(8,) * 8), 8)
    advantage = sign * torch.tensor([1.0, -1.0, 1.0, -1.0] * 2, dtype=torch.float64)
    batch = on_policy(credited(batch, advantage))
    logp, old = batch.logp.clone(), batch.old_logp.clone()
    logp[0], old[0] = -1 + min(log_ratio, 0.0), -1 - max(log_ratio, 0.0)
    return float(token_weights(recipe, sampled_by(batch.replace(logp=logp), old))[0].abs().mean())


def reinforce_on_policy(recipe: Recipe) -> Finding:
    """Whether w = share * A where every ratio is 1, with the recipe's own advantage: the gradient of REINFORCE.

    Regularisers are left out; a constant factor is named.
    """
    key, name = "on-policy", "gradient at ratio 1"
    alone = policy_part(recipe)
    worst, factors, deaf, others = 0.0, [], True, set()
    for batch in draws(alone):
        ready, _ = prepared(alone, on_policy(batch))
        wanted = alone.aggregate(ready) * ready.advantage
        if not wanted.any():
            continue
        _, found = gradients(alone, ready)
        others |= {leaf for leaf, x in found.items() if leaf not in ("logp", "value") and x.any()}
        w = -found["logp"]
        deaf &= torch.equal(w, token_weights(alone, ready.replace(advantage=-ready.advantage)))
        factors.append(float((w * wanted).sum() / (wanted * wanted).sum()))
        worst = max(worst, deviation(w, factors[-1] * wanted))
    if not factors:
        return not_applicable(key, name, "the advantage is 0 on every draw")
    if deaf:
        return not_applicable(key, name, "the token weights do not depend on the advantage")
    note = f"deviation from share * A{f'; a gradient flows through {len(others)} more leaves' if others else ''}"
    factor, spread = factors[0], max(factors) - min(factors)
    if worst > EXACT or spread > EXACT * abs(factor) or not factor > 0:
        return Finding(key, name, "differs from REINFORCE", "no", worst, note)
    if abs(factor - 1) < EXACT:
        return Finding(key, name, "that of REINFORCE", "yes", worst, note)
    return Finding(key, name, f"{factor:.3g} times that of REINFORCE", f"x{factor:.2g}", worst, note)
