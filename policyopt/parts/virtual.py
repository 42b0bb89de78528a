"""An advantage that pulls the policy towards itself at another temperature, without sampling there."""

from __future__ import annotations

from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.advantage import Normalise
from policyopt.parts.base import Finite, Positive, Statistic, part
from policyopt.parts.statistic import LogProbAt


@part
class VirtualTemperature(Normalise):
    r"""Mix the advantage with the reward seen from a hotter or colder copy of the old policy.

    .. math:: A'_{i,t} = (1-\alpha)\,A_i + \alpha\,b_i\,\rho_{i,t},\qquad \rho_{i,t} = \frac{\pi_{old}^T}{\pi_{old}}(y_{i,t}),\quad
              b_i = 1[R_i > c],\quad \tilde\alpha = \frac{|gap|}{\mathrm{mean}_i\, b_i},\quad \alpha = \frac{\tilde\alpha}{1+\tilde\alpha}

    T is ``hot`` where the gap to the entropy target is 0 or more, else ``cold``. rho is the same policy at two
    temperatures, a constant weight: hot, it is above 1 for rare tokens, so rewarded answers raise entropy. Source: DCPO,
    arXiv:2601.12730, and the authors' code (597358816/DCPO). Our reading: without a rewarded row alpha is 0 (the
    code divides by zero).
    """

    gap: Finite = 0.0
    """Wanted minus measured entropy in nats, capped; a controller moves it."""
    hot: Positive = 1.2
    """T while entropy is too low."""
    cold: Positive = 0.8
    """T while it is too high."""
    threshold: Finite = 0.05
    """c, the reward above which a row is rewarded."""

    @property
    def scored(self) -> tuple[Statistic, ...]:
        """Both temperatures, since the gap may move between drawing and credit, and the policy itself."""
        return (LogProbAt(self.hot), LogProbAt(self.cold), LogProbAt(1.0))

    @property
    def temperature(self) -> float:
        """T."""
        return self.hot if self.gap >= 0 else self.cold

    def ratio(self, batch: Batch) -> Tensor:
        """rho, [N, T], 0 on padding."""
        at, own = (batch.scored(LogProbAt(t)) for t in (self.temperature, 1.0))
        return masked((at - own).exp(), batch.mask)

    def strength(self, batch: Batch) -> float:
        """alpha."""
        rewarded = float((batch.reward > self.threshold).double().mean()) if len(batch.reward) else 0.0
        pull = abs(self.gap) / rewarded if rewarded else 0.0
        return pull / (1 + pull)

    def __call__(self, batch: Batch) -> Tensor:
        alpha, rewarded = self.strength(batch), (batch.reward > self.threshold).to(batch.mask)
        return (1 - alpha) * super().__call__(batch) + alpha * rewarded[:, None] * self.ratio(batch)
