"""D3S."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Schedule
from policyopt.methods.group.grpo import grpo
from policyopt.part import Filter, Unit, part
from policyopt.parts import MeanOver, Selector, TokenMean
from policyopt.parts.pairing.pairs import row_credit
from policyopt.parts.select.covariance import largest
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked

Share = Annotated[float, Field(gt=0, le=1)]


@part
class MostVaried(Filter):
    r"""The N rows of the batch whose advantages vary most, :math:`\mathrm{argmax}_{|S|=N} \mathrm{Var}(\{A_i\}_{i\in S})`.

    For numbers the best S has the k smallest and the N - k largest of them for some k, so that a sort and a scan over k find it.
    All rows are kept where there are no more than N. Equal advantages go by the random numbers that came with the rows, so that the choice is
    the same for any order of rows; of equal variances the smallest k is taken. Source: D3S, arXiv:2509.22115.
    """

    keep: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 32.0
    """N, rounded to the nearest whole number; a controller may move it."""

    needs: ClassVar[frozenset[str]] = frozenset({"noise"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        credit, number = row_credit(batch).double(), math.floor(self.keep + 0.5)
        size = len(credit)
        kept = torch.ones(size, dtype=torch.bool, device=credit.device)
        if number >= size:
            return kept
        lots = batch.noise[:, 0].argsort(stable=True)
        order = lots[credit[lots].argsort(stable=True)]
        rising = credit[order] - credit.mean()
        low = torch.arange(number + 1, device=credit.device)  # how many of the smallest are in

        def total(x: Tensor) -> Tensor:
            below = torch.cat([x.new_zeros(1), x.cumsum(0)])
            return below[low] + below[-1] - below[size - number + low]

        variance = total(rising**2) / number - (total(rising) / number) ** 2
        best = variance.amax()
        first = torch.where(variance >= best - 1e-12 * best.abs().clamp(min=1e-12), low, number + 1).amin()
        place = torch.arange(size, device=credit.device)
        kept[order] = (place < first) | (place >= size - number + first)
        return kept


@part
class LargestCredit(Selector):
    r"""The :math:`\lceil K n \rceil` of the n tokens of the batch with the largest :math:`|A_{i,t}|\,H_{i,t}`.

    H is the entropy (nats) that a token was drawn with; of equal ones the first in the batch is taken. Source: D3S, arXiv:2509.22115.
    """

    share: Share = 0.2
    """K; a controller may move it."""

    unit: ClassVar[Unit] = "batch"
    asks: ClassVar[frozenset[str]] = frozenset({"sampling entropy"})

    def score(self, batch: Batch) -> Tensor:
        """|A| H, [N, T], 0 on padding."""
        return masked(batch.advantage.abs() * batch.sampled_entropy, batch.mask)

    def __call__(self, batch: Batch) -> Tensor:
        count = math.ceil(self.share * int(batch.mask.sum()) - 1e-9)  # 0.2 * 35 is a little more than 7
        return largest(self.score(batch), batch.mask.bool(), count)


@method(
    parent=grpo,
    arxiv="2509.22115",
    confidence="secondary",
    claim=Claim(
        "The rows whose advantages vary most, and of these the tokens that count most, are enough: more is solved from fewer tokens.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.01),),
        theirs={"kl-coef": 0.0},
    ),
)
def d3s(
    n_init: int = 32,
    n_final: int = 64,
    k_init: float = 0.2,
    k_final: float = 0.5,
    relax_steps: int = 100,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    group_size: int = 8,
) -> Recipe:
    r"""Dynamic dual-level down-sampling: GRPO on the rows whose advantages vary most, and on their tokens with the most credit times entropy.

    .. math:: \hat S = \mathrm{argmax}_{|S| = N_u} \mathrm{Var}(\{A_i\}_{i\in S}),\qquad
              L = \frac{1}{\sum_{i\in\hat S, t} M_{i,t}}\sum_{i\in\hat S, t} M_{i,t}\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t})A_i)

    M are the share K_u of the tokens of S with the largest :math:`|A_{i,t}|H_{i,t}`. Advantages are those of whole groups, and S
    is chosen over the whole batch. N goes from ``n_init`` to ``n_final`` responses of a step and K from ``k_init`` to ``k_final`` in
    ``relax_steps`` steps, linearly. With N and K as large as they go it is GRPO with a token-mean. It saves training, not
    sampling. Source: arXiv:2509.22115, after third parties, who give no N and K: the numbers here are ours, for steps of 128 responses.
    Our reading: one budget of tokens for the mini-batch, the divisor counts the tokens that are kept, H is the entropy that a token was drawn
    with.
    """
    rows, later_rows = MostVaried(keep=n_init), MostVaried(keep=n_final)
    tokens, later_tokens = LargestCredit(share=k_init), LargestCredit(share=k_final)
    ways = (
        ("rows", "select.MostVaried.keep", rows.keep, later_rows.keep),
        ("tokens", "weight.MeanOver.tokens.share", tokens.share, later_tokens.share),
    )
    return grpo(low, high, kl_coef, group_size=group_size).replace(
        select=(rows,),
        weight=(MeanOver(tokens=tokens),),
        aggregate=TokenMean(),
        controllers=tuple(
            Schedule(field, start_value=first, end_value=last, steps=relax_steps, label=name)
            for name, field, first, last in ways
            if first != last
        ),
    )
