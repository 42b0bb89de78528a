"""IGPO."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import whiten
from policyopt.judging.answers import MARK
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Fraction, NonNegative, Unit, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.desk import turn_starts
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response
from policyopt.turns import on_tokens, to_go, turn_ends, turns_there


@part
class TruthAfterTurns(Group):
    """A group of episodes; for each turn the policy is asked how likely the reference answer was to it before that turn.

    What was said is not changed by that: the answer, behind ``opener``, is put behind what was said up to then and scored by the policy
    that played, once the episodes are over. Where a task has no answer, or no environment, nothing is asked.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"truth_logp"})
    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})
    plays: ClassVar[bool] = True

    opener: str = f"{MARK} "
    """What stands between the context and the answer, as the policy would write it; it is read, not scored."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        rows = await super().draw(question, context)
        truth = context.encode(question.answer) if context.episodes is not None and question.answer else ()
        if not truth:
            return rows
        opener, most = context.encode(self.opener), context.room + question.budget

        async def likely(before: tuple[int, ...]) -> float:
            if len(before) + len(truth) > most:  # more than the model reads
                return float("nan")
            scored = await context.sampler.logprobs(before, truth, temperature=self.temperature)
            return sum(scored.logp) / len(truth)

        places = [
            [(*(row.context or question.tokens), *row.tokens[:start], *opener) for start in turn_starts(row)]
            for row in rows
        ]
        asked = list(dict.fromkeys(before for row in places for before in row))  # all episodes begin alike
        known = dict(zip(asked, await asyncio.gather(*map(likely, asked)), strict=True))
        for row, before in zip(rows, places, strict=True):
            row.columns["truth_logp"] = [known[tokens] for tokens in before]
        return rows


@part
class InformationGain(Advantage):
    r"""Each turn is worth how much more likely it made the truth, the last one what the episode was worth; normalised over turns, then
    summed up from the turn on.

    .. math:: u_{i,k} = \pi_{i,k} - \pi_{i,k-1}\;(k < K_i),\quad u_{i,K_i} = R_i,\qquad
              A_{i,k} = \frac{u_{i,k} - \mathrm{mean}_q u}{\sqrt{\mathrm{var}_q u + \epsilon_v} + \epsilon},\qquad \tilde A_{i,k} = \sum_{k' \ge k}\gamma^{k'-k}A_{i,k'}

    :math:`\pi_{i,k}` is the geometric mean of the probabilities of the truth's tokens after k turns (``truth_logp``). Gains telescope: those
    of an episode add up to :math:`\pi_{i,K-1} - \pi_{i,0}`. Where the truth is not known a turn gains 0. Source: arXiv:2510.14967, and the
    authors' code (GuoqingWang1/IGPO) of 2026. Our reading: a gain of exactly 0 is a turn like others.
    """

    norm: Literal["joint", "separate"] = "joint"
    """One mean and deviation for all turns of the group's episodes, or one for gains and one for outcomes."""
    gain: Literal["prob", "log_prob"] = "prob"
    """Differences of pi, or of its logarithm."""
    gamma: Fraction = 1.0
    """Discount from turn to turn; 0 leaves each turn its own reward."""
    ddof: Literal[0, 1] = 0
    """Delta degrees of freedom of the deviation."""
    var_eps: NonNegative = 1e-8
    """Added to the variance."""
    eps: NonNegative = 1e-6
    """Added to the deviation."""

    needs: ClassVar[frozenset[str]] = frozenset({"truth_logp"})
    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        return on_tokens(batch, to_go(self.normalised(batch), self.gamma))

    def rewards(self, batch: Batch) -> Tensor:
        """[N, K] u, 0 where an episode has no such turn."""
        there = turns_there(batch)
        width = there.shape[1]
        outcome = batch.total_reward()[:, None].expand(there.shape)
        gain = torch.zeros_like(outcome)
        if batch.truth_logp is not None and width > 1:
            said = batch.truth_logp[:, :width]
            known = said.exp() if self.gain == "prob" else said
            gain[:, : known.shape[1] - 1] = known.diff(dim=1).nan_to_num(0.0)
        return torch.where(self._last(batch), outcome, gain * there)

    def normalised(self, batch: Batch) -> Tensor:
        """[N, K] u, normalised."""
        there, reward = turns_there(batch), self.rewards(batch)
        pool = batch.group[:, None].expand(there.shape)
        if self.norm == "separate":
            pool = 2 * pool + self._last(batch)
        found = torch.zeros_like(reward)
        found[there] = whiten(reward[there], pool[there], ddof=self.ddof, eps=self.eps, variance_eps=self.var_eps)
        return found

    @staticmethod
    def _last(batch: Batch) -> Tensor:
        """[N, K] the last turn of each episode."""
        ends = turn_ends(batch)
        return (ends >= 0) & (ends == ends.amax(1, keepdim=True))


@method(
    parent=grpo,
    arxiv="2510.14967",
    code="GuoqingWang1/IGPO",
    confidence="code",
    claim=Claim(
        "Turns that are rewarded by how much likelier they make the true answer teach also where all outcomes are equal: more right "
        "answers than with outcomes alone.",
        "retrieval",
        (Effect("accuracy", "higher", 0.02),),
    ),
)
def igpo(
    norm: Literal["joint", "separate"] = "joint", gain: Literal["prob", "log_prob"] = "prob", gamma: float = 1.0, low: float = 0.2,
    high: float = 0.2, kl_coef: float = 0.001, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Information Gain-based Policy Optimization: each turn earns what it adds to the policy's own probability of the true answer.

    .. math:: u_{i,k} = \pi_\theta(a \mid q, o_{\le k}) - \pi_\theta(a \mid q, o_{<k})

    Before each turn the policy says how likely the reference answer is to it (:class:`TruthAfterTurns`, with the weights that play and
    without gradient); these gains and the outcome are normalised over all turns of the group and summed up from the turn on
    (:class:`InformationGain`). The rest is GRPO; with one turn it is GRPO on the outcome. Source: arXiv:2510.14967, and
    GuoqingWang1/IGPO (2026): KL 0.001, gamma 1, groups of 16. Our reading: where the paper's tables leave open which they used, the
    defaults of the code; the penalty for answers out of form is the environment's to give.
    """
    return grpo(low, high, kl_coef=kl_coef).replace(
        source=TruthAfterTurns(size=group_size), advantage=InformationGain(norm=norm, gain=gain, gamma=gamma)
    )
