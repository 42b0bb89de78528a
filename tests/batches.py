"""Random batches with every column filled, a tiny policy that can be summed over, and what both are used for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any
from unittest import mock
from zlib import crc32

import pytest
import torch
from torch import Tensor

from policyopt import schema
from policyopt.lens import random_batch as lens
from policyopt.lens.random_batch import poisoned as poisoned
from policyopt.objective import credit, objective, shaped, token_gradients
from policyopt.part import Look, Part, Span, nested
from policyopt.recipe import Recipe
from policyopt.registry import Method, entries, library_part, methods
from policyopt.rows import FIXED, Batch, make_batch
from policyopt.schema import member

EVERY_METHOD = pytest.mark.parametrize("method", methods().values(), ids=methods().keys())


def few(names: Iterable[str], step: int, among: Iterable[str] | None = None) -> pytest.MarkDecorator:
    """One in ``step`` of some methods, chosen by a hash of the name, so that a new method changes no other's lot; under
    ``-m heavy`` all others, or all ``among`` some."""
    chosen = {name for name in names if crc32(name.encode()) % step == 0}
    return pytest.mark.parametrize(
        "method",
        [
            pytest.param(methods()[name], id=name, marks=() if name in chosen else pytest.mark.heavy)
            for name in (methods() if among is None else among)
        ],
    )


SOME_METHODS = few(methods(), 10)
"""A tenth of the methods: for what takes seconds a method, and would hardly find something in one that it does not find in others."""


def _classes(x: Any) -> Iterator[type]:
    """The classes of a recipe and of everything in it."""
    if dataclasses.is_dataclass(x):
        yield type(x)
        for field in dataclasses.fields(x):
            yield from _classes(getattr(x, field.name))
    elif isinstance(x, tuple):
        for each in x:
            yield from _classes(each)


def _covering() -> frozenset[str]:
    """Few methods that have every part of all methods among them, those with the most parts first."""
    parts = {name: frozenset(_classes(method())) for name, method in methods().items()}
    left, found = frozenset[type]().union(*parts.values()), set[str]()
    while left:
        best = max(parts, key=lambda name: len(parts[name] & left))
        found.add(best)
        left -= parts[best]
    return frozenset(found)


COVERING = _covering()
COVERING_METHODS = few(COVERING, 3)
"""A third of the methods that have every part of all methods among them: for what takes a second or two a method."""
LIBRARY_PARTS: dict[str, type[Part]] = {e.name: library_part(e.name) for e in entries("part")}
"""Every part of the library by the name of its class."""
SPANS = frozenset(member("span", name) for name, cls in LIBRARY_PARTS.items() if issubclass(cls, Span))
"""The columns of spans, by their usual names."""
LEAVES = ("logp", "entropy", "value")
BUDGET = lens.BUDGET


def random_batch(seed: int = 0, *, dtype: torch.dtype = torch.float64, **shape: Any) -> Batch:
    """Groups of the given sizes, as the main program of a rollout draws them at temperature 1; ``drift`` is how far the
    policy has moved, ``gaps`` puts text of others into rows."""
    shape["needs"] = SPANS.union(shape.get("needs", ()))
    batch = lens.random_batch(seed, dtype=dtype, **shape)
    others = ("present", "origin", "temperature", "turn", "guided", "cut", "thought")
    tree = tree_columns(shape.get("groups", (4, 3, 2)), batch.present.sum(-1).long(), seed)
    return batch.replace(
        **dict.fromkeys(others), **{k: x.to(dtype) if x.is_floating_point() else x for k, x in tree.items()}
    )


def tree_columns(groups: tuple[int, ...], length: Tensor, seed: int) -> dict[str, Tensor]:
    """A tree for each group: two children of the root, each with two children, and a leaf for each row; the last row of
    all passes one node only."""
    first = torch.cat([torch.arange(k) % 2 for k in groups])
    second = torch.cat([torch.arange(k) % 4 for k in groups])
    leaf = torch.cat([torch.arange(k) for k in groups])
    node = torch.stack([1 + first, 3 + second, 10 + leaf], 1)
    node[-1:] = torch.tensor([9, 0, 0])
    end = torch.stack([length // 3, length // 2, length], 1)
    end[-1:] = torch.stack([length, length * 0, length * 0], 1)[-1:]
    value = torch.rand(len(node), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    value[:, 2] = torch.nan
    return {"node": node, "node_end": end, "node_value": value}


def columns(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """The columns that are filled, by name."""
    yield from batch.columns().items()


def with_named(reader: Part | Recipe, batch: Batch) -> Batch:
    """The batch with a number for every span, component and column of a program that a part or a recipe reads and that is not there."""
    asked = [name for name in map(schema.canonical, sorted(reader.needs)) if name not in batch.columns()]
    found = {}
    for i, name in enumerate(asked):
        column = schema.known(name)
        if name.startswith("span["):
            found[name] = (1000 * batch.old_logp + i).sin().gt(0) * batch.mask
        elif name.startswith("component[") or (column.filled_by == "program" and column.axes == "N"):
            chosen = (7 * batch.reward + i).sin().gt(0)
            found[name] = chosen.long() if column.dtype == "int" else chosen.to(batch.reward)
    return batch.replace(**found)


def with_statistics(reader: Part | Recipe, batch: Batch) -> Batch:
    """The same with a number for every statistic, look and named role, made from each token's own columns."""
    batch = with_named(reader, batch)
    looks = reader.looks if isinstance(reader, Recipe) else [x for x in nested(reader) if isinstance(x, Look)]
    named = {look.column for look in looks} | {n for n in map(schema.canonical, reader.needs) if schema.role_of(n)}
    if missing := sorted(named - batch.columns().keys()):
        batch = batch.replace(**dict.fromkeys(missing, 1.3 * batch.old_logp))
    found = {s.key: batch.old_logp.abs() / 7 for s in reader.live}
    return batch.with_statistics(found | {FIXED + s.key: batch.old_logp.abs() / 5 for s in reader.fixed})


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
