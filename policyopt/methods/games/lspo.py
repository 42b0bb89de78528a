"""LSPO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim
from policyopt.control import counting
from policyopt.groups import preferred
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Count, Shape, Unit, part
from policyopt.parts import Reset
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Embedder, Group, InputEmbeddings
from policyopt.sources.program import Context, Question, Response

# The abstract game ---------------------------------------------------------------------------------------------------


def regret_matching(regret: Tensor) -> Tensor:
    r"""The strategy :math:`\sigma(z) = R^+(z)/\sum_{z'}R^+(z')` [..., K], uniform where no regret is above 0."""
    up = regret.clamp(min=0)
    total = up.sum(-1, keepdim=True)
    return torch.where(total > 0, up / torch.where(total > 0, total, 1.0), 1 / regret.shape[-1])


def solved(payoff: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    r"""Counterfactual regret minimisation in a symmetric game of one move, played against itself: the mean regret of not having
    played each strategy, and the mean strategy, [K] each.

    .. math:: R_{T+1}(z) = R_T(z) + u(z) - \sigma_T\cdot u,\qquad u = M\sigma_T

    ``payoff`` M [K, K] is what the strategy of a row gets against that of a column; the mean strategy tends to an equilibrium.
    """
    regret, played = torch.zeros_like(payoff[0]), torch.zeros_like(payoff[0])
    for _ in range(iterations):
        strategy = regret_matching(regret)
        worth = payoff @ strategy
        regret, played = regret + worth - strategy @ worth, played + strategy
    return regret / iterations, played / iterations


def payoffs(wins: Tensor, strategy: Tensor) -> Tensor:
    """How much the responses of each strategy win against those of each other one, [K, K] from -1/2 to 1/2: ``wins`` [N, N] and the
    strategy of each response, 0 to K - 1, [N]. Responses that were not compared do not count."""
    one = torch.nn.functional.one_hot(strategy, int(strategy.max()) + 1).to(wins)
    known = (~wins.isnan()).to(wins)
    total, count = one.T @ wins.nan_to_num(0.0) @ one, one.T @ known @ one
    return torch.where(count > 0, total / count.clamp(min=1), 0.5) - 0.5


@part
class LatentRegret(Shape):
    r"""The reward of a response becomes the regret of not having played its latent strategy, in the game of the strategies that the
    responses to its prompt stand for.

    Which strategy a row plays is its ``thought``. What two strategies get against each other is the mean preference between their responses: by a
    judge that compares, or else the higher reward wins. Rows of one strategy have the same reward, so they are no pair.
    Sources: CFR; LSPO, arXiv:2502.04686. Our reading: the larger regret is the better one, and the game has one move, so that
    the exact tables take the place of Deep CFR's networks.
    """

    iterations: Count = 200
    """Of regret matching."""

    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Batch:
        wins, reward = preferred(batch), torch.zeros_like(batch.reward)
        names = torch.arange(len(reward), device=reward.device) if batch.thought is None else batch.thought
        for prompt in batch.group.unique():
            rows = (batch.group == prompt).nonzero()[:, 0]
            strategy = names[rows].unique(return_inverse=True)[1]
            regret, _ = solved(payoffs(wins[rows][:, rows].to(reward), strategy), self.iterations)
            reward[rows] = regret[strategy]
        return batch.replace(reward=reward)


# Latent strategies ---------------------------------------------------------------------------------------------------


def clusters(points: Tensor, most: int, rounds: int = 50) -> list[int]:
    """k-means of points [N, E]: the cluster of each, numbered by first appearance. Centres begin at the first point and then, one after the
    other, at the one that lies furthest from those there are; there are fewer than ``most`` where points are equal."""
    centres = points[:1]
    while len(centres) < most:
        far = torch.cdist(points, centres).amin(1)
        if not bool(far.max() > 1e-9):
            break
        centres = torch.cat([centres, points[far.argmax()][None]])
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        one = torch.nn.functional.one_hot(nearest, len(centres)).to(points)
        count = one.sum(0)[:, None]
        moved = torch.where(count > 0, one.T @ points / count.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    found = torch.cdist(points, centres).argmin(1).tolist()
    order = list(dict.fromkeys(found))
    return [order.index(c) for c in found]


@part
class LatentStrategies(Group):
    """A group whose responses know which latent strategy they play (``thought``): their cluster among the mean token vectors of the group.

    Source: LSPO, arXiv:2502.04686. Our reading: candidates are independent draws, where the paper asks for one after the other,
    and are clustered prompt by prompt, where the paper clusters what a role says in all games.
    """

    clusters: Count = 3
    """k, most strategies of a prompt; a controller moves it."""
    embedder: Embedder = InputEmbeddings()
    """What responses are compared by."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        points = [self.embedder(torch.tensor(r.tokens), context.sampler).double().mean(0) for r in group]
        for response, cluster in zip(group, clusters(torch.stack(points), self.clusters), strict=True):
            response.thought = cluster
        return group


@method(
    parent=dpo,
    arxiv="2502.04686",
    confidence="secondary",
    claim=Claim(
        "A game of words has few strategies underneath: solved for these, it tells which utterances to prefer.",
        beyond="it was shown in Werewolf, a game of seven speakers over many turns; the testbeds here are of one move",
    ),
)
def lspo(
    beta: float = 0.1,
    strategies: int = 3,
    rounds: int = 3,
    every: int = 10,
    iterations: int = 200,
    group_size: int = 8,
) -> Recipe:
    r"""Latent Space Policy Optimization: responses are clustered into strategies, the game of the strategies is solved, and DPO
    prefers responses of the better ones.

    .. math:: z = \mathrm{cluster}(y),\qquad \sigma(z) = \frac{R^+(z)}{\sum_{z'}R^+(z')},\qquad
              y \succ y' \iff R(z) > R(z'),\qquad L = \mathrm{DPO}

    Responses of one strategy are never a pair, and the names of clusters do not count. A strategy gets against another one what the judge says
    of their responses, best a judge that compares (``docs/judges.md``). In every round of ``every`` steps there is one more strategy,
    from ``strategies`` on, and the reference is the policy at its start.

    Source: arXiv:2502.04686 (beta 0.05 to 0.2 alike, 3 rounds). Our reading: what fits prompts with one
    answer: the game has one move, so it is solved in tables, in 200 iterations where Deep CFR has 1500; the mean vector of the tokens stands for a sentence embedding;
    numbers of clusters are not known; the larger regret is the better one, where an account of the paper says the smaller.
    """
    return dpo(beta).replace(
        source=LatentStrategies(size=group_size, clusters=strategies),
        shape=(LatentRegret(iterations=iterations),),
        reference=Reset(every=every),
        controllers=counting("source.clusters", strategies, strategies + rounds - 1, every),
    )
