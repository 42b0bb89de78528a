"""The prompts of a step as a curriculum chooses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from policyopt.errors import UserError
from policyopt.items import Example
from policyopt.part import Curriculum


def ranking(
    curriculum: Curriculum, examples: Sequence[Example], memory: Mapping[str, Sequence[float]], width: int,
    key: tuple[int, int],
) -> list[int]:  # fmt: skip
    """All prompts that a curriculum chooses from, as numbers of ``examples``, in the order in which a step takes them.

    It follows from the memory and the key (seed, step) alone. Raises :class:`~policyopt.errors.UserError` where the
    curriculum returns something else than it should.
    """
    listed = isinstance(examples, list | tuple)
    count = len(examples) if listed else min(len(examples), curriculum.pool)
    unknown = [float("nan")] * width
    rows = [memory.get(examples[i].id, unknown) for i in range(count)]
    found = curriculum.weights(torch.tensor(rows, dtype=torch.float64).reshape(count, width))
    _check(curriculum, found, count)
    if not found.is_floating_point():
        return [int(i) for i in found.tolist()]
    # The largest of log(weight) + Gumbel noise are a draw without replacement in proportion to the weights.
    u = np.random.default_rng((*(k & 0xFFFFFFFF for k in key), 1)).random(count)
    noise = -np.log(-np.log(u.clip(1e-300, 1 - 1e-16)))
    weight = found.double().numpy()
    with np.errstate(divide="ignore"):
        score = np.log(weight) + noise
    return [int(i) for i in np.lexsort((-noise, -score))]


def _check(curriculum: Curriculum, found: torch.Tensor, count: int) -> None:
    name = type(curriculum).__name__
    if list(found.shape) != [count]:
        raise UserError(
            f"curriculum ({name}) returned weights of shape {list(found.shape)}, expected [{count}], one per prompt"
        )
    if found.is_floating_point() and not (torch.isfinite(found).all() and (found >= 0).all()):
        raise UserError(
            f"curriculum ({name}) returned a weight below 0 or none that is finite: expected numbers from 0 on"
        )
    if not found.is_floating_point() and sorted(found.tolist()) != list(range(count)):
        raise UserError(
            f"curriculum ({name}) returned whole numbers that are no order of 0 to {count - 1}: name each prompt once"
        )
