"""Selectors: which tokens something is about."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from policyopt.part import Fraction, Part, Statistic, Unit, part
from policyopt.rows import Batch

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
    def needs(self) -> frozenset[str]:
        return frozenset({self.of} if self.of == "entropy" else ())

    @property
    def unit(self) -> Unit:
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
