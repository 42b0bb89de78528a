"""Step-SRPO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Fraction, Label, Span, Unit, Wrapper, part
from policyopt.parts import HasSpan, Normalise, Regex
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.schema import member

MODE = "thinks"
"""The component that says whether a response chose to think."""


@part
class JudgedMode(Wrapper, Advantage):
    r"""Two advantages: of the choice of a mode on the tokens that make it, of the answer on all others.

    .. math:: r^J_i = 1[m_i = m^*_q],\qquad r^A_i = R_i\,\big(1 - \kappa(1 - r^J_i)\big),\qquad
              A_{i,t} = \begin{cases}\mathrm{norm}_q(r^J)_i & t \in J_i\\ \mathrm{norm}_q(r^A)_i & \text{else}\end{cases}

    m is 1 where the response thinks. The preferred mode :math:`m^*` of a prompt is a label of the data, or what its responses vote for: thinking where the mean reward of those that
    think is above that of those that do not, else not thinking; where all chose one mode, that one. R is at least 0. Source: KAT-V1, arXiv:2507.08297, from its
    abstract; the formulas are our reading.
    """

    inner: Advantage = Normalise()
    """norm."""
    span: Span = Regex(r"\A(?s:.*?)<think_o(?:n|ff)>")
    """J: the judgement, and the mark of the mode."""
    mode: Label = MODE
    """The component m."""
    preferred: Label | None = None
    """The component m*; None for the vote."""
    kappa: Fraction = 0.5
    """kappa."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What the inner one reads, the span, and the components."""
        said = {member("component", name) for name in (self.mode, self.preferred) if name is not None}
        return super().needs | said | {self.span.column}

    def matches(self, batch: Batch) -> Tensor:
        """r^J [N]."""
        mode = (batch.component(self.mode) > 0.5).to(batch.reward)
        if self.preferred is not None:
            best = batch.component(self.preferred) > 0.5
        else:
            thinks, skips = (group_mean(batch.reward, batch.group, m) for m in (mode, 1 - mode))
            alone = group_sum(1 - mode, batch.group) == 0
            best = (group_sum(mode, batch.group) > 0) & (alone | (thinks > skips))
        return (mode == best.to(mode)).to(mode)

    def answered(self, batch: Batch) -> Tensor:
        """r^A [N]."""
        return batch.reward * (1 - self.kappa * (1 - self.matches(batch)))

    def __call__(self, batch: Batch) -> Tensor:
        judged = self.inner(batch.replace(reward=self.matches(batch), token_reward=None))
        answered = self.inner(batch.replace(reward=self.answered(batch)))
        return torch.where(batch.span(self.span) > 0, judged, answered)


@method(
    parent=grpo,
    arxiv="2507.08297",
    confidence="abstract",
    claim=Claim(
        "The choice to think has a reward of its own: easy questions are answered at once more often, and as many answers are right.",
        "modes",
        (Effect("component/skips_easy", "higher", 0.1), Effect("accuracy", "higher", -0.02)),
        ours={
            "judgement": r"\A<think>(?s:.)",
            "thinking": r"\A<think>\s*(?!</think>)\S",
            "preferred": "needed",
            "kl-coef": 0.0,
        },
        theirs={"kl-coef": 0.0},
    ),
)
def step_srpo(
    judgement: str = r"\A(?s:.*?)<think_o(?:n|ff)>", thinking: str = "<think_on>", preferred: str | None = None, kappa: float = 0.5,
    low: float | None = 0.2, high: float | None = 0.2, kl_coef: float = 0.04, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Step-SRPO of KAT-V1 AutoThink: a response first judges whether to think, and that step has a reward and an advantage of its own.

    .. math:: r^J = 1[\text{the preferred mode}],\qquad r^A = R\,\big(1 - \kappa(1 - r^J)\big)

    Each is normalised in the group by itself; the first is the advantage of the tokens of the judgement, the second that of thought and answer (:class:`JudgedMode`). ``judgement`` is a
    regular expression for the beginning of a response up to the mark of its mode, ``thinking`` one that matches where it chose to think. The preferred mode is voted
    for by the responses of the group, or stands in the data: ``preferred`` is the part in which a judge gives it (1 think, 0 do not). With kappa 0 an answer counts alike in either mode,
    with 1 it is worth nothing in the wrong one. Where all chose the same mode only the answers learn; without a judgement it is GRPO. The log has the share that thinks (``component/thinks``).

    Source: arXiv:2507.08297, whose abstract speaks of supervision "over both reasoning-mode selection and response accuracy". All formulas and kappa are our reading. Distillation and
    the cold start with voted labels come before and are not here.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(HasSpan(span=Regex(thinking, label="thinking"), name=MODE),),
        advantage=JudgedMode(span=Regex(judgement, label="judgement"), preferred=preferred, kappa=kappa),
    )
