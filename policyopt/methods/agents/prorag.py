"""ProRAG."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import whiten
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Finite, Label, NonNegative, Shape, Unit, part
from policyopt.parts import Normalise, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.schema import member
from policyopt.turns import turn_ends, turn_numbers

Scored = Literal["turns", "steps"]


def step_score(logit: float, formed: bool) -> float:
    r"""The score of a step from the logit of a process reward model: :math:`\sigma(z) + 1` where the step is well-formed, else
    :math:`\sigma(z) - 2`, for judges that fill ``step_reward``. Source: ProRAG, arXiv:2601.21912."""
    return (1 + math.tanh(logit / 2)) / 2 + (1.0 if formed else -2.0)


@part
class FlooredOutcome(Shape):
    r"""How much of the answer is right, as far as it is worth anything, and a point more or less for the form.

    .. math:: R_i = s\,f_i\,1[f_i \ge f_0] \pm 1

    f is the F1 of the words of the answer. Where the judge says nothing of it, its score stays. Source: ProRAG,
    arXiv:2601.21912, and the authors' code (lilinwz/ProRAG).
    """

    component: Label = "f1"
    """What the judge calls f."""
    scale: Finite = 2.0
    """s."""
    floor: Finite = 0.2
    """f_0."""

    needs: ClassVar[frozenset[str]] = frozenset({"formatted"})

    def __call__(self, batch: Batch) -> Batch:
        if self.component not in batch.components():
            return batch
        f = batch.component(self.component)
        return batch.replace(reward=self.scale * f * (f >= self.floor) + 2 * batch.formatted - 1)


@part
class OutcomeAndSteps(Advantage):
    r"""The outcome against the group's outcomes, and the score of each step against the scores of all tokens of the group.

    .. math:: A_{i,t} = \frac{R_i - \mathrm{mean}_q R}{\mathrm{std}_q R + \epsilon} + \beta\,\frac{u_{i,t} - \mu_q}{\sigma_q}

    u is the score of the step that a token lies in; mu and sigma (population, 1e-8 added to the variance) are over all tokens
    of the prompt's responses that lie in a step, so a long step counts more than a short one. Tokens of no step have no second
    term. Source: ProRAG, arXiv:2601.21912, and the authors' code (lilinwz/ProRAG); the text may mean a mean over steps.
    """

    beta: NonNegative = 0.3
    """beta; 0 is GRPO."""
    outcome: Normalise = Normalise(eps=1e-4)
    """The first term."""
    scored: Scored = "turns"
    """What a step is: a turn, scored by what the environment gave for it, or what a judge scores (``step_reward``)."""
    counts: tuple[Label, ...] = ()
    """Of turns: what the environment counts in one that makes it good; their sum is the score, in the place of its reward."""

    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    @property
    def needs(self) -> frozenset[str]:
        """The scores."""
        names = {member("turn_number", name) for name in self.counts} or {"turn_reward"}
        return frozenset(names if self.scored == "turns" else {"step_reward"}) | self.outcome.needs

    def __call__(self, batch: Batch) -> Tensor:
        turns = self.scored == "turns"
        ends = turn_ends(batch) if turns else batch.step_end
        score, there = in_steps(batch, ends, self.of_turns(batch) if turns else batch.step_reward)
        return self.outcome(batch) + self.beta * self.pooled(score, there, batch)

    def of_turns(self, batch: Batch) -> Tensor:
        """[N, K] the scores of turns."""
        if not self.counts:
            return batch.turn_reward
        return torch.stack([turn_numbers(batch, name) for name in self.counts]).sum(0)

    def pooled(self, score: Tensor, there: Tensor, batch: Batch) -> Tensor:
        """[N, T] the second term, without beta, from the scores of tokens and which of them count."""
        found, group = torch.zeros_like(batch.mask), batch.group[:, None].expand_as(there)
        found[there] = whiten(score[there], group[there], variance_eps=1e-8)
        return found


def in_steps(batch: Batch, ends: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """A number of each step, x [N, K], on the policy's tokens of that step, both [N, T]; and which tokens lie in one. ``ends``
    [N, K] are the indices of the last tokens of steps, -1 where there is none."""
    width = batch.mask.shape[1]
    position = torch.arange(width, device=ends.device)
    step = (torch.where(ends >= 0, ends, width)[:, None, :] < position[:, None]).sum(-1)
    there = batch.mask.bool() & (step < (ends >= 0).sum(1, keepdim=True))
    return x.to(batch.mask).gather(1, step.clamp(max=x.shape[1] - 1)), there


@method(
    parent=grpo,
    arxiv="2601.21912",
    code="lilinwz/ProRAG",
    confidence="code",
    claim=Claim(
        "Scores of single steps beside the outcome tell the searches apart: more multi-hop questions are answered than by the outcome alone.",
        "retrieval",
        (Effect("accuracy", "higher", 0.02),),
        ours={"counts": ("hop1", "hop2")},
        theirs={"kl-coef": 0.0},
    ),
)
def prorag(
    beta: float = 0.3, scored: Scored = "turns", counts: tuple[str, ...] = (), f1_scale: float = 2.0, f1_floor: float = 0.2,
    low: float | None = 0.2, high: float | None = 0.2, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""GRPO on the outcome, and beside it on the score of each step, for questions that take several searches.

    .. math:: A_{i,t} = \frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon} + \beta\,\frac{u_{i,t} - \mu}{\sigma},\qquad
              R_i = 2 f_i\,1[f_i \ge f_0] \pm 1

    f is the F1 of the answer (the judge's part ``f1``; without it the score stays), u the score of the step of a token: what
    the environment gave for a turn, or counted in it under ``counts``, or with ``scored`` "steps" what the judge says of each
    step (``step_reward`` and ``step_end``; :func:`~policyopt.methods.agents.prorag.step_score` makes it of the logit of a
    process reward model). Even where all outcomes are equal, steps teach. PPO's clip over the mean of tokens, no KL; what was
    retrieved is read, not learned. Source: arXiv:2601.21912 and the authors' code (lilinwz/ProRAG): beta 0.3 and 8 responses.
    How they come by their process reward model (search trees judged by a large model) and the fine-tuning before are not part
    of it here.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        shape=(FlooredOutcome(scale=f1_scale, floor=f1_floor),),
        advantage=OutcomeAndSteps(beta=beta, scored=scored, counts=counts),
        aggregate=TokenMean(),
    )
