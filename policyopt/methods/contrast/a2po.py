"""A*-PO."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Count, Memory, NonNegative, Positive, Unit, part
from policyopt.parts import Contrast, RolloutBaseline, RowScore, SeqMeanTokenMean
from policyopt.parts.pairing.pairs import row_credit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response


def optimal_value(rewards: Sequence[float], beta: float) -> float:
    r"""What a prompt is worth to the best policy under a KL to the reference, from rewards of the reference's own responses:
    :math:`\beta\log\frac1k\sum_j e^{r_j/\beta}`, their mean at beta 0."""
    if beta == 0:
        return sum(rewards) / len(rewards)
    top = max(rewards)
    return top + beta * math.log(sum(math.exp((r - top) / beta) for r in rewards) / len(rewards))


@part
class GroupWithOptimalValue(Group):
    r"""A group, and the optimal value of its prompt (``baseline_reward``), from ``samples`` responses of the reference that are judged and
    not trained on.

    They are drawn when a prompt comes for the first time; after that the memory has the value (:class:`KeptBaseline`). A prompt to which no response of
    the reference has a reward gives no rows. Source: A*-PO, arXiv:2505.20686, and ZhaolinGao/A-PO, which draw them for all prompts
    before training.
    """

    samples: Count = 8
    """k."""
    beta: NonNegative = 0.5
    """beta_1 of :func:`optimal_value`."""

    provides: ClassVar[frozenset[str]] = frozenset({"baseline_reward"})
    uses: ClassVar[frozenset[str]] = frozenset({"judge", "sampler_of[reference]"})
    asks: ClassVar[frozenset[str]] = frozenset({"role sampling"})
    plays: ClassVar[bool] = False

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group, value = await asyncio.gather(super().draw(question, context), self.value(question, context))
        if value is None:
            context.count(unvalued=1)
            return []
        for response in group:
            response.columns["baseline_reward"] = value
        return group

    async def value(self, question: Question, context: Context) -> float | None:
        """V* of a prompt; ``None`` where nothing is known of it."""
        if question.history and not math.isnan(question.history[0]):
            return question.history[0]
        drawn = await context.sampler_of("reference").generate(
            question.tokens, n=self.samples, max_tokens=question.budget, temperature=self.temperature,
            key=(*question.key, -1), truncation=self.truncation,
        )  # fmt: skip
        rewards = [v.score for v in await context.judge(drawn) if v.rewarded]
        context.count(valued=1)
        return optimal_value(rewards, self.beta) if rewards else None


@part
class KeptBaseline(Memory):
    """The baseline that a prompt had when it was last there."""

    needs: ClassVar[frozenset[str]] = frozenset({"baseline_reward"})

    def __call__(self, batch: Batch) -> Tensor:
        return batch.baseline_reward[:, None]


@part
class LogRatioRegression(Contrast):
    r"""The squared distance of each response's advantage from beta times how much likelier than under another model it has become.

    .. math:: \ell_i = \Big(\beta\log\frac{\pi_\theta(y_i)}{\pi_{ref}(y_i)} - A_i\Big)^2

    At the optimum of the reward under a KL of weight beta both are the same for every response. Source: A*-PO, arXiv:2505.20686.
    """

    beta: Positive = 1e-3
    """beta."""
    score: RowScore = RowScore(against="reference")
    """The logarithm: a number for each response."""

    unit: ClassVar[Unit] = "row"

    def rows(self, batch: Batch) -> Tensor:
        return (self.beta * self.score(batch) - row_credit(batch)) ** 2


@method(
    parent=reinforce,
    arxiv="2505.20686",
    code="ZhaolinGao/A-PO",
    confidence="code",
    claim=Claim(
        "One response to a prompt suffices where its optimal value is known from the reference: as many right answers as GRPO, and a step takes less.",
        "number_sorting",
        (Effect("accuracy", "higher", -0.02), Effect("seconds/step", "lower", 0.02)),
        against="grpo",
    ),
)
def a2po(beta1: float = 0.5, beta2: float = 1e-3, samples: int = 8, group_size: int = 1) -> Recipe:
    r"""A*-PO: one response to a prompt, regressed to its advantage over what the best policy would get, which the reference tells once.

    .. math:: \hat V^*(x) = \beta_1\log\frac1k\sum_{j\le k} e^{r(x, \tilde y_j)/\beta_1},\ \tilde y_j\sim\pi_{ref},\qquad
              L = \mathrm{mean}_i\Big(\beta_2\log\frac{\pi_\theta(y_i)}{\pi_{ref}(y_i)} - (r_i - \hat V^*(x_i))\Big)^2

    k = ``samples``. The best policy under a KL of weight beta is :math:`\pi^* \propto \pi_{ref}\,e^{r/\beta}`, whose log-ratio is
    :math:`(r - V^*)/\beta`: no critic, no group, no clip. On fresh rows its gradient is that of REINFORCE with the baseline V* and a KL
    in the reward. The value is a large one: between the mean (``beta1`` 0, or large) and the best of k (small), so that it
    knows which prompts could be solved. Source: arXiv:2505.20686 and ZhaolinGao/A-PO (beta_1 0.5, beta_2 1e-3, k 8). Our reading: a prompt is valued when it
    first comes, in the place of a pass before training, and keeps its value in the checkpoint; on tasks that make a prompt only once, each
    costs k more responses. No entropy term.
    """
    return reinforce(baseline="none").replace(
        source=GroupWithOptimalValue(size=group_size, samples=samples, beta=beta1),
        advantage=RolloutBaseline(clip=None),
        ratio=None,
        surrogate=LogRatioRegression(beta=beta2),
        aggregate=SeqMeanTokenMean(),
        memory=KeptBaseline(),
    )
