"""RLGF."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.critic.ppo import ppo
from policyopt.parts import Likelihood
from policyopt.parts.guided import GuidedValueLoss
from policyopt.parts.source import BySource
from policyopt.parts.target import OwnTokens
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.guided import WithGuide

SHARE = {"ppo++": 0.6, "aggrevated": 0.8, "lols": 0.8, "d2lols": 0.8}
TAU = {"lols": 0.8, "d2lols": 20.0}


@method(parent=ppo, arxiv="2306.11816", code="Cornell-RL/tril", confidence="code")
def rlgf(
    algorithm: Literal["ppo++", "aggrevated", "lols", "d2lols"] = "ppo++",
    share: float | None = None,
    tau: float | None = None,
    low: float | None = 0.2,
    high: float | None = 0.2,
    clip_value: float | None = 0.2,
    vf_coef: float = 0.5,
    kl_coef: float = 0.001,
    gamma: float = 0.99,
    lam: float = 0.95,
    target_coef: float = 0.1,
    epochs: int = 5,
    group_size: int = 1,
) -> Recipe:
    r"""RL with guided feedback: another model begins the policy's responses, or finishes them and teaches it what its
    beginnings are worth.

    .. math:: L = -\frac{1}{\sum w}\sum_{i,t} w_{i,t}\min(r_{i,t}A_{i,t}, \mathrm{clip}(r_{i,t}, 1\pm\epsilon)A_{i,t})
              + c_v L_V - \frac{c}{\sum|y|}\sum_{i,t}\log\pi_\theta(y_{i,t})

    With probability ``share`` (beta) the first h tokens of a whole response stay, h uniform in 1 to its length minus 1.
    ``ppo++``: the guide (``--teacher``) writes them, and policy and critic learn from the policy's own, t > h.
    ``aggrevated``: the policy writes them and learns from them, t <= h; the guide writes the others, from which the
    critic learns its value. ``lols``: each step is ppo++ with probability ``tau``, else aggrevated. ``d2lols``:
    aggrevated before step ``tau``, then ppo++. y are worked solutions, c = ``target_coef``. Without a share and a
    target it is PPO; ppo++ with stored references as the guide is DR-PO. Source: arXiv:2306.11816 and the authors'
    code, whose settings for IMDB are the defaults. Our reading: as in the code, the policy learns from all that it
    wrote before the guide took over (the paper takes one action); the KL is paid on every token that is scored, the
    guide's too; advantages are whitened over the policy's tokens, as in PPO; the guide samples as the policy does
    (there from its nucleus); one critic serves both settings of lols, where the code keeps two.
    """
    parent = ppo(low, high, clip_value, vf_coef, kl_coef, gamma=gamma, lam=lam, epochs=epochs, group_size=group_size)
    share = SHARE[algorithm] if share is None else share
    return parent.replace(
        rollout=WithGuide(
            size=group_size, algorithm=algorithm, share=share, tau=TAU.get(algorithm, 0.0) if tau is None else tau,
            targets=bool(target_coef),
        ),
        advantage=BySource(inner=parent.advantage, auxiliary=False),
        aggregate=OwnTokens(inner=parent.aggregate),
        regularizers=(Likelihood(coef=target_coef, rows="auxiliary"),) if target_coef else (),
        critic=GuidedValueLoss(coef=vf_coef, clip=clip_value, gamma=gamma, lam=lam),
    )  # fmt: skip
