"""ORPO with the chi-squared divergence (occupancy-regularised policy optimisation)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Fraction, NonNegative, Positive, Regularizer, Shape, Unit, part
from policyopt.parts.ratio.sequence import sequence_log_ratio
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch

# Of responses --------------------------------------------------------------------------------------------------------

Divergence = Literal["kl", "chi2", "sqrt-chi2"]


def tamed_expm1(u: Tensor, limit: float) -> Tensor:
    """exp(u) - 1, continued as a straight line beyond ``limit``, so that it stays finite."""
    bent = u.clamp(max=limit)
    return bent.exp() * (1 + u - bent) - 1


@part
class SequenceDivergence(Regularizer):
    r"""A divergence of whole responses from the reference, one number per mini-batch.

    .. math:: u_i = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_{i,t}),\qquad
              \widehat{KL} = \frac1N\sum_i[u_i + E(-u_i)],\qquad \widehat{\chi^2} = \frac1N\sum_i[E(u_i) + E(-u_i)]

    :math:`E(u) = e^u - 1`, a straight line beyond ``limit``; :math:`E(-u)` has mean 0 under the policy and reduces the
    variance. The loss is ``coef`` times the estimate or, for ``sqrt-chi2``, :math:`\sqrt{\max(\widehat{\chi^2}, f)}` with
    the floor f. All tokens of a response get the same gradient. Source: arXiv:2403.03185 and the authors' code
    (cassidylaidlaw/orpo). As there, the gradient goes through u alone, not through the distribution that was sampled.
    """

    coef: NonNegative = 8e-4
    """lambda."""
    kind: Divergence = "sqrt-chi2"
    """Which divergence."""
    limit: Positive = 10.0
    """Log-ratio beyond which exponentials become straight lines."""
    floor: NonNegative = 1e-4
    """f; below it the square root has no gradient."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    unit: ClassVar[Unit] = "batch"

    def estimate(self, batch: Batch, kind: Literal["kl", "chi2"]) -> Tensor:
        """The divergence of the mini-batch, a number."""
        u = sequence_log_ratio(batch.logp, batch.ref_logp, batch.mask)
        rise = u if kind == "kl" else tamed_expm1(u, self.limit)
        return (rise + tamed_expm1(-u, self.limit)).sum() / max(1, len(u))

    def __call__(self, batch: Batch) -> Tensor:
        if self.kind != "sqrt-chi2":
            return self.coef * self.estimate(batch, self.kind)
        return self.coef * self.estimate(batch, "chi2").clamp(min=self.floor).sqrt()


def occupancy_distance(log_ratio: Tensor, kind: Divergence, trim: float) -> Tensor:
    r"""What each sample adds to a divergence, [N], from its log-ratio d of occupancies [N].

    KL: d. chi2: :math:`e^d - 1`. sqrt-chi2: :math:`(e^d - 1)/\sqrt m`, m the :func:`trimmed_mean` of :math:`e^d - 1`, where
    it is above 0. Source: arXiv:2403.03185 and the authors' code.
    """
    if kind == "kl":
        return log_ratio
    distance = log_ratio.exp() - 1
    scale = trimmed_mean(distance, trim)
    return distance / scale.sqrt() if kind == "sqrt-chi2" and scale > 0 else distance


def trimmed_mean(x: Tensor, trim: float) -> Tensor:
    """Mean of ``x`` [N] without the ``trim`` share (rounded down) of its smallest and of its largest values; 0 of
    nothing."""
    cut = int(trim * len(x))
    kept = x.sort().values[cut : len(x) - cut]
    return kept.mean() if len(kept) else x.new_zeros(())


@part
class OccupancyPenalty(Shape):
    r"""A divergence of whole responses as a reward: :math:`R_i \leftarrow R_i - \lambda\,\mathrm{distance}(u_i)`.

    u_i is the log-ratio of the response under the policy that sampled and the reference, which is what a discriminator
    of the two would learn where a state is a prompt and an action a response. See :func:`occupancy_distance`. Source:
    arXiv:2403.03185, where the discriminator is trained, and the ratio is that of states and actions.
    """

    coef: NonNegative = 8e-4
    """lambda."""
    kind: Divergence = "sqrt-chi2"
    """Which divergence."""
    trim: Fraction = 0.01
    """Share of the samples that is left out at each end before the scale of sqrt-chi2 is taken."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Batch:
        u = sequence_log_ratio(batch.old_logp, batch.ref_logp, batch.mask)
        return batch.replace(reward=batch.reward + self.bonus(u))

    def bonus(self, log_ratio: Tensor) -> Tensor:
        """What is added to the rewards, [N]."""
        return -self.coef * occupancy_distance(log_ratio, self.kind, self.trim)


@method(
    parent=ppo,
    arxiv="2403.03185",
    code="cassidylaidlaw/orpo",
    confidence="code",
    claim=Claim(
        "Held to the reference by chi-squared rather than by a KL of tokens, a policy hacks a proxy less: more is truly right.",
        "proxy-reward",
        (Effect("accuracy", "higher", 0.02),),
        both={"epochs": 2},
    ),
)
def orpo_chi2(
    low: float | None = 0.4,
    high: float | None = 0.4,
    coef: float = 8e-4,
    divergence: Divergence = "sqrt-chi2",
    penalty: Literal["loss", "reward"] = "loss",
    limit: float = 10.0,
    floor: float = 1e-4,
    trim: float = 0.01,
    epochs: int = 4,
    group_size: int = 1,
) -> Recipe:
    r"""PPO held to the reference by the chi-squared divergence of whole responses, against hacking of a proxy reward.

    .. math:: L = L_{PPO} + \lambda\sqrt{\max(\widehat{\chi^2}, f)},\qquad
              \widehat{\chi^2} = \frac1N\sum_i\big[E(u_i) + E(-u_i)\big],\qquad u_i = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_{i,t})

    E is exp(u) - 1, a straight line beyond ``limit``; lambda = ``coef``, f = ``floor``. A proxy that correlates with the
    true reward under the reference bounds the true gain by the proxy's, less a multiple of the square root of chi2; no
    KL of tokens does that. Not the preference method ORPO. Defaults from the authors' scripts for RLHF. With
    ``penalty="reward"`` the divergence is taken off the rewards, as the authors do in control tasks; our reading: there
    the log-ratio of the response takes the place of a trained discriminator, which would approach it.
    """
    base = ppo(low, high, kl_coef=0.0, epochs=epochs, group_size=group_size)
    if penalty == "reward":
        return base.replace(shape=(OccupancyPenalty(coef=coef, kind=divergence, trim=trim),))
    return base.replace(regularizers=(SequenceDivergence(coef=coef, kind=divergence, limit=limit, floor=floor),))
