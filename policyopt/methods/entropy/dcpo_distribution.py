"""DCPO, the distribution-centric one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Thermostat
from policyopt.methods.entropy.aepo import aepo
from policyopt.part import Finite, NonNegative, Positive, Statistic, part
from policyopt.parts import Normalise
from policyopt.parts.statistic.tempered import tempered_logp
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, held, masked
from policyopt.sources.draw import Group


@part
class LogProbAt(Statistic):
    r"""Log-probability of the sampled token at another temperature, :math:`\log\,\mathrm{softmax}(z/T)_{y}`.

    T counts from the temperature that the row was sampled at: at 1 it is the log-probability itself.
    """

    temperature: Positive = 1.0
    """T."""

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        return tempered_logp(logits, target, 1 / self.temperature)


@part
class TargetGap(Thermostat):
    r"""A field that is the distance of a metric from its target, :math:`\mathrm{clip}(target - m, -above, below)`.

    The metric is read as in :class:`Thermostat`. Source: DCPO, arXiv:2601.12730, and the authors' code
    (597358816/DCPO).
    """

    below: NonNegative = 0.1
    """Largest distance while the metric is below the target."""
    above: NonNegative = 0.1
    """Largest distance while it is above."""

    def value(self, metric: float) -> float:
        return min(max(self.target - metric, -self.above), self.below)


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
    def fixed(self) -> tuple[Statistic, ...]:
        """Both temperatures, since the gap may move between drawing and credit, and the policy itself."""
        return (LogProbAt(self.hot), LogProbAt(self.cold), LogProbAt(1.0))

    @property
    def temperature(self) -> float:
        """T."""
        return self.hot if self.gap >= 0 else self.cold

    def ratio(self, batch: Batch) -> Tensor:
        """rho, [N, T], 0 on padding."""
        at, own = (batch.fixed(LogProbAt(t)) for t in (self.temperature, 1.0))
        return masked(held(at - own).exp(), batch.mask)

    def strength(self, batch: Batch) -> float:
        """alpha."""
        rewarded = float((batch.reward > self.threshold).double().mean()) if len(batch.reward) else 0.0
        pull = abs(self.gap) / rewarded if rewarded else 0.0
        return pull / (1 + pull)

    def __call__(self, batch: Batch) -> Tensor:
        alpha, rewarded = self.strength(batch), (batch.reward > self.threshold).to(batch.mask)
        return (1 - alpha) * super().__call__(batch) + alpha * rewarded[:, None] * self.ratio(batch)


@method(
    parent=aepo,
    arxiv="2601.12730",
    code="597358816/DCPO",
    confidence="code",
    claim=Claim(
        "Entropy is held at a target without a further rollout: right answers count as a hotter policy would "
        "have drawn them.",
        "many-answers",
        (Effect("entropy", "higher", 0.02), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        ours={"entropy-target": 0.25},
        theirs={"kl-coef": 0.0},
    ),
)
def dcpo_distribution(
    entropy_target: float = 0.5,
    t_high: float = 1.2,
    t_low: float = 0.8,
    alpha_cap: float = 0.1,
    reward_threshold: float = 0.05,
    low: float | None = 0.2,
    high: float | None = 0.2,
    dual: float | None = 3.0,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""AEPO without the second rollout: rewarded answers are reweighted as if a hotter or colder policy had drawn them.

    .. math:: A'_{i,t} = (1-\alpha)A_i + \alpha\,1[R_i > c]\,\frac{\pi_{old}^T}{\pi_{old}}(y_{i,t}),\qquad
              \frac{\alpha}{1-\alpha} = \frac{\min(|H_0-\hat H|, cap)}{\mathrm{mean}_i\,1[R_i > c]}

    T = ``t_high`` while the entropy of the step before is no higher than ``entropy_target``, else ``t_low``; both
    distributions are the old policy's. The rest is AEPO's dual-clip PPO over the token mean. At the target alpha is
    0 and the advantage GRPO's. Defaults from the authors' code (targets of 0.25 to 1, groups of 5 there). Our reading: the mix is convex
    as in the code, where the paper adds the terms; alpha is 0 without a rewarded row.
    """
    parent = aepo(low=low, high=high, dual=dual, minibatches=minibatches)
    return parent.replace(
        source=Group(size=group_size),
        advantage=VirtualTemperature(hot=t_high, cold=t_low, threshold=reward_threshold),
        select=(),
        controllers=(TargetGap("advantage.gap", entropy_target, alpha_cap, alpha_cap),),
    )
