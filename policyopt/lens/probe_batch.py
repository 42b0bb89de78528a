"""A fixed batch on which methods visibly differ, and the weight that a recipe gives to each of its tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policyopt.groups import group_mean
from policyopt.lens.random_batch import Scene, entropy, invented, statistic_of
from policyopt.objective import credit, kept, selected, shaped, token_gradients
from policyopt.recipe import Recipe
from policyopt.rows import FIXED, Batch, make_batch
from policyopt.steering import control

VOCABULARY = 8
BUDGET = 8
"""Tokens that a response of the batch may have."""

# reward, and log pi - log pi_old of each token. The rows of a group answer one prompt.
GROUPS: tuple[tuple[tuple[float, tuple[float, ...]], ...], ...] = (
    (  # two of five answers are right
        (1, (0.0, 0.35, -0.35)),  # a mean of exactly 0: tokens beyond a bound of 0.2, the response inside any
        (1, (0.05, -0.02, 1.1, 0.12, -0.45, 0.02, -1.4, 0.3)),
        (0, (0.0, -0.35, 0.35, 0.1, -0.1)),
        (0, (-0.05, 0.02, 1.1, -0.12, -0.45, 0.01, -1.4, 0.3)),  # cut off at the budget
        (0, (0.15, 0.02, -0.25, 0.0)),
    ),
    (  # one is
        (1, (0.1, 0.45, -0.03, 0.25, 0.0, 0.08)),
        (0, (0.3, -0.3)),
        (0, (0.02, -0.3, 0.15, -0.02, 0.6, 0.0, 0.1)),
        (0, (-0.25, -0.05, 0.0, -0.9)),
        (0, (0.05, 0.25, -0.15, 0.02, -0.6, 0.0)),
    ),
    (  # none is
        (0, (0.1, -0.1, 0.0, 0.25, -0.25)),
        (0, (0.4,)),
        (0, (0.01, -0.02, 0.05, -0.3)),
        (0, (0.0, 0.2, -0.5, 0.05, 0.02, -0.01, 0.1)),
        (0, (0.0, -0.3, 0.3)),
    ),
    (  # all are
        (1, (-0.1, 0.02, 0.3, 0.0)),
        (1, (0.05, 0.5, -0.2, 0.0, 0.01, -0.03)),
        (1, (-0.3, 0.3)),
        (1, (0.0, 0.02, 0.15, -0.6, 0.1)),
        (1, (0.1, -0.02, 0.02, -0.25, 0.0, 0.05, 0.3, -0.1)),
    ),
)
_CUT = (0, 3)
"""Group and place in it of the response that was cut off."""


@dataclass(frozen=True)
class Row:
    """A response of the batch, as the recipe sees it."""

    group: int
    reward: float
    """After shaping, token rewards included."""
    advantage: tuple[float, ...]
    """One number for each token; empty where a filter has left the row out."""
    ratio: tuple[float, ...]
    """New policy over old, of each token."""
    truncated: bool
    kept: bool
    """The recipe's filters let it through, and it was selected for the update."""

    @property
    def length(self) -> int:
        """Tokens of the response."""
        return len(self.ratio)


@dataclass(frozen=True)
class Picture:
    r"""The token weights :math:`w_{i,t} = -\partial L/\partial\log\pi(y_{i,t})` of a recipe on the fixed batch."""

    name: str
    rows: tuple[Row, ...]
    weights: tuple[tuple[float, ...], ...]
    """One tuple for each row, 0 where a filter has left it out."""
    others: Mapping[str, tuple[tuple[float, ...], ...]]
    r"""Name of another leaf that the loss moves (entropy, a statistic, value) -> numbers for each token.

    Of entropy and statistics, functions of the whole distribution, they are the weight that the log-probability of the
    drawn token would need for the same push on its logit: :math:`-\frac{\partial L}{\partial z_y} / (1 - \pi(y))`.
    Of the value they are :math:`-\partial L/\partial v`.
    """
    loss: float
    problem: str = ""
    """Why there are no weights, where that is so."""

    def to_dict(self) -> dict[str, Any]:
        """The picture as plain data for JSON."""
        rows = [{**vars(row), "weights": w} for row, w in zip(self.rows, self.weights, strict=True)]
        return {
            "name": self.name,
            "loss": None if self.problem else self.loss,
            "problem": self.problem,
            "rows": rows,
            "others": dict(self.others),
        }


def picture(recipe: Recipe) -> Picture:
    """The token weights of a recipe, as it is at its first step, on the fixed batch.

    What the recipe remembers of prompts is what it would from an earlier visit with other rewards. A recipe that cannot
    be computed on the batch gives a picture whose ``problem`` says why.
    """
    try:
        recipe = control(recipe, {}, {})
        return _picture(recipe)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        return Picture(recipe.name, (), (), {}, math.nan, f"{type(error).__name__}: {error}")


