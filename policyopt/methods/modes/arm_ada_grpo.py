"""ARM and Ada-GRPO."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Schedule
from policyopt.groups import group_max, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Fraction, Shape, Span, Unit, part
from policyopt.parts import Regex
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch

TAGS = ("<ANSWER>", "<COT>", "<CODE>", "<LONG_COT>")
"""What opens a direct answer, a short chain of thought, a program, and a long chain of thought."""


@part
class RareModes(Shape):
    r"""Rewards times how rare a response's way of answering is among the responses to its prompt.

    .. math:: R_i \leftarrow \alpha_i R_i,\qquad \alpha_i = 1 + d\,\Big(\frac{G}{F_i} - 1\Big)

    G is the size of the group, :math:`F_i` the number of its responses in the mode of response i, which is the one of ``spans`` that is in it. One in which
    none or several are is of unknown mode: it counts as a mode of its own, and is worth 0. Where no response to a prompt has a mode, as with a model that
    was never taught any, rewards stay as they are. A wrong response of reward 0 stays at 0, however rare. Source: Ada-GRPO, arXiv:2505.20258, and the authors' code
    (TEAM-ARM/ARM).
    """

    spans: Annotated[tuple[Span, ...], Field(min_length=1)] = (Regex("<[A-Z_]+>"),)
    """What is in a response of each mode."""
    extra: Fraction = 1.0
    """d; a controller lets it fall."""

    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """The spans."""
        return frozenset(span.column for span in self.spans)

    def mode(self, batch: Batch) -> Tensor:
        """[N] the number of the mode, from 1; 0 for an unknown one."""
        shown = torch.stack([batch.shows(span) for span in self.spans], dim=-1)
        number = torch.arange(1, len(self.spans) + 1, device=shown.device)
        return torch.where(shown.sum(-1) == 1, (shown * number).sum(-1), 0)

    def factor(self, batch: Batch) -> Tensor:
        """alpha [N]."""
        one = torch.ones_like(batch.reward)
        alike = group_sum(one, batch.group * (len(self.spans) + 1) + self.mode(batch))
        return 1 + self.extra * (group_sum(one, batch.group) / alike - 1)

    def __call__(self, batch: Batch) -> Batch:
        known = (self.mode(batch) > 0).to(batch.reward)
        counts = (known > 0) | (group_max(known, batch.group) == 0)
        return batch.replace(reward=torch.where(counts, self.factor(batch) * batch.reward, 0.0))


@method(
    parent=grpo,
    arxiv="2505.20258",
    code="TEAM-ARM/ARM",
    confidence="code",
    claim=Claim(
        "Rare ways of answering are paid more at first, so that none dies out: easy questions are answered at once more often, and as many answers are right.",
        "modes",
        (Effect("component/skips_easy", "higher", 0.1), Effect("accuracy", "higher", -0.02)),
        ours={"formats": (r"<think>\s*(?!</think>)\S", r"<think>\s*</think>"), "decay-steps": 120, "kl-coef": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def arm_ada_grpo(
    formats: tuple[str, ...] = TAGS, decay_steps: int = 100, low: float | None = 0.2, high: float | None = 0.2, kl_coef: float = 0.001,
    group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Adaptive Reasoning Model: GRPO that pays right responses more for a way of answering that is rare in their group, so that none dies out.

    .. math:: R_i = \alpha_i(t)\,r_i,\qquad \alpha_i(t) = 1 + \frac12\Big(\frac{G}{F_i} - 1\Big)\Big(1 + \cos\frac{\pi t}{T}\Big)

    :math:`F_i` of the G responses to a prompt have the format of response i (:class:`RareModes`). ``formats`` are regular expressions, of which exactly one matches in
    a response of a known format: here the tags with which the four formats open. T = ``decay_steps``, in steps of the run: the bonus has fallen to
    1 by then, and the rest is GRPO. A group of one format is GRPO at any time. The model has to know the formats beforehand.

    Source: arXiv:2505.20258 and the authors' code: G 8, KL 0.001, T the number of all steps. At test time they also force a tag, or draw the three cheap formats and think at length where these
    disagree; that is not here.
    """
    spans = tuple(Regex(pattern, label=f"format{i}") for i, pattern in enumerate(formats, 1))
    fall = Schedule("shape.RareModes.extra", start_value=1.0, end_value=0.0, steps=decay_steps, shape="cosine")
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(RareModes(spans=spans),), controllers=(fall,)
    )
