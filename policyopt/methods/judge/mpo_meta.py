"""Meta policy optimisation."""

from __future__ import annotations

from policyopt.methods.critic.ppo import ppo
from policyopt.parts import TruncatedReward
from policyopt.parts.rubric import Criterion, Refinement, Rubric
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=ppo, arxiv="2504.20157", code="minnesotanlp/mpo", confidence="code")
def mpo_meta(
    criteria: tuple[str, ...] = ("correct", "formatted"),
    interval: int | None = 10,
    word_limit: int = 16_666,
    no_eos_penalty: float = 1.0,
    kl_coef: float = 0.02,
    low: float | None = 0.2,
    high: float | None = 0.2,
    clip_value: float | None = None,
    vf_coef: float = 0.1,
    gamma: float = 1.0,
    lam: float = 0.95,
    epochs: int = 4,
    group_size: int = 1,
) -> Recipe:
    r"""The rubric of the judge is part of the training: a meta judge rewrites it every few updates.

    .. math:: R = \sum_{k\in\phi_v} s_k - \rho\,1[\text{no end token}],\qquad \phi_{v+1} = \mathrm{meta}(\phi_v, \text{what was seen})

    ``criteria`` are parts of the verdict, each worth points; after every ``interval`` updates
    (:class:`~policyopt.parts.rubric.Refinement`) the rubric is analysed, proposals are made and merged. None keeps the
    first rubric, which is PPO. Source: arXiv:2504.20157 and the authors' code (minnesotanlp/mpo), where language models
    judge and meta-judge. Our reading: both are functions here, behind the interface
    :class:`~policyopt.parts.rubric.MetaJudge`; its rule moves points from criteria that all fulfil to those that few do.
    The critic is not clipped (``clip_value``): a rubric's sums are whole points, and change with the rubric.
    """
    parent = ppo(low, high, clip_value, vf_coef, kl_coef, None, 0.0, gamma, lam, epochs, 1, group_size)
    rubric = Rubric(items=tuple(Criterion(name) for name in criteria))
    return parent.replace(
        shape=(rubric, TruncatedReward(reward=-no_eos_penalty, add=True), *parent.shape),
        controllers=(Refinement(interval=interval, word_limit=word_limit),) if interval else (),
    )
