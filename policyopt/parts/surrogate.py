"""Surrogates: the loss of a token, given its log-ratio and its advantage. All are minimised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.batch import Batch, masked, masked_mean
from policyopt.parts.base import UNITS, Fraction, Level, NonNegative, Surrogate, Unit, part
from policyopt.parts.bounds import Bounded, clip_metrics, pessimistic
from policyopt.parts.ratio import SequenceRatioPerToken


@part
class PPOClip(Bounded, Surrogate):  # type: ignore[override]
    r"""The pessimistic clipped surrogate.

    .. math:: \max\big(-r A,\; -\mathrm{clip}(r, 1-\epsilon_{low}, 1+\epsilon_{high})\,A\big),\qquad
              A < 0:\; \min(\cdot, -c A)

    The gradient is zero exactly where (A > 0 and r > 1 + high), (A < 0 and r < 1 - low) or (A < 0 and r > c);
    elsewhere it is -A r. Source: PPO, arXiv:1707.06347, eq. 7; two bounds: DAPO, arXiv:2503.14476, eq. 10; c: dual-clip
    PPO, arXiv:1912.09729. Raises ``ValueError`` where c lies inside the bounds.
    """

    dual: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    """c, the ratio beyond which the loss of a bad token grows no more; None for no ceiling."""

    def __post_init__(self) -> None:
        if self.dual is not None and self.high is not None and self.dual < 1 + self.high:
            raise ValueError(f"dual is {self.dual:g}, inside the bound 1 + high = {1 + self.high:g}: raise dual")

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -self.counted(log_ratio, batch) * batch.advantage

    def counted(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        """The ratio with which each token counts, [N, T]."""
        return pessimistic(log_ratio.exp(), batch.advantage, *self.window(log_ratio, batch), self.dual)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        found = super().metrics(log_ratio, batch)
        if self.dual is None:
            return found
        return {**found, "clip/dual": ((log_ratio > math.log(self.dual)) & (batch.advantage < 0)).to(log_ratio)}


@part
class GPPOClip(PPOClip):
    r"""The clipped surrogate whose clipped tokens keep the gradient that they have at the bound.

    .. math:: -\tilde r A,\qquad \tilde r = \beta_{high}\,hi\,\frac{r}{sg[r]}\ (A > 0, r > hi),\quad
              \beta_{low}\,lo\,\frac{r}{sg[r]}\ (A < 0, r < lo),\quad r \text{ elsewhere}

    With both beta 1 its value is PPO's on every token. Beyond ``dual`` a bad token has no gradient. Source: GPPO,
    arXiv:2508.07629, and the authors' code (suu990901/KlearReasoner). Our reading: beta scales the value too.
    """

    beta_low: NonNegative = 1.0
    """Factor on bad tokens below the lower bound; 0 silences them."""
    beta_high: NonNegative = 1.0
    """Factor on good tokens above the upper bound; 0 silences them."""

    def counted(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        low, high = self.window(log_ratio, batch)
        ratio, advantage = log_ratio.exp(), batch.advantage
        alive = (log_ratio - log_ratio.detach()).exp()  # 1, with the gradient of the log-ratio
        kept = torch.where((advantage > 0) & (ratio > high), self.beta_high * high * alive, ratio)
        kept = torch.where((advantage < 0) & (ratio < low), self.beta_low * low * alive, kept)
        return kept if self.dual is None else torch.where(advantage < 0, kept.clamp(max=self.dual), kept)


@part
class GeometricMeanClip(Surrogate):
    r"""The geometric mean of a response's ratios, each clipped on the side that its advantage makes optimistic.

    .. math:: -A_{i,t}\,\rho_i,\qquad \rho_i = \exp\Big(\frac{1}{|y_i|}\sum_t c_{i,t}\Big),\qquad
              c_{i,t} = \min(\log r_{i,t}, \epsilon_{high})\ (A > 0),\quad \max(\log r_{i,t}, -\epsilon_{low})\ (A < 0)

    A clipped token has no gradient, but counts in the mean. The bounds are log-ratios. Source: GMPO, arXiv:2507.20673,
    and the authors' code (callsys/GMPO).
    """

    low: NonNegative | None = 0.4
    """How far the log-ratio of a bad token may fall below 0; None for no lower bound."""
    high: NonNegative | None = 0.4
    """How far the log-ratio of a good token may rise above 0; None for no upper bound."""

    unit: ClassVar[Unit] = "row"
    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -self.mean_ratio(log_ratio, batch) * batch.advantage

    def mean_ratio(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        """rho, repeated over the tokens of each row, [N, T]."""
        clipped = pessimistic(log_ratio, batch.advantage, *self._window(log_ratio))
        return masked_mean(clipped, batch.mask, dim=-1, keepdim=True).exp().expand_as(log_ratio)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return clip_metrics(log_ratio, batch.advantage, *self._window(log_ratio))

    def _window(self, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (math.inf if x is None else x for x in (self.low, self.high))
        return log_ratio.new_tensor(-low), log_ratio.new_tensor(high)


@part
class HybridClip(Surrogate):
    r"""A mixture of two clipped surrogates: one of the token's ratio, one of its response's.

    .. math:: w_{i,t}\,\ell_{token}(r_{i,t}) + (1 - w_{i,t})\,\ell_{sequence}(s_{i,t}),\qquad
              w_{i,t} = \text{const}\quad\text{or}\quad H_{i,t} / \max_{t'} H_{i,t'}

    s is the sequence ratio with the gradient of each token (GSPO-token), H the entropy that the token was drawn with.
    A token is silent only where both branches clip it. Source: DHPO, arXiv:2601.05607, from its abstract. Our reading:
    each branch takes its own minimum before they are mixed; high entropy goes to the token branch.
    """

    token: PPOClip = PPOClip(low=0.2, high=0.28)
    """The token branch."""
    sequence: PPOClip = PPOClip(low=3e-4, high=4e-4)
    """The sequence branch."""
    mix: Literal["average", "entropy"] = "average"
    """w: the constant ``weight``, or from the entropy of the token."""
    weight: Fraction = 0.5
    """The weight of the token branch where it is constant."""
    entropy_norm: Literal["response", "batch"] = "response"
    """Whose largest entropy has the weight 1."""
    entropy_to: Literal["token", "sequence"] = "token"
    """The branch that uncertain tokens go to."""

    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the branches read."""
        return self.token.needs | self.sequence.needs

    @property
    def unit(self) -> Unit:  # type: ignore[override]
        """The batch where its largest entropy is the measure, else the row, or what the branches take."""
        own: Unit = "batch" if (self.mix, self.entropy_norm) == ("entropy", "batch") else "row"
        return max(own, self.token.unit, self.sequence.unit, key=UNITS.index)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        w = self.token_weight(batch)
        return w * self.token(log_ratio, batch) + (1 - w) * self.sequence(SequenceRatioPerToken()(batch), batch)

    def token_weight(self, batch: Batch) -> Tensor:
        """w, [N, T]."""
        if self.mix == "average":
            return torch.full_like(batch.mask, self.weight)
        entropy = masked(batch.sampled_entropy, batch.mask)
        top = entropy.amax(-1, keepdim=True)
        if self.entropy_norm == "batch" and len(top):
            top = top.max()
        share = entropy / torch.where(top > 0, top, 1)
        return share if self.entropy_to == "token" else 1 - share

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        branches = {"token": (self.token, log_ratio), "sequence": (self.sequence, SequenceRatioPerToken()(batch))}
        found = {name: branch.metrics(x, batch) for name, (branch, x) in branches.items()}
        return {f"{key}/{name}": x for name, metrics in found.items() for key, x in metrics.items()}


@part
class RatioTimesAdvantage(Surrogate):
    r"""The unclipped importance-weighted surrogate :math:`-r A` (conservative policy iteration; arXiv:1707.06347, eq.
    6)."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -log_ratio.exp() * batch.advantage


@part
class LogProb(Surrogate):
    r"""The score-function surrogate :math:`-A \log\pi_\theta(y_{i,t})`.

    Reads no ratio: off-policy it is biased unless a ``weight`` corrects it. Source: REINFORCE, Williams 1992.
    """

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -batch.advantage * batch.logp
