"""ROSE."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.part import Finite, Fraction, NonNegative, part
from policyopt.parts import EdgeAdvantage, MixedOutcomes
from policyopt.parts.advantage.tree import lineage
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Branching, Embedder, Fork, Growth, InputEmbeddings, Tree
from policyopt.sources.program import Response, Sampler


def semantic_divergence(p: Tensor, vectors: Tensor) -> Tensor:
    r""":math:`SD = -\sum_{v \ne u} p_v p_u \cos(e_v, e_u)`, [...], of tokens with probabilities ``p`` [..., K] and
    vectors [..., K, E].

    Positive where likely tokens point away from each other. Source: ROSE, arXiv:2601.05053; the probabilities are not
    renormalised, and a token is not compared with itself, as in the authors' code.
    """
    direction = torch.nn.functional.normalize(vectors, dim=-1)
    weighted = p[..., None] * direction
    together = weighted.sum(-2).square().sum(-1)
    return weighted.square().sum((-2, -1)) - together


@part
class ShorterAdvantage(EdgeAdvantage):
    r"""The advantage of edges, lowered on right responses that are longer than the shortest right one, from where they
    left it.

    .. math:: A_{c,t} \leftarrow A_{c,t} - |A_{c,t}|\Big(1 - \big(\tfrac{|y_s| - b_c}{|y_c| - b_c}\big)^{\alpha}\Big),\qquad t > b_c

    s is the shortest right response to the prompt, b_c the number of tokens before the last node that c shares with it.
    Of several that are as short, c is held against the one nearest to it. Source: ROSE, arXiv:2601.05053, and the
    authors' code (ZiqiZhao1/ROSE-rl).
    """

    alpha: NonNegative = 1.0
    """How much; 0 leaves all as it is."""
    right: Finite = 0.5
    """A reward above it makes a response right."""

    def __call__(self, batch: Batch) -> Tensor:
        advantage = super().__call__(batch)
        if not len(advantage):
            return advantage
        right, length = batch.total_reward() > self.right, batch.length()
        peers = (batch.group[:, None] == batch.group) & right
        shortest = torch.where(peers, length, torch.inf).amin(-1)
        left = shared_length(batch, peers & (length == shortest[:, None]))
        position = torch.arange(advantage.shape[1], device=advantage.device)
        longer = (right & (length > shortest))[:, None] & (position >= left[:, None])
        rest = ((shortest - left).clamp(min=0) / (length - left).clamp(min=1))[:, None]
        return torch.where(longer, advantage - advantage.abs() * (1 - rest**self.alpha), advantage)


def shared_length(batch: Batch, others: Tensor) -> Tensor:
    """[N] how many tokens lie before the last node that each row shares with one of the rows that ``others`` [N, N]
    names for it; 0 where only the root is shared."""
    way = lineage(batch)[:, 1:]
    depth = torch.zeros_like(batch.length())
    if batch.node is None:
        return depth
    for node, end in zip(way.unbind(1), batch.node_end.unbind(1), strict=True):
        shared = ((node[:, None] == node) & others).any(-1)
        depth = torch.where(shared, torch.maximum(depth, end.to(depth)), depth)
    return depth


@part
class SemanticBranching(Branching):
    r"""One response after the other: from scratch, or from the place where the policy was torn between tokens that mean
    different things.

    .. math:: SE_k = H_k\,SD_k,\qquad SD_k = -\sum_{v \ne u} p_v p_u \cos(e_v, e_u)

    H is the entropy of the next token, SD runs over the ``candidates`` likeliest. With probability ``explore`` a
    response starts from the prompt, else it leaves an earlier one before the token at which SE is largest in all of
    them. Source: ROSE, arXiv:2601.05053, and the authors' code (ZiqiZhao1/ROSE-rl). With cosines that are mostly
    positive SE is largest where the policy is nearly sure; ``min_entropy`` is our guard against that.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"top alternatives", "sampling entropy"})

    explore: Fraction = 0.5
    """Probability of a response from scratch."""
    candidates: Annotated[int, Field(ge=2)] = 20
    """K: likeliest tokens that are compared."""
    min_entropy: NonNegative = 0.0
    """Places of less entropy, in nats, are not branched at."""
    embedder: Embedder = InputEmbeddings()
    """What tokens mean."""

    @property
    def top(self) -> int:
        return self.candidates

    def mark(self, piece: Response, sampler: Sampler) -> list[float]:
        """SE of each token of a response; minus infinity where it is too sure."""
        ids = torch.tensor([ids for ids, _ in piece.top])
        p = torch.tensor([logp for _, logp in piece.top], dtype=torch.float64).exp()
        entropy = torch.tensor(piece.entropy, dtype=torch.float64)
        jump = entropy * semantic_divergence(p, self.embedder(ids, sampler).double())
        return torch.where(entropy < self.min_entropy, -math.inf, jump).tolist()

    def __call__(self, tree: Growth, size: int) -> list[Fork]:
        if len(tree.rows) >= size and tree.rounds:
            return []
        places = [(mark, -i, -k) for i, marks in enumerate(tree.marks) for k, mark in enumerate(marks)]
        best = max(places, default=(-math.inf, 0, 0))
        if tree.rounds == 0 or tree.random.random() < self.explore or best[0] == -math.inf:
            return [Fork(0, 0)]
        return [Fork(-best[1], -best[2])]


@method(
    parent=dr_grpo,
    arxiv="2601.05053",
    code="ZiqiZhao1/ROSE-rl",
    confidence="code",
    claim=Claim(
        "Branches where likely tokens differ in meaning: more is solved within several attempts, and not at "
        "greater length.",
        "mixed-difficulty",
        (Effect("pass@4", "higher", 0.01), Effect("length", "lower", -0.5)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def rose(
    explore: float = 0.5,
    top_k: int = 20,
    min_entropy: float = 0.0,
    alpha: float = 1.0,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 1e-3,
    loss_norm: float | None = None,
    rounds: int = 8,
    group_size: int = 8,
) -> Recipe:
    r"""Responses branch off where likely tokens differ in meaning; segments are credited with what they change, less
    where answers are long.

    .. math:: A_{i,t} = \hat V(b_j) - \hat V(b_{j-1}),\qquad
              A_{c,t} \leftarrow A_{c,t} - |A_{c,t}|\Big(1 - \big(\tfrac{|y_s| - b_c}{|y_c| - b_c}\big)^\alpha\Big)

    V is the mean reward of the responses that pass a place where another branched off. With probability ``explore`` a
    response starts from scratch, else from the largest semantic entropy so far, among ``top_k`` tokens compared by
    the recipe's ``source.branching.embedder``. The loss is Dr. GRPO's with a KL; prompts with equal outcomes are drawn anew, up to ``rounds`` times.
    Every response is a row with its whole path: a shared token counts once for each response, with the same advantage.
    Source: arXiv:2601.05053 and the authors' code; alpha is one of the four values that were searched. Our reading:
    places at the same depth of different branches have worths of their own, as in the paper.
    """
    branching = SemanticBranching(explore=explore, candidates=top_k, min_entropy=min_entropy)
    return dr_grpo(low, high, loss_norm).replace(
        source=Tree(size=group_size, rounds=rounds, branching=branching),
        filter=(MixedOutcomes(),),
        advantage=ShorterAdvantage(alpha=alpha),
        regularizers=(KL(coef=kl_coef, estimator="k3"),) if kl_coef else (),
    )
