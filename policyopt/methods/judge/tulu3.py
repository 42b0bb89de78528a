"""Tulu 3."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.parts import Correctness, TruncatedReward
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=ppo,
    arxiv="2411.15124",
    code="allenai/open-instruct",
    confidence="code",
    claim=Claim(
        "A verifier in the place of a learned reward cannot be pleased: what it rewards is right.",
        "proxy-reward",
        (Effect("accuracy", "higher", 0.05),),
    ),
)
def tulu3(
    low: float | None = 0.2,
    high: float | None = 0.2,
    clip_value: float | None = 0.2,
    vf_coef: float = 0.1,
    kl_coef: float = 0.05,
    verification_reward: float = 10.0,
    no_eos_reward: float = -10.0,
    gamma: float = 1.0,
    lam: float = 0.95,
    epochs: int = 4,
    minibatches: int = 1,
    group_size: int = 1,
) -> Recipe:
    r"""PPO with verifiable rewards (RLVR): a verifier takes the place of the reward model.

    .. math:: v = \begin{cases}\rho & \text{no end token}\\ \alpha & \text{verified}\\ 0 & \text{else}\end{cases},\qquad
              R_t = -\beta\log\frac{\pi_{old}}{\pi_{ref}} + 1[t=T]\,v

    alpha = ``verification_reward``, rho = ``no_eos_reward``, which replaces the score even of a right answer. Advantages
    and losses are PPO's. Source: arXiv:2411.15124, section 6, and the authors' code (allenai/open-instruct). Our
    reading: the score falls on the last token of the response; the critic starts from the policy, where the authors'
    starts from a reward model. The stage before it, length-normalised DPO, is
    :class:`~policyopt.parts.Pairs` with a :class:`~policyopt.parts.Logistic` link on the mean log-ratio
    to the reference.
    """
    parent = ppo(low, high, clip_value, vf_coef, kl_coef, None, 0.0, gamma, lam, epochs, minibatches, group_size)
    verified = (Correctness(right=verification_reward, wrong=0.0), TruncatedReward(reward=no_eos_reward))
    return parent.replace(shape=(*verified, *parent.shape))
