"""PPO, in the form used for language models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from policyopt.claims import Claim, Effect
from policyopt.control import Follows
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Positive, part
from policyopt.parts import ClippedValueLoss, EntropyBonus, KLPenalty, PPOClip, TokenMean
from policyopt.parts.advantage.gae import GAE
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@part
class AdaptiveKL(Follows):
    r"""Move a KL coefficient so that the measured KL approaches a target.

    .. math:: e = \mathrm{clip}(KL / target - 1, \pm c),\qquad \beta \leftarrow \beta\,(1 + e\,n / horizon)

    n is the number of responses of the step. Source: Ziegler et al., arXiv:1909.08593, section 2.2.
    """

    field: str = "shape.KLPenalty.coef"
    """Path of the coefficient."""
    target: Positive = 6.0
    """Wanted KL per response, in nats."""
    horizon: Positive = 10_000
    """Responses over which the coefficient can change by a factor of about ``1 + c``."""
    clip: Positive = 0.2
    """Bound c on the proportional error."""
    metric: str = dataclasses.field(default="kl/ref_response", kw_only=True)
    """Where the KL is read."""

    def follow(self, value: float, measured: float, metrics: Mapping[str, float]) -> float:
        error = min(max(measured / self.target - 1, -self.clip), self.clip)
        return value * (1 + error * metrics["responses"] / self.horizon)


@method(
    parent=reinforce,
    arxiv="1707.06347",
    code="openai/lm-human-preferences",
    confidence="secondary",
    claim=Claim(
        "With a clipped ratio a batch serves for several updates: fewer samples lead as far as the policy gradient's.",
        "number_sorting",
        (Effect("tokens to target", "lower", 10_000), Effect("accuracy", "higher", 0.01)),
        ours={"epochs": 2, "kl-coef": 0.0},
    ),
)
def ppo(
    low: float | None = 0.2,
    high: float | None = 0.2,
    clip_value: float | None = 0.2,
    vf_coef: float = 0.1,
    kl_coef: float = 0.05,
    kl_target: float | None = None,
    entropy_coef: float = 0.0,
    gamma: float = 1.0,
    lam: float = 0.95,
    epochs: int = 4,
    minibatches: int = 1,
    group_size: int = 1,
) -> Recipe:
    r"""Token-level actor-critic: a learned value spreads credit (GAE), a clipped ratio lets one batch be used several
    times.

    .. math:: \rho_t = -\beta\log\frac{\pi_{old}}{\pi_{ref}} + 1[t=T]\,R,\quad \hat A_t = \sum_l(\gamma\lambda)^l\delta_{t+l},\quad
              L = \mathrm{mean}_{tok}\max(-rA, -\mathrm{clip}(r, 1-\epsilon_l, 1+\epsilon_h)A) + c_v L_V - c_H H

    A is the whitened advantage, L_V the clipped squared error of the critic. With ``kl_target`` (nats per response)
    beta adapts. Sources: arXiv:1707.06347; for language models arXiv:1909.08593, arXiv:2203.02155 and
    openai/lm-human-preferences. Defaults as in TRL (clip 0.2, c_v 0.1, lambda 0.95, 4 epochs). Our reading: whitening
    over the batch that was drawn.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        shape=(KLPenalty(coef=kl_coef),) if kl_coef else (),
        advantage=GAE(gamma=gamma, lam=lam),
        surrogate=PPOClip(low=low, high=high),
        aggregate=TokenMean(),
        regularizers=(EntropyBonus(coef=entropy_coef),) if entropy_coef else (),
        critic=ClippedValueLoss(coef=vf_coef, clip=clip_value, gamma=gamma, lam=lam),
        update=Update(epochs=epochs, minibatches=minibatches),
        controllers=(AdaptiveKL(target=kl_target),) if kl_target and kl_coef else (),
    )
