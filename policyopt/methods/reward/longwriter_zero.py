"""LongWriter-Zero."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.group.grpo import grpo
from policyopt.part import Shape, part
from policyopt.parts import Decoupled, LengthRange
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch

_BASE = 6364136223846793005
"""An odd multiplier: what a token counts in the number of its line depends on its place."""


def repeated(tokens: Tensor, mask: Tensor, ends: Tensor) -> Tensor:
    """[N] the share of a row's tokens [N, T] that lie in lines which stood before in the same row, from the index of the last token of
    each line [N, K] (-1 for none). Lines of one token say nothing and do not count."""
    kept, width = mask.bool(), tokens.shape[1]
    position = torch.arange(width, device=tokens.device)
    last = torch.where(ends >= 0, ends, width)
    line = (last[:, None, :] < position[:, None]).sum(-1).clamp(max=ends.shape[1] - 1)
    start = torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1] + 1], 1)
    power = torch.full((width,), _BASE, device=tokens.device).cumprod(0)  # int64 wraps around
    counted = torch.where(kept, (tokens.long() + 1) * power[(position - start.gather(1, line)).clamp(min=0)], 0)
    none = torch.zeros_like(ends)
    number = none.scatter_add(1, line, counted)
    size = none.scatter_add(1, line, kept.long())
    same = (number[:, :, None] == number[:, None, :]) & (size[:, :, None] == size[:, None, :])
    again = (same.tril(-1).any(-1) & (size > 1)).to(mask)
    return (again * size).sum(-1) / mask.sum(-1).clamp(min=1)


@part
class FormWithoutRepeats(Shape):
    r"""The component ``format``: the judge's verdict on the form, less the share of the text that repeats a line of its own.

    .. math:: c_i = 1[\text{form}]\,(1 - d_i)

    Repeating a paragraph is the cheapest way to be long. Source: LongWriter-Zero, arXiv:2506.18841, which looks for duplicates in
    meaning. Our reading: lines of the same tokens, and the product.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"formatted", "step_end"})
    provides: ClassVar[frozenset[str]] = frozenset({"component[format]"})

    def __call__(self, batch: Batch) -> Batch:
        share = repeated(batch.tokens, batch.mask, batch.step_end)
        return batch.replace(**{"component[format]": batch.formatted * (1 - share)})


@method(
    parent=grpo,
    arxiv="2506.18841",
    confidence="secondary",
    claim=Claim(
        "Rewards for length, writing and form, each normalised by itself, teach texts of thousands of words that are good to read.",
        beyond="it takes a model that writes thousands of words, and a reward model of writing whose scale drowns the other rewards",
    ),
)
def longwriter_zero(
    lower: float | None = None,
    upper: float | None = None,
    most: float | None = None,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    group_size: int = 8,
) -> Recipe:
    r"""The advantages of length, writing and form are averaged, each normalised in its group: no reward rules by its scale.

    .. math:: A_i = \tfrac13\sum_{k\in\{len, write, form\}}\frac{r^k_i - \mathrm{mean}_G(r^k)}{\mathrm{std}_G(r^k) + \epsilon}

    A positive affine map of one reward changes nothing, and one that is constant in a group adds 0. The writing is what the judge scores
    ("reward"); the length is :class:`~policyopt.parts.LengthRange`, between ``lower`` and ``upper`` tokens and falling to 0 at ``most``;
    the form is the judge's ``formatted``, lowered by lines that repeat (:class:`FormWithoutRepeats`). Ranges that the data has
    for each prompt: ``--recipe.shape.LengthRange.lower NAME`` takes a component of the judge. Source: arXiv:2506.18841, from third
    parties; no code is published. 32 rollouts at temperature 0.8, 14,000 tokens at most. Our reading: ddof 1, no KL, the range (half of the
    budget up to there, 0 at twice that), duplicates by line. The continued pre-training before lies outside.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(LengthRange(lower=lower, upper=upper, most=most), FormWithoutRepeats()),
        advantage=Decoupled(weights=(("length", 1 / 3), ("reward", 1 / 3), ("format", 1 / 3)), whiten=False),
    )
