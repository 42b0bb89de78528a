"""SPO (Segment Policy Optimization)."""

from __future__ import annotations

import math
from typing import Literal

from policyopt.methods.critic.ppo import ppo
from policyopt.parts import KL, Credited, TruncatedReward
from policyopt.parts.once import MeanOver, Unlikely
from policyopt.parts.tree import EdgeAdvantage
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rollout.chain import Chain
from policyopt.rollout.tree import Levels, Tree


@method(parent=ppo, arxiv="2505.23564", code="AIFrameResearch/SPO", confidence="code")
def spo_segment(
    variant: Literal["chain", "tree"] = "chain",
    prob_threshold: float = 0.9,
    interval: int = 5,
    samples: int = 9,
    widths: tuple[int, ...] = (6, 6, 6),
    segment: int = 30,
    scale: Literal["none", "siblings"] = "none",
    whiten: bool = False,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 1e-4,
    epochs: int | None = None,
    edges: int | None = 32,
    replay: int | None = None,
    group_size: int = 8,
) -> Recipe:
    r"""Segment Policy Optimization: segments have the change of a Monte-Carlo value as credit; only uncertain tokens are
    trained on.

    .. math:: A_{i,t} = V_{k+1} - V_k,\qquad L = \frac{\sum_{i,t} M_{i,t}\max\big(-r_{i,t}A_{i,t}, -\mathrm{clip}(r_{i,t}, 1\pm\epsilon)A_{i,t}\big)}{\sum_{i,t} M_{i,t}}
              + \beta\,k3,\qquad M_{i,t} = [\pi_{old}(y_{i,t}) < \rho]

    ``chain``: each of ``group_size`` responses is cut at every ``interval``-th uncertain token; V is the mean reward of
    ``samples`` fresh continuations from the cut, and the response's own reward at its end; what lies before the first
    cut has no credit. ``tree``: nodes of ``segment`` tokens have ``widths[d]`` children at depth d, those of the last
    level run to the end, and V of a node is the mean over its children; ``group_size`` is the product of the widths.
    Every leaf is a row with its whole path, an edge counts once however many leaves lie behind it, and edges without
    advantage are left out. Of the others a step trains on at most ``edges`` random ones for each prompt; what is left
    has its turn at one of the next ``replay`` steps (7 for trees), with the probabilities of the policy that wrote it,
    and no edge is trained on twice. rho = ``prob_threshold``; ``scale`` divides by the spread of the siblings. Truncated
    responses are worth 0. Source: arXiv:2505.23564; defaults from the authors' code for short answers, where the
    sampling temperature is 0.6 and the advantage is whitened too. Our reading: an edge is trained on in a row that
    passes it, an edge of certain tokens alone takes no place, and a question that comes again within the replay has its
    edges counted apart.
    """
    chain = variant == "chain"
    uncertain = Unlikely(threshold=prob_threshold)
    passes = epochs or (2 if chain else 1)
    turns = None if chain else edges
    earlier = replay if replay is not None else 0 if turns is None else 7
    return ppo(low, high, kl_coef=0.0).replace(
        rollout=Chain(size=group_size, threshold=prob_threshold, interval=interval, samples=samples)
        if chain
        else Tree(size=math.prod(widths), branching=Levels(widths=widths, segment=segment)),
        shape=(TruncatedReward(reward=0.0),),
        advantage=EdgeAdvantage(
            values="continuations" if chain else "children",
            scale=scale,
            only=uncertain,
            whiten=whiten,
            per_prompt=turns,
        ),
        select=(Credited(),) if turns is not None else (),
        weight=(MeanOver(tokens=uncertain, once=not chain),),
        regularizers=(KL(coef=kl_coef, estimator="k3"),) if kl_coef else (),
        critic=None,
        update=Update(epochs=passes, replay=earlier),
    )
