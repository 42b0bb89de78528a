"""Selectors: which tokens of a batch a rule picks, boolean [N, T]. They stand inside other parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked_mean
from policyopt.parts.base import Finite, Fraction, NonNegative, Part, Statistic, Unit, Weight, Whole, Wrapper, part

Quantity = Literal["entropy", "logp"] | Statistic
"""What tokens are ranked by: a column, or a statistic of the policy being trained."""


class Selector(Part):
    """Which tokens: returns a boolean [N, T], false on padding, without gradient."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


def masked_quantile(x: Tensor, mask: Tensor, q: float) -> Tensor:
    """The q-quantile of each row of ``x`` [R, L] over the places where ``mask`` is 1, interpolated linearly, [R]; NaN
    for a row without any."""
    if not x.shape[-1]:
        return x.new_full(x.shape[:1], math.nan)
    ordered = torch.where(mask.bool(), x, math.inf).sort(-1).values
    place = q * (mask.double().sum(-1) - 1).clamp(min=0)
    low, high = (ordered.gather(-1, at.long()[:, None])[:, 0] for at in (place.floor(), place.ceil()))
    return low + (place - place.floor()).to(x) * (high - low)


@part
class AboveQuantile(Selector):
    r"""The tokens whose quantity lies at or above (``strict``: above) its q-quantile over the scope.

    The quantile interpolates linearly and never sees padding. Sources: arXiv:2506.01939 (entropy, whole batch, >=);
    SIREN, arXiv:2509.25133 (nucleus entropy, each response, >).
    """

    of: Quantity = "entropy"
    """What the tokens are ranked by."""
    q: Fraction = 0.8
    """Where the cut lies; at 0 all tokens are picked, or all but the lowest if strict."""
    scope: Literal["row", "batch"] = "batch"
    """Over which tokens the quantile is taken."""
    strict: bool = False
    """Leave out tokens that are equal to the quantile."""

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({self.of} if self.of == "entropy" else ())

    @property
    def unit(self) -> Unit:  # type: ignore[override]
        return self.scope

    @property
    def live(self) -> tuple[Statistic, ...]:
        return (self.of,) if isinstance(self.of, Statistic) else ()

    def values(self, batch: Batch) -> Tensor:
        """The quantity of each token, [N, T], with its gradient."""
        return batch.stat(self.of) if isinstance(self.of, Statistic) else getattr(batch, self.of)

    def cut(self, batch: Batch) -> Tensor:
        """The quantile that holds for each row, [N]."""
        values, mask = self.values(batch).detach(), batch.mask
        if self.scope == "row":
            return masked_quantile(values, mask, self.q)
        return masked_quantile(values.reshape(1, -1), mask.reshape(1, -1), self.q).expand(len(mask))

    def __call__(self, batch: Batch) -> Tensor:
        values, cut = self.values(batch).detach(), self.cut(batch)[:, None]
        return batch.mask.bool() & (values > cut if self.strict else values >= cut)


@part
class LeastLikely(Selector):
    r"""The :math:`\lfloor q\,n \rfloor` least likely of the n tokens whose advantage has a given sign.

    None where fewer than ``least`` would be picked; tokens as likely as the last one picked are picked too. Source:
    Lp-Reg, arXiv:2510.03222, and the authors' code, which ranks inside a micro-batch. Our reading: the mini-batch.
    """

    fraction: Fraction = 0.01
    """q."""
    sign: Literal["negative", "positive"] = "negative"
    """Sign of the advantage."""
    least: Whole = 2
    """Fewest tokens to pick."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        signed = batch.advantage < 0 if self.sign == "negative" else batch.advantage > 0
        among = batch.mask.bool() & signed
        count = int(self.fraction * int(among.sum()))
        if count < max(1, self.least):
            return torch.zeros_like(among)
        logp = batch.logp.detach()
        return among & (logp <= logp[among].kthvalue(count).values)


@part
class Mastered(Selector):
    r"""Tokens of right answers that the policy is sure of, in responses with little entropy.

    .. math:: R_i \ge 1 \;\wedge\; \pi_\theta(y_{i,t}) \ge \tau \;\wedge\; \tfrac{1}{|y_i|}\textstyle\sum_t H_{i,t} < \sigma

    H is the entropy of the distributions that the response was drawn from. Source: UloRL, arXiv:2507.19766, section
    3.3. Our reading: the entropy is the response's own, as in the formula, not the batch's; its printed form lacks a
    minus sign.
    """

    tau: Fraction = 0.99
    """From which probability on a token counts as mastered."""
    sigma: Finite = 0.2
    """Mean entropy in nats below which mastered tokens are picked; 0 or less picks none."""
    reward: NonNegative = 1.0
    """From which reward on an answer counts as right."""

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        calm = masked_mean(batch.sampled_entropy, batch.mask, dim=-1) < self.sigma
        right = batch.reward >= self.reward
        return batch.mask.bool() & (calm & right)[:, None] & (batch.logp.detach().exp() >= self.tau)


@part
class SelectedWeight(Wrapper, Weight):
    """One factor on the tokens that a selector picks, another on the rest. The divisor of the loss counts all tokens."""

    tokens: Selector = AboveQuantile()
    """Which tokens."""
    inside: NonNegative = 1.0
    """Factor on those that are picked."""
    outside: NonNegative = 0.0
    """Factor on the others."""

    around: ClassVar[str] = "tokens"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return torch.where(self.tokens(batch), self.inside, self.outside).to(log_ratio)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"selected": self.tokens(batch).to(log_ratio)}
