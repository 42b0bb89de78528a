"""ReST-RL."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.methods.tree.rest_rl.resumed import ResumedFromBest
from policyopt.methods.tree.rest_rl.search import Search
from policyopt.parts import BySource, TruncatedReward
from policyopt.parts.critic.nodes import NodeValueLoss
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2508.19576",
    code="THUDM/ReST-RL",
    confidence="code",
    claim=Claim(
        "Prompts whose rewards differ, and good responses gone on from in the middle: more groups have something "
        "to teach.",
        "mixed-difficulty",
        (Effect("signal/groups", "higher", 0.1), Effect("accuracy", "higher", -0.01)),
        ours={"kl-coef": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def rest_rl(
    stage: Literal["policy", "value"] = "policy",
    std_min: float = 0.05,
    reward_min: float = 0.9,
    alpha: float = 0.95,
    ratio: float = 0.5,
    stop_reward: float = 1e-3,
    kl_coef: float = 0.04,
    group_size: int = 8,
    c: float = 0.2,
    iterations: int = 12,
    samples: int = 5,
    width: int = 5,
) -> Recipe:
    r"""ReST-RL: GRPO where rewards differ, from the middle of good responses too; then a value model for tree search.

    .. math:: \mathrm{std}(R) \ge \sigma_0,\qquad \max R \ge \rho:\; P(\text{first } k \text{ lines of the best}) \propto \alpha^{k-1},\qquad
              UCT = V + c\sqrt{\frac{1 + \ln N_{parent}}{\epsilon + N}},\qquad L_V = (v - V)^2

    ``stage`` "policy" trains the policy (ReST-GRPO): prompts whose rewards differ by ``std_min``, and groups that go on
    from ceil(``ratio`` L) beginnings of a response of ``reward_min`` or more, each normalised by itself; what the budget
    cuts off earns ``stop_reward`` less. ``stage`` "value" takes the policy as it is (``--model`` names that of a run
    before) and searches with real rewards: ``iterations`` times down the tree, ``samples`` responses from each node,
    ``width`` children; the critic learns what nodes and responses are worth. Before and after it, VM-MCTS answers the
    held-out questions: the same search, 15 iterations at c = 0.1, by the critic's values alone. Source: arXiv:2508.19576
    and the authors' code. Our reading: GRPO's clip and KL here; a response ends with its end token, so nothing follows
    the stop symbol; 12 iterations where the paper has 100; the sampling temperature of both searches is theirs, 0.7.
    """
    recipe = grpo(kl_coef=kl_coef, group_size=group_size)
    if stage == "policy":
        return recipe.replace(
            source=ResumedFromBest(size=group_size, std_min=std_min, reward_min=reward_min, alpha=alpha, ratio=ratio),
            shape=(TruncatedReward(reward=-stop_reward, add=True),) if stop_reward else (),
            advantage=BySource(),
        )
    search = Search(size=64, by="reward", iterations=iterations, samples=samples, width=width, c=c, temperature=0.7)
    return recipe.replace(
        source=search,
        ratio=None,
        surrogate=None,
        regularizers=(),
        critic=NodeValueLoss(),
        decode=Search(by="value", samples=samples, width=width, temperature=0.7),
    )
