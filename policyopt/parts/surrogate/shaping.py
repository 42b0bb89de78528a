"""Policy shaping: rows that somebody else wrote, or that were drawn behind something else, under a bounded function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from policyopt.part import UNITS, Fraction, Level, Positive, Surrogate, Unit, Wrapper, part
from policyopt.parts.select.rows import main_rows
from policyopt.parts.select.tokens import masked_quantile
from policyopt.parts.surrogate.policy_gradient import RatioTimesAdvantage
from policyopt.rows import Batch, masked


@part
class PolicyShaping(Wrapper, Surrogate):
    r"""A bounded function of a probability or a ratio on auxiliary rows, another surrogate on the others.

    .. math:: -f(x_{i,t})\,A,\qquad f(x) = \frac{x}{x + \gamma},\quad x = \pi_\theta(y_{i,t} \mid q, y_{i,<t})
              \text{ or } r_{i,t}\qquad \text{where } \mathrm{origin}_i > 0

    The gradient of f with respect to log x is :math:`\gamma x / (x + \gamma)^2`: largest where x is gamma and never 0, so
    that no token is lost, and none is clipped. With the ``probability``, who wrote a token, and how likely that was, is of no
    account; with the ``ratio``, tokens that needed what the policy no longer sees count little. Without a constant, gamma
    is the ``quantile`` of x over the tokens of auxiliary rows, at least ``least``, without gradient: scaling all x by one
    factor then changes nothing. Sources: Critique-GRPO, arXiv:2506.03106, and the authors' code
    (zhangxy-2019/critique-GRPO; probability, 0.1); Guide, arXiv:2506.13923, and the authors' code
    (vaskar-open-source-research/guide_rl; ratio, quantile). Our reading: no quantile sees padding, which in the latter does.
    """

    of: Literal["probability", "ratio"] = "probability"
    """x."""
    gamma: Positive | None = 0.1
    """Where the gradient is largest; None for the quantile."""
    quantile: Fraction = 0.9
    """Which quantile of x gamma is, interpolated linearly."""
    least: Positive = 1e-4
    """Smallest gamma that a quantile makes."""
    scope: Literal["row", "batch"] = "row"
    """Over which auxiliary tokens the quantile is taken: those of the row, or of the mini-batch."""
    inner: Surrogate = RatioTimesAdvantage()
    """The surrogate of rows that the main program drew."""

    @property
    def unit(self) -> Unit:
        """The inner surrogate's, or the scope of the quantile where that is larger."""
        return self.inner.unit if self.gamma is not None else max(self.inner.unit, self.scope, key=UNITS.index)

    @property
    def levels(self) -> frozenset[Level]:
        """The inner surrogate's."""
        return self.inner.levels

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        own = self.own(batch)
        mine = self.inner(masked(log_ratio, own), batch)
        return torch.where(own, mine, -self.shaped(log_ratio, batch) * batch.advantage)

    def shaped(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        """f, [N, T]."""
        log_x = log_ratio if self.of == "ratio" else batch.logp
        return (log_x - self.threshold(log_ratio, batch).log()[:, None]).sigmoid()

    def threshold(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        """gamma of each row, [N], without gradient."""
        if self.gamma is not None:
            return batch.mask.new_full((len(batch),), self.gamma)
        x = (log_ratio if self.of == "ratio" else batch.logp).detach().exp()
        mask = masked(batch.mask, ~self.own(batch))
        if self.scope == "row":
            found = masked_quantile(x, mask, self.quantile)
        else:
            found = masked_quantile(x.reshape(1, -1), mask.reshape(1, -1), self.quantile).expand(len(x))
        return torch.where(
            found.isnan(), 1.0, found.clamp(min=self.least)
        )  # NaN: no token to measure, and none to shape

    def own(self, batch: Batch) -> Tensor:
        """Boolean [N, T]: the rows that the main program drew."""
        return main_rows(batch)[:, None].expand(batch.mask.shape)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return self.inner.metrics(masked(log_ratio, self.own(batch)), batch)
