"""Random batches with every column filled, a tiny policy that can be summed over, and what both are used for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from policyopt.batch import SCORED, TOKEN_COLUMNS, Batch, make_batch
from policyopt.objective import credit, objective, shaped, token_gradients
from policyopt.parts.base import Part
from policyopt.recipe import Recipe
from policyopt.registry import Method, methods

EVERY_METHOD = pytest.mark.parametrize("method", methods().values(), ids=methods().keys())
LEAVES = ("logp", "entropy", "value")
BUDGET = 9


def random_batch(
    seed: int = 0,
    groups: tuple[int, ...] = (4, 3, 2),
    width: int = 6,
    lengths: tuple[int, ...] | None = None,
    gaps: bool = False,
    drift: float = 0.3,
    dtype: torch.dtype = torch.float64,
) -> Batch:
    """Groups of the given sizes; ``drift`` is how far the policy has moved, ``gaps`` puts text of others into rows."""
    g = torch.Generator().manual_seed(seed)
    n = sum(groups)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    length = torch.tensor(lengths) if lengths else torch.randint(1, width + 1, (n,), generator=g)
    mask = (torch.arange(width) < length[:, None]).double()
    if gaps:
        mask[:, 1] *= length <= 2
    old, value = -(normal(n, width).abs() + 0.1), normal(n, width)
    correct = torch.cat([torch.arange(k) % 2 for k in groups]).double()
    filled = {
        "mask": mask,
        "group": torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(groups)),
        "truncated": (length == width).double(),
        "budget": torch.full((n,), BUDGET),
        "pass_rate": torch.cat([torch.full((k,), i % 3 / 2) for i, k in enumerate(groups)]).double(),
        "reward": correct + 0.3 * normal(n),
        "correct": correct,
        "baseline_reward": normal(n),
        "step_reward": normal(n, 2),
        "step_end": torch.stack([length // 2 - 1, length - 1], dim=1),
        "old_logp": old,
        "ref_logp": old + drift * normal(n, width),
        "old_value": value,
        "logp": old + drift * normal(n, width),
        "entropy": normal(n, width).abs(),
        "value": value + 0.3 * normal(n, width),
        "formatted": ((correct > 0) | (normal(n) > 0)).double(),
        "rollout_logp": old + 0.1 * drift * normal(n, width),
        "prox_logp": old + drift * normal(n, width),
        "prev_logp": old + drift * normal(n, width),
        "noise": torch.rand(n, width, generator=g, dtype=torch.float64),
        "sampled_entropy": normal(n, width).abs(),
        "age": torch.repeat_interleave(torch.arange(len(groups)) % 2, torch.tensor(groups)),
        "new_from": torch.randint(2, (n,), generator=g),
        "history": remembered(groups, g),
        "consistency": torch.randint(-1, 2, (n,), generator=g).double(),
        "teacher_logp": old + drift * normal(n, width),
        "tokens": torch.randint(3, (n, width), generator=g),
    } | tree_columns(groups, length, g)
    return make_batch(**{k: x.to(dtype) if x.is_floating_point() else x for k, x in filled.items()})


def tree_columns(groups: tuple[int, ...], length: Tensor, g: torch.Generator) -> dict[str, Tensor]:
    """A tree for each group: two children of the root, each with two children, and a leaf for each row; the last row of
    all passes one node only."""
    first = torch.cat([torch.arange(k) % 2 for k in groups])
    second = torch.cat([torch.arange(k) % 4 for k in groups])
    leaf = torch.cat([torch.arange(k) for k in groups])
    node = torch.stack([1 + first, 3 + second, 10 + leaf], 1)
    node[-1:] = torch.tensor([9, 0, 0])
    end = torch.stack([length // 3, length // 2, length], 1)
    end[-1:] = torch.stack([length, length * 0, length * 0], 1)[-1:]
    value = torch.rand(len(node), 3, generator=g, dtype=torch.float64)
    value[:, 2] = torch.nan
    return {"node": node, "node_end": end, "node_value": value}


def remembered(groups: tuple[int, ...], g: torch.Generator) -> Tensor:
    """What a memory may hold of each row's prompt, [N, 4]; the last prompt is new."""
    history = torch.rand(len(groups), 4, generator=g, dtype=torch.float64)
    history[-1:] = torch.nan
    return torch.repeat_interleave(history, torch.tensor(groups), dim=0)


