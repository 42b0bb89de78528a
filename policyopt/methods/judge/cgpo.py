"""CGPO."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Positive, Unit, part
from policyopt.parts import Likelihood, Logistic, Normalise, Pairs, PairSelector, SeqMeanTokenMean, Side
from policyopt.parts.pairing.pairs import first_best, row_credit
from policyopt.parts.shape.components import own
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.draw import GroupWithGreedy

Judges = tuple[str, ...]
"""Names of a verdict's parts, or "correct" and "formatted". A response is feasible where all are above 1/2."""


def feasible(batch: Batch, judges: Judges) -> Tensor:
    """Which responses no judge forbids, boolean [N]."""
    found = torch.ones_like(batch.mask[:, 0], dtype=torch.bool)
    for name in judges:
        found = found & (batch.component(name) > 0.5)
    return found


def drift(batch: Batch) -> Tensor:
    r"""How far the policy that sampled has left the reference on each response, :math:`\log\pi_{old}/\pi_{ref}`, [N] in
    nats."""
    return masked(batch.old_logp - batch.ref_logp, batch.mask).sum(-1)


def calibrated(batch: Batch) -> Tensor:
    r"""The reward against that of the prompt's baseline response, :math:`\sigma(r - \bar r)`, [N] in (0, 1)."""
    return torch.sigmoid(batch.reward - batch.baseline_reward)


@part
class CalibratedAdvantage(Advantage):
    r"""The calibrated reward of feasible responses, less the further they are from the reference.

    .. math:: \tilde R_i = c_i\,\sigma(r_i - \bar r)\,\max\Big(1 - \frac{d_i}{KL_{max}}, 0\Big),\qquad A_i = \tilde R_i - \mathrm{mean}(\tilde R)

    c is 1 where every judge agrees, d the log-ratio to the reference of the whole response (below 0 it raises the
    reward), the mean runs over the batch. Source: CGPO, arXiv:2409.20370 (CRPG).
    """

    judges: Judges = ("formatted",)
    """Who has to agree."""
    kl_max: Positive | None = 5.0
    """KL_max in nats per response; None for no bound."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What calibrates, and what the judges say."""
        return frozenset({"ref_logp", "baseline_reward"}) | own(self.judges)

    def reward(self, batch: Batch) -> Tensor:
        """R-tilde, [N]."""
        earned = torch.where(feasible(batch, self.judges), calibrated(batch), 0.0)
        return earned if self.kl_max is None else earned * (1 - drift(batch) / self.kl_max).clamp(min=0)

    def __call__(self, batch: Batch) -> Tensor:
        plain = Normalise(centre="batch", scale="none")
        return plain(batch.replace(reward=self.reward(batch), token_reward=None))


@part
class BestFeasible(CalibratedAdvantage):
    r"""For each prompt the feasible response with the largest calibrated reward, weighted by it; 0 for the others.

    .. math:: A_{i^*} = \frac{N}{Q}\,\sigma(r_{i^*} - \bar r),\qquad i^* = \mathrm{argmax}\{\sigma(r_i - \bar r) : c_i = 1, d_i \le KL_{max}\}

    Q counts the prompts, so that a mean over the N rows is one over prompts. Source: CGPO, arXiv:2409.20370 (CRRAFT).
    Our reading: a prompt without such a response is skipped (the paper then takes the baseline response, which is no
    row here); of equal ones the first is picked.
    """

    def picked(self, batch: Batch) -> Tensor:
        """Row numbers of the picked responses, at most one for each prompt."""
        allowed = feasible(batch, self.judges) & (drift(batch) <= (math.inf if self.kl_max is None else self.kl_max))
        return first_best(calibrated(batch), batch.group, allowed)

    def __call__(self, batch: Batch) -> Tensor:
        picked, per_prompt = self.picked(batch), len(batch.mask) / max(1, len(batch.group.unique()))
        weight = torch.zeros_like(batch.mask[:, 0])
        weight[picked] = per_prompt * calibrated(batch)[picked]
        return weight[:, None] * batch.mask


@part
class FeasibleFirst(PairSelector):
    """The best response to each prompt that every judge allows, and the worst that one forbids, or the worst of all where
    none is forbidden. A prompt without an allowed response has no pair."""

    judges: Judges = ("formatted",)
    """Who has to agree."""

    @property
    def needs(self) -> frozenset[str]:
        """What the judges say."""
        return own(self.judges)

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        credit, group, good = row_credit(batch), batch.group, feasible(batch, self.judges)
        better = first_best(credit, group, good)
        chosen = torch.zeros_like(good).index_fill(0, better, True)
        has_bad = torch.isin(group, group[~good])
        worse = first_best(-credit, group, (~good | ~has_bad) & ~chosen)
        both = torch.isin(group[better], group[worse]), torch.isin(group[worse], group[better])
        return better[both[0]], worse[both[1]]


@method(
    parent=reinforce,
    arxiv="2409.20370",
    confidence="secondary",
    claim=Claim(
        "Judges of what counts at all, beside the reward, keep a policy from hacking it as PPO does.",
        "proxy-reward",
        (Effect("accuracy", "higher", 0.05),),
        against="ppo",
    ),
)
def cgpo(
    optimizer: Literal["crpg", "codpo", "crraft"] = "crpg",
    judges: tuple[str, ...] = ("correct",),
    kl_max: float | None = 5.0,
    beta: float = 0.1,
    lam: float = 1.0,
    group_size: int = 4,
) -> Recipe:
    r"""Constrained generative policy optimisation: a reward says how good a response is, a mixture of judges whether it
    counts at all.

    .. math:: \tilde R_i = \prod_j 1[\text{judge } j]\;\sigma(r_i - \bar r)\,\max\Big(1 - \frac{d_i}{KL_{max}}, 0\Big),\qquad
              d_i = \log\frac{\pi_\theta(y_i)}{\pi_{ref}(y_i)}

    ``crpg`` is REINFORCE on R-tilde minus its mean over the batch; ``codpo`` is DPO (``beta``) on the best allowed
    response against the worst forbidden one, plus ``lam`` times the likelihood of the best; ``crraft`` raises the best
    allowed response in proportion to its calibrated reward. ``judges`` names what has to hold: "correct", "formatted", or
    parts of the verdict. Source: arXiv:2409.20370, after a third party's implementation that cites its equations. Our
    reading: the greedy response is the baseline that calibrates; the mean runs over responses, not tokens. Tasks with
    optimisers of their own are runs of their own here.
    """
    recipe = reinforce(baseline="batch-mean", group_size=group_size)
    drawn = recipe.replace(source=GroupWithGreedy(size=group_size))
    if optimizer == "crpg":
        return drawn.replace(advantage=CalibratedAdvantage(judges=judges, kl_max=kl_max))
    if optimizer == "crraft":
        return drawn.replace(advantage=BestFeasible(judges=judges, kl_max=kl_max))
    choose = FeasibleFirst(judges=judges)
    return recipe.replace(
        advantage=Normalise(centre="none", scale="none"),
        surrogate=Pairs(link=Logistic(beta=beta), choose=choose),
        regularizers=(Likelihood(coef=lam, rows=Side(choose=choose), mean="response"),),
        aggregate=SeqMeanTokenMean(),
    )