def _picture(recipe: Recipe) -> Picture:
    drawn = probe_batch(recipe)
    batch = shaped(recipe, drawn)
    keep = kept(recipe, batch)
    if not bool(keep.any()):
        raise ValueError("the recipe's filters leave no row of the batch")
    credited = credit(recipe, batch[keep])
    chosen = selected(recipe, credited)
    if not bool(chosen.any()):
        raise ValueError("the recipe selects no row of the batch")
    trained, keep = credited[chosen], _back(chosen[:, None], keep)[:, 0]
    found = leaves(recipe, trained)
    loss, gradients = token_gradients(recipe, trained, found)
    spread = {name: _back(0.0 - g * trained.mask, keep) for name, g in gradients.items()}
    spread |= {name: _pushed(recipe, drawn, name, x) for name, x in spread.items() if name not in ("logp", "value")}
    advantage = _back(trained.advantage * trained.mask, keep)
    length = drawn.mask.sum(1).long().tolist()
    total = batch.total_reward()
    ratio = (drawn.logp - drawn.old_logp).exp()
    rows = tuple(
        Row(
            group=int(drawn.group[i]),
            reward=float(total[i]),
            advantage=tuple(advantage[i, :n].tolist()) if keep[i] else (),
            ratio=tuple(ratio[i, :n].tolist()),
            truncated=bool(drawn.truncated[i]),
            kept=bool(keep[i]),
        )
        for i, n in enumerate(length)
    )
    grids = {name: tuple(tuple(g[i, :n].tolist()) for i, n in enumerate(length)) for name, g in spread.items()}
    weights = grids.pop("logp")
    return Picture(recipe.name, rows, weights, {name: g for name, g in grids.items() if any(map(any, g))}, float(loss))


def _back(x: Tensor, keep: Tensor) -> Tensor:
    """The rows of ``x`` in the places where ``keep`` is true, zeros in the others."""
    out = x.new_zeros(len(keep), x.shape[1])
    out[keep] = x
    return out


def _pushed(recipe: Recipe, batch: Batch, name: str, pull: Tensor) -> Tensor:
    """[N, T] a pull on a function of the distributions, as the weight that gives the drawn token the same push."""
    roles = distributions()
    logits = roles["policy"].requires_grad_()
    found = entropy(logits) if name == "entropy" else None
    for statistic in recipe.live:
        found = statistic_of(statistic, batch, logits, roles) if statistic.key == name else found
    assert found is not None
    (slope,) = torch.autograd.grad((pull * found).sum(), logits)
    there = batch.tokens[..., None]
    push = slope.gather(-1, there) / (1 - logits.detach().softmax(-1).gather(-1, there))
    return push[..., 0] * batch.mask