def columns(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """The columns that are filled, by name."""
    for name, x in batch.to_dict().items():
        if isinstance(x, Tensor):
            yield name, x


def poisoned(batch: Batch, poison: float, extra: int = 0) -> Batch:
    """The same batch with ``extra`` columns of padding, and ``poison`` on all of the padding."""
    wide = dict(columns(batch))
    for name in {*TOKEN_COLUMNS, "mask", "tokens", "present"} & wide.keys():
        wide[name] = torch.nn.functional.pad(wide[name], (0, extra))
    for name in set(TOKEN_COLUMNS) & wide.keys():
        wide[name] = torch.where(wide["mask"] == 0, poison, wide[name])
    return Batch(**wide, components=batch.components, batch_size=batch.batch_size)


def with_statistics(reader: Part | Recipe, batch: Batch) -> Batch:
    """The batch with a number for every statistic that a part or a recipe reads, made from each token's own columns."""
    found = {s.key: batch.old_logp.abs() / 7 for s in reader.live}
    return batch.with_statistics(found | {SCORED + s.key: batch.old_logp.abs() / 5 for s in reader.scored})


def ready(recipe: Recipe, batch: Batch) -> Batch:
    """The batch as the objective takes it: rewards shaped, credit given, statistics taken."""
    return credit(recipe, shaped(recipe, with_statistics(recipe, batch)))


def gradients(recipe: Recipe, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch that is ready, and its gradient with respect to every leaf that it has."""
    leaves = {name: getattr(batch, name) for name in LEAVES} | {s.key: batch.stat(s) for s in recipe.live}
    return token_gradients(recipe, batch, {name: x for name, x in leaves.items() if x is not None})


def dlogp(recipe: Recipe, batch: Batch) -> Tensor:
    """The gradient with respect to ``logp`` [N, T], from a batch as it was drawn."""
    return gradients(recipe, ready(recipe, batch))[1]["logp"]


def on_policy(batch: Batch) -> Batch:
    """The same batch before the policy has moved."""
    return batch.replace(logp=batch.old_logp)


def with_all_terms(method: Method, **given: Any) -> Recipe:
    """The method's recipe with the terms that it knows and leaves out by default."""
    terms = {"entropy_coef": 0.01, "kl_coef": 0.05}
    return method(**{name: value for name, value in terms.items() if name in method.hyperparameters} | given)


def held(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``f`` with its stop-gradient terms held at their first values: the function that its gradient belongs to."""
    detach, first = Tensor.detach, []

    def g(*args: Tensor) -> Tensor:
        replay = iter(first[:])
        record = not first

        def once(x: Tensor) -> Tensor:
            if not record:
                return next(replay)
            first.append(detach(x).clone())
            return first[-1]

        with mock.patch.object(Tensor, "detach", once):
            return f(*args)

    return g


class TinyPolicy:
    """Three tokens, two steps at most, token 0 ends: seven responses, their probabilities functions of theta."""

    RESPONSES = ((0,), *((a, b) for a in (1, 2) for b in (0, 1, 2)))

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.theta = torch.randn(3, 3, generator=g, dtype=torch.float64, requires_grad=True)
        self.reference = self.theta.detach() + torch.randn(3, 3, generator=g, dtype=torch.float64)
        self.reward = torch.randn(7, generator=g, dtype=torch.float64)
        self.mask = torch.tensor([[1.0, float(len(y) > 1)] for y in self.RESPONSES], dtype=torch.float64)

    def logp(self, theta: Tensor) -> Tensor:
        """[7, 2] log-probability of each token of each response; row 0 of theta starts, row a follows token a."""
        table = theta.log_softmax(-1)
        return torch.stack([torch.stack([table[0, y[0]], table[y[0], y[-1]] * (len(y) > 1)]) for y in self.RESPONSES])

    def log_probability(self) -> Tensor:
        """[7] of each response."""
        return self.logp(self.theta).sum(-1)

    def expected_gradient(self, recipe: Recipe, n: int) -> Tensor:
        """The gradient of the objective on ``n`` responses to one prompt, summed over all that can be drawn."""
        table, reference = self.logp(self.theta), self.logp(self.reference)
        total = torch.zeros(())
        for drawn in map(list, product(range(7), repeat=n)):
            batch = make_batch(
                mask=self.mask[drawn],
                group=torch.zeros(n),
                reward=self.reward[drawn],
                baseline_reward=torch.full((n,), 0.7, dtype=torch.float64),
                old_logp=table[drawn].detach(),
                ref_logp=reference[drawn],
            )
            batch = ready(recipe, batch).replace(logp=table[drawn])
            total = total + table[drawn].sum().detach().exp() * objective(recipe, batch)
        return torch.autograd.grad(total, self.theta)[0]

    def gradient(self, value: Tensor) -> Tensor:
        """dvalue/dtheta."""
        return torch.autograd.grad(value, self.theta)[0]
