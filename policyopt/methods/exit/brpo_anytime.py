"""BRPO, the objective of AnytimeReasoner."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Positive, Unit, part
from policyopt.parts import SeqMeanTokenSumNorm
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import EarlyExits


@part
class BudgetRelative(Advantage):
    r"""Each part of a thought is credited with the budgets that it serves, against its own earlier scores and the group.

    .. math:: R_s = \sum_{j\ge s}P_j m_j,\qquad V^1_s = \frac{\sum_{j<s}\kappa^j m_j}{\sum_{j<s}\kappa^j}\sum_{j\ge s}P_j,\qquad
              A_s = R_s - \frac{s V^1_s + (S-s)\bar R_s}{S}

    m_s is the mean reward of the answers from cut s (0 to S-1), R-bar the mean of R over the thoughts of the prompt; A_s
    goes to the tokens between cut s-1 and cut s. An answer is credited with its reward minus m_s, or minus the mean of m_s
    over the thoughts where it is the only one of its cut. Without cuts a response stands for its answers at all
    budgets, which leaves reward minus group mean. Source: BRPO, arXiv:2505.13438, and the authors' code
    (sail-sg/AnytimeReasoner).
    """

    budgets: tuple[Positive, ...] = (0.25, 0.5, 0.75, 1.0)
    """Where the cuts lie, in any unit."""
    prior: Literal["uniform", "linear", "base"] = "linear"
    """P: equal, in proportion to the budget, or all on the last one."""
    inv_lambda: Positive = 2.0
    """kappa: how much more a later score counts than the one before."""
    baseline: Literal["brpo", "v1only", "v2only"] = "brpo"
    """What is subtracted: the mixture, V^1 alone, or the mean over the thoughts alone."""

    unit: ClassVar[Unit] = "batch"

    def probability(self, like: Tensor) -> Tensor:
        """P, [S]."""
        budgets = like.new_tensor(self.budgets)
        if self.prior == "base":
            return (torch.arange(len(budgets), device=like.device) == len(budgets) - 1).to(like)
        weight = budgets if self.prior == "linear" else torch.ones_like(budgets)
        return weight / weight.sum()

    def returns(self, score: Tensor) -> Tensor:
        """R, [K, S], from the mean scores [K, S] of K thoughts."""
        return (self.probability(score) * score).flip(-1).cumsum(-1).flip(-1)

    def baselines(self, score: Tensor, group: Tensor) -> Tensor:
        """What is subtracted from R, [K, S]; ``group`` [K] says which thoughts answer the same prompt."""
        steps = score.shape[-1]
        others = torch.stack([group_mean(r, group) for r in self.returns(score).unbind(-1)], -1)
        weight = self.inv_lambda ** torch.arange(steps, device=score.device).to(score)
        before = (weight * score).cumsum(-1) - weight * score
        to_go = self.probability(score).flip(-1).cumsum(-1).flip(-1)
        own = before / (weight.cumsum(-1) - weight).clamp(min=torch.finfo(score.dtype).tiny) * to_go
        if self.baseline != "brpo":
            return own if self.baseline == "v1only" else others
        s = torch.arange(steps, device=score.device).to(score)
        return (s * own + (steps - s) * others) / steps

    def answered(self, reward: Tensor, score: Tensor, count: Tensor, group: Tensor) -> Tensor:
        """The advantage of answers with ``reward`` [K, S, A], ``count`` [K, S] of them from each cut."""
        among = torch.stack([group_mean(m, group) for m in score.unbind(-1)], -1)
        return reward - torch.where(count > 1, score, among)[..., None]

    def __call__(self, batch: Batch) -> Tensor:
        n, steps, reward = len(batch.mask), len(self.budgets), batch.reward
        row = torch.arange(n, device=reward.device)
        own = torch.stack([batch.group, row if batch.thought is None else batch.thought], -1)
        if not n:
            return batch.mask
        thoughts, index = own.unique(dim=0, return_inverse=True)
        exit_ = torch.full_like(row, -1) if batch.origin is None else batch.origin.clamp(max=steps) - 1
        forced, place = exit_ >= 0, index * steps + exit_.clamp(min=0)
        zero = reward.new_zeros(len(thoughts) * steps)
        count = zero.index_add(0, place[forced], torch.ones_like(reward[forced])).view(-1, steps)
        total = zero.index_add(0, place[forced], reward[forced]).view(-1, steps)
        whole = reward.new_zeros(len(thoughts)).index_add(0, index[~forced], reward[~forced])
        score = torch.where(count > 0, total / count.clamp(min=1), whole[:, None])
        group = thoughts[:, 0]
        think = (self.returns(score) - self.baselines(score, group))[index]
        end = torch.full_like(zero, batch.mask.shape[1])
        if batch.cut is not None:
            end[place[forced]] = batch.cut[forced].to(end)
        position = torch.arange(batch.mask.shape[1], device=reward.device)
        segment = (position[:, None] >= end.view(-1, 1, steps)[index]).sum(-1).clamp(max=steps - 1)
        answered = self.answered(reward[:, None, None], score[index], count[index], batch.group)[row, exit_, 0]
        return torch.where(forced[:, None], answered[:, None], think.gather(-1, segment)) * batch.mask


@method(
    parent=grpo,
    arxiv="2505.13438",
    code="sail-sg/AnytimeReasoner",
    confidence="code",
    claim=Claim(
        "Rewarded at every budget, a thought comes to its answer sooner: shorter, and as often right.",
        "long-winded",
        (Effect("length", "lower", 3.0), Effect("accuracy", "higher", -0.02)),
        theirs={"kl-coef": 0.0},
    ),
)
def brpo_anytime(
    budget_prior: Literal["uniform", "linear", "base"] = "linear",
    exits: int = 3,
    answers: int = 5,
    inv_lambda: float = 2.0,
    baseline: Literal["brpo", "v1only", "v2only"] = "brpo",
    low: float | None = 0.2,
    high: float | None = 0.2,
    epochs: int = 1,
    thoughts: int = 4,
) -> Recipe:
    r"""Budget relative policy optimisation: the answer shall be good at whatever budget the thought is cut.

    .. math:: A_s = \sum_{j\ge s}P_j m_j - \frac{s V^1_s + (S-s)V^2_s}{S},\qquad A_{s,a} = x_{s,a} - m_s

    ``thoughts`` thoughts for each prompt, cut at ``exits`` equal steps of the budget, ``answers`` answers from each cut;
    A_s is for the tokens of the thought between two cuts, A_{s,a} for those of an answer. The tokens that close a thought
    are not trained on, those of a thought once. Source: arXiv:2505.13438 and the authors' code (sail-sg/AnytimeReasoner),
    losses over a constant. Our reading: 4 thoughts, 3 cuts and 5 answers make
    64 rows, which divide a batch, where the authors have 8, 4 and 4; a thought that ends without its mark is answered from its end
    (there it scores 0).
    """
    shares = tuple((s + 1) / exits for s in range(exits))
    rows = thoughts * (1 + exits * answers)
    return grpo(low, high, kl_coef=0.0, epochs=epochs).replace(
        source=EarlyExits(size=rows, exits=exits, answers=answers, fractions=shares, once=True),
        advantage=BudgetRelative(budgets=shares, prior=budget_prior, inv_lambda=inv_lambda, baseline=baseline),
        aggregate=SeqMeanTokenSumNorm(),
    )