def leaves(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """The columns of the batch that carry a gradient for this recipe, as the engine would give them."""
    found = {"logp": batch.logp}
    if "entropy" in recipe.needs:
        found["entropy"] = batch.entropy
    if recipe.critic is not None:
        found["value"] = batch.value
    return found | {s.key: batch.stat(s) for s in recipe.live}


# The batch -----------------------------------------------------------------------------------------------------------


class _Fixed(Scene):
    """The scene of the fixed batch: numbers that are spread evenly and always the same."""

    def __init__(self, recipe: Recipe) -> None:
        rows = [(g, i, reward, len(shift)) for g, group in enumerate(GROUPS) for i, (reward, shift) in enumerate(group)]
        self.seed, self.groups, self.n, self.width, self.budget = 0, len(GROUPS), len(rows), BUDGET, BUDGET
        self.draws = torch.Generator().manual_seed(0)
        self.length = torch.tensor([size for *_, size in rows])
        self.mask = self.there = (torch.arange(BUDGET) < self.length[:, None]).double()
        self.correct = torch.tensor([reward for _, _, reward, _ in rows], dtype=torch.float64)
        self.group = torch.tensor([g for g, *_ in rows])
        self.tokens, self.logits = _words(), distributions()
        self.cut = torch.tensor([float((g, i) == _CUT) for g, i, *_ in rows], dtype=torch.float64)
        self.heat = recipe.source.temperature

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.zeros(shape or (self.n,), dtype=torch.long)

    def logp(self, role: str) -> Tensor:
        if role == "proximal":
            return (self.logp("old") + self.logp("policy")) / 2
        if role == "previous":
            return (self.logp("old") + 0.3 * (_wave(8) - 0.5)).clamp(max=-0.02)
        if role == "rollout":  # the sampler's kernels round in another way
            return (self.logp("old") + 0.3 * (_wave(7) - 0.5) ** 3).clamp(max=-0.01)
        if role not in self.logits:
            return super().logp(role)
        return self.logits[role].gather(-1, self.tokens[..., None])[..., 0]  # log-probabilities already

    def guided(self) -> Tensor:
        return torch.zeros_like(self.mask)

    def prompts(self) -> Tensor:
        return self.group[:, None] % VOCABULARY

    def prompt_mask(self) -> Tensor:
        return torch.ones(self.n, 1, dtype=torch.float64)

    def cut_off(self) -> Tensor:
        return self.cut

    def temperature(self) -> Tensor:
        return torch.full((self.n,), self.heat, dtype=torch.float64)

    def reward(self) -> Tensor:
        return self.correct

    def formatted(self) -> Tensor:
        return torch.maximum(self.correct, (self.length % 2).double())

    def pass_rate(self) -> Tensor:
        return group_mean(self.correct, self.group)

    def history(self) -> Tensor:
        return torch.full((self.n, 1), math.nan, dtype=torch.float64)

    def value(self) -> Tensor:
        return self.correct.mean() + 0.4 * (_wave(5) - 0.5)

    def new_value(self) -> Tensor:
        return self.value() + 0.3 * (_wave(6) - 0.5)


def probe_batch(recipe: Recipe) -> Batch:
    """The fixed batch in float64, every column filled: twenty responses to four prompts, of one to eight tokens.

    All log-probabilities, entropies and statistics belong to one set of made-up next-token distributions over eight
    words, for the policy now, the one that sampled, the reference and the teacher.
    """
    scene = _Fixed(recipe)
    chosen = {
        "age": scene.zeros(),
        "noise": _wave(0),
        "consistency": 1.0 - scene.length % 3,
        "baseline_reward": (scene.group % 2).double(),
        "step_reward": torch.stack([scene.correct, 0.5 * scene.correct + 0.25], 1),
    }
    batch = make_batch(**invented(scene, recipe.needs) | chosen).replace(history=None)
    if "rollout_logp" not in recipe.needs:
        batch = batch.replace(rollout_logp=None)
    found = {s.key: statistic_of(s, batch, scene.logits["policy"], scene.logits) for s in recipe.live}
    found |= {FIXED + s.key: statistic_of(s, batch, scene.logits["old"], scene.logits) for s in recipe.fixed}
    batch = batch.with_statistics(found)
    return batch if recipe.memory is None else batch.replace(history=_remembered(recipe, batch))


def _wave(k: int) -> Tensor:
    """[N, T] numbers spread evenly over [0, 1), in an order that looks random and is always the same."""
    n = sum(map(len, GROUPS))
    place = torch.arange(1, n * BUDGET + 1, dtype=torch.float64).reshape(n, BUDGET)
    return (place * math.sqrt((2, 3, 5, 7, 11, 13, 17, 19, 23)[k])) % 1


def _words() -> Tensor:
    """[N, T] the word that was drawn at each place."""
    n = sum(map(len, GROUPS))
    return (5 * torch.arange(n)[:, None] + 3 * torch.arange(BUDGET)) % VOCABULARY


def distributions() -> dict[str, Tensor]:
    """The next-token distributions of each model on the batch, as log-probabilities [N, T, V]."""
    shift = torch.zeros(sum(map(len, GROUPS)), BUDGET, dtype=torch.float64)
    for k, (_, values) in enumerate(row for group in GROUPS for row in group):
        shift[k, : len(values)] = torch.tensor(values, dtype=torch.float64)
    # From nearly certain to nearly a guess; never so likely that the shift would take it above 1.
    old = -torch.maximum(0.03 + 3 * _wave(1) ** 2, shift + 0.05)
    logp = {
        "policy": old + shift,
        "old": old,
        "reference": (old + 0.5 * (_wave(2) - 0.5)).clamp(max=-0.02),
        "teacher": (old + 1.5 * (_wave(4) - 0.4)).clamp(max=-0.02),
    }
    return {role: _distribution(x, k) for k, (role, x) in enumerate(logp.items())}


def _distribution(logp: Tensor, k: int) -> Tensor:
    """Log-probabilities [N, T, V] that give the drawn words ``logp`` and share the rest out unevenly, by role ``k``."""
    drawn, word = _words()[..., None], torch.arange(VOCABULARY)
    shape = torch.cos((1 + 0.15 * k) * word + drawn) * 2
    others = shape.masked_fill(word == drawn, -math.inf).log_softmax(-1)
    return torch.where(word == drawn, logp[..., None], others + torch.log1p(-logp.exp())[..., None])


def _remembered(recipe: Recipe, batch: Batch) -> Tensor:
    """What the recipe's memory would hold if the same prompts had been answered before, by others and half as well."""
    assert recipe.memory is not None
    unknown = torch.full((len(batch.mask), recipe.memory.width), math.nan, dtype=batch.mask.dtype)
    earlier = batch.replace(reward=batch.reward.roll(2) / 2, correct=batch.correct.roll(2), history=unknown)
    found: Tensor = recipe.memory(credit(recipe, shaped(recipe, earlier)))
    return found
