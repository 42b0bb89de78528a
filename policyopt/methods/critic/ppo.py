"""PPO, in the form used for language models."""

from __future__ import annotations

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import GAE, ClippedValueLoss, EntropyBonus, KLPenalty, PPOClip, TokenMean
from policyopt.parts.control import AdaptiveKL
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=reinforce, arxiv="1707.06347", code="openai/lm-human-preferences", confidence="secondary")
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
