"""RSO."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Count, Positive, part
from policyopt.parts import Hinge, Link, Logistic, Pairs, PairSelector, RowScore
from policyopt.parts.pairing.pairs import row_credit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import GroupFrom
from policyopt.sources.program import Context, Question, Response

# Survivors -----------------------------------------------------------------------------------------------------------


def accepted_with(rewards: Sequence[float], beta: float) -> list[float]:
    r"""The probability with which each candidate is accepted in a pass, :math:`e^{(r_i - \max_j r_j)/\beta}`, from the rewards of those
    that are left. Source: RSO, arXiv:2309.06657, algorithm 1."""
    most = max(rewards, default=0.0)
    return [math.exp((r - most) / beta) for r in rewards]


def rejection_sample(
    rewards: Sequence[float], beta: float, wanted: int, uniform: Callable[[int, int], float]
) -> tuple[list[int], int]:
    r"""Which candidates are kept so that they follow :math:`\pi_{sft}(y)\,e^{r(y)/\beta}`, in the order in which they were accepted, and the
    number of passes.

    ``rewards`` [M] are of candidates that were drawn from the first policy, ``uniform(pass, i)`` is a number in [0, 1) for candidate i in
    a pass, counted from 0. In each pass those that are left are accepted with the probability of :func:`accepted_with`, one after the
    other, until there are ``wanted`` or nothing is left. The best of a pass is always accepted, so it ends. Large ``beta``
    (in units of the reward) keeps the first ones, small keeps the best.

    Source: RSO, arXiv:2309.06657, algorithm 1 (beta 0.5, 8 of 64). Our reading: it stops inside a pass. Raises ``ValueError`` where
    beta is not positive or a reward is not finite.
    """
    if not beta > 0 or not all(map(math.isfinite, rewards)):
        raise ValueError(f"rejection sampling takes a beta above 0 and finite rewards, got {beta} and {list(rewards)}")
    left, found, passes = list(range(len(rewards))), list[int](), 0
    while left and len(found) < wanted:
        chance = accepted_with([rewards[i] for i in left], beta)
        taken = [i for i, p in zip(left, chance, strict=True) if uniform(passes, i) < p][: wanted - len(found)]
        found += taken
        left = [i for i in left if i not in taken]
        passes += 1
    return found, passes


@part
class Survivors(GroupFrom):
    """Of ``candidates`` responses of the reference those ``size`` that statistical rejection sampling leaves, by their rewards.

    Equal texts are one candidate; one without a reward is none. Fewer are left where there are not as many. The log counts
    candidates, survivors and passes. Source: RSO, arXiv:2309.06657.
    """

    candidates: Count = 64
    """How many are drawn and judged for a prompt."""
    beta: Positive = 0.5
    """In units of reward: how far the survivors may be from the best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.own or self.candidates < self.size:
            raise ValueError(
                f"{self.candidates} candidates leave no {self.size} survivors, or own is {self.own}: raise candidates, and let own be 0"
            )

    @property
    def uses(self) -> frozenset[str]:
        """The other model, and the judge."""
        return super().uses | {"judge"}

    async def draw(self, question: Question, context: Context) -> list[Response]:
        drawn = await self.others(question, context, self.candidates)
        distinct = list({tuple(r.tokens): r for r in drawn}.values())
        verdicts = await context.judge(distinct)
        judged = [(r, v.score) for r, v in zip(distinct, verdicts, strict=True) if v.rewarded]
        chance = random.Random(repr(("survivors", question.key)))
        left, passes = rejection_sample([x for _, x in judged], self.beta, self.size, lambda *_: chance.random())
        context.count(candidates=len(drawn), survivors=len(left), passes=passes)
        return [judged[i][0] for i in left]


@part
class Knockout(PairSelector):
    """Responses to a prompt meet two by two, in random order: of ``first`` the pairs that this makes, each response in one; else the
    better ones go on until one is left, and every duel is a pair.

    The odd one out goes on; a tie is no pair, and the first goes on. Source: RSO, arXiv:2309.06657.
    """

    first: bool = True
    """The first round alone."""

    needs: ClassVar[frozenset[str]] = frozenset({"noise"})

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        credit, found = row_credit(batch), list[Tensor]()
        alive = batch.noise[:, 0].argsort()
        alive = alive[batch.group[alive].argsort(stable=True)]
        while True:
            duels = _duels(alive, batch.group)
            ahead = (credit[duels[0]] >= credit[duels[1]])[None]
            found.append(torch.where(ahead, duels, duels.flip(0)))
            if self.first or not duels.numel():
                break
            alive = alive[~torch.isin(alive, found[-1][1])]
        better, worse = torch.cat(found, 1)
        apart = credit[better] > credit[worse]
        return better[apart], worse[apart]


def _duels(rows: Tensor, group: Tensor) -> Tensor:
    """Neighbours of the same group, each row at most once, [2, D]; rows of a group stand together."""
    place = torch.arange(len(rows), device=rows.device)
    start = torch.searchsorted(group[rows].contiguous(), group[rows].contiguous())
    meets = ((place - start) % 2 == 0)[:-1] & (group[rows[:-1]] == group[rows[1:]])
    return torch.stack([rows[:-1][meets], rows[1:][meets]])


@method(
    parent=dpo,
    arxiv="2309.06657",
    confidence="paper",
    claim=Claim(
        "Pairs of responses that follow the optimal policy, found by rejection among many of the reference, teach more than pairs of others.",
        "pairs",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        ours={"candidates": 16, "group-size": 4},
    ),
)
def rso(
    beta: float = 0.5,
    gamma: float = 0.05,
    loss: Literal["sigmoid", "hinge"] = "sigmoid",
    reference: bool = True,
    pairing: Literal["first-round", "tournament"] = "first-round",
    candidates: int = 64,
    group_size: int = 8,
) -> Recipe:
    r"""Statistical Rejection Sampling Optimization: pairs of responses that are drawn as the optimal policy would draw them.

    .. math:: y \sim \pi_{ref}(y)\,e^{R(y)/\beta}/Z,\qquad L = \mathrm{mean}_{pairs}\,\ell(\gamma(h_w - h_l)),\qquad
              h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_t)

    The likeliest reward under given preferences makes the likeliest policy only where the pairs were drawn from that policy. Of
    ``candidates`` responses of the reference rejection sampling leaves ``group_size`` (:func:`rejection_sample`, ``beta`` in units of
    reward); these are paired, ``first-round`` two by two or as a ``tournament``, with the higher reward as the better one. The
    loss is :math:`-\log\sigma(z)` ("sigmoid", DPO's with gamma as beta) or :math:`\max(0, 1-z)` ("hinge"); without ``reference`` h is the
    log-likelihood, which is SLiC's.

    Source: arXiv:2309.06657, with its defaults (temperature 0.7 and top-k 40 there). Our reading: the judge's score is the reward, where
    the paper takes the logit of a ranker's preference over one random response.
    """
    links: dict[str, Link] = {"sigmoid": Logistic(beta=gamma), "hinge": Hinge(beta=gamma)}
    return dpo().replace(
        source=Survivors(size=group_size, candidates=candidates, beta=beta),
        surrogate=Pairs(
            score=RowScore(against="reference" if reference else "nothing"),
            link=links[loss],
            choose=Knockout(first=pairing == "first-round"),
        ),
    )
