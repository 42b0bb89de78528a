"""TLDR."""

from __future__ import annotations

import random
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim
from policyopt.judging.answers import MARK
from policyopt.methods.group.grpo import grpo
from policyopt.part import NonNegative, Positive, part
from policyopt.parts import Correctness, LengthReward, LengthScale
from policyopt.parts.shape.length import token_limit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.schema import column
from policyopt.sources.draw import Announced, Group
from policyopt.sources.program import Context, Question, Response

LEVELS = ("short", "medium", "long")

column(
    "level",
    sentence="which of several levels of length the prompt of the row asked for: its number, from 0",
    filled_by="program",
    dtype="int",
    invent=lambda s: s.integers(len(LEVELS)),
    advice="take the source AtLevel()",
)


@part
class AtLevel(Announced):
    """A group that is told how long its answers shall be: short, medium or long, the same for all of the group, drawn anew whenever the prompt comes.

    The number of the level is the column ``level``. Source: TLDR, arXiv:2505.07961, by its abstract. Our reading: the words.
    """

    text: str = "{question}\nAnswer length: {level}."
    """What is asked: ``{level}`` is the name of the level."""
    level: int | None = None
    """Always this one, by its number; None draws one for each prompt."""

    provides: ClassVar[frozenset[str]] = frozenset({"level"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level is not None and not 0 <= self.level < len(LEVELS):
            raise ValueError(
                f"level is {self.level}: it is a number from 0 ({LEVELS[0]}) to {len(LEVELS) - 1} ({LEVELS[-1]})"
            )

    def number(self, question: Question) -> int:
        """The level of a prompt."""
        return random.Random(f"level {question.key}").randrange(len(LEVELS)) if self.level is None else self.level

    def announced(self, question: Question) -> dict[str, str]:
        return {"level": LEVELS[self.number(question)]}

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        for response in group:
            response.columns["level"] = float(self.number(question))
        return group


@part
class LevelScale(LengthScale):
    r"""From 0 to :math:`L/\alpha_k` tokens, k being the level of the row; without an end where :math:`\alpha_k` is 0."""

    alphas: tuple[NonNegative, NonNegative, NonNegative] = (0.8, 0.4, 0.0)
    """What length costs at the levels short, medium and long."""
    max_len: Positive | None = None
    """L; None: the budget of the run."""

    needs: ClassVar[frozenset[str]] = frozenset({"level"})

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        alpha = torch.tensor(self.alphas, dtype=batch.reward.dtype, device=batch.reward.device)[
            batch.level.long().clamp(0, len(self.alphas) - 1)
        ]
        return torch.zeros_like(alpha), token_limit(batch, self.max_len) / alpha


def scaled(logits: Tensor, token: int, heat: float) -> Tensor:
    r"""Logits [..., V] with that of one token over a temperature of its own, :math:`z'_e = z_e / T_e`; the odds among the others stay as they are.

    Below 1 a logit above 0 rises; one below 0 falls. Source: TLDR, arXiv:2505.07961, as we read its abstract.
    """
    out = logits.clone()
    out[..., token] = out[..., token] / heat
    return out


@part
class SoonerStopped(Group):
    """A group whose thoughts end sooner or later: the logit of the token that ends a thought is over a temperature of its own (:func:`scaled`).

    That is the first token of ``mark``, as long as the mark has not been written; behind it all is as it was.
    """

    mark: str = MARK
    """What ends a thought: where the policy thinks in a block, ``</think>``."""
    stop_temperature: Positive = 0.5
    """T_e; 1 changes nothing."""

    asks: ClassVar[frozenset[str]] = frozenset({"logit processors", "stop sequences", "resume"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        mark = context.encode(self.mark)
        group = await context.sampler.generate(
            question.tokens, n=self.size, max_tokens=question.budget, temperature=self.temperature, key=question.key, stop=[mark],
            processor=lambda logits, _: scaled(logits, mark[0], self.stop_temperature),
        )  # fmt: skip
        for i, response in enumerate(group):
            if response.stopped and (left := question.budget - len(response.tokens)) > 0:
                await context.sampler.generate(
                    question.tokens,
                    max_tokens=left,
                    temperature=self.temperature,
                    key=(*question.key, i),
                    resume=response,
                )
        return group


@method(
    parent=grpo,
    arxiv="2505.07961",
    confidence="abstract",
    claim=Claim(
        "A price on length by levels that the prompt names: answers become shorter, and as many are right.",
        beyond="The level stands in a sentence of the prompt, which takes a model that reads sentences: behind it the embedded one is hardly ever right.",
    ),
)
def tldr(
    alpha_short: float = 0.8, alpha_medium: float = 0.4, alpha_long: float = 0.0, max_len: float | None = None, stop_temperature: float | None = None,
    mark: str = MARK, low: float | None = 0.2, high: float | None = 0.2, kl_coef: float = 0.0, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""TLDR: the prompt says how long the answer shall be, and at each level of it length has a price of its own.

    .. math:: R_i = c_i\,\Big(1 - \alpha_k\frac{|y_i|}{L}\Big),\qquad z'_e = z_e / T_e \text{ while the policy thinks}

    k is the level that the prompt of the group names (:class:`AtLevel`): short, medium or long; L = ``max_len``. A level of price 0 is GRPO, and a wrong answer has 0 at any length. Held-out questions are asked
    for short answers too (``accuracy/decode``), or, with ``stop_temperature`` (T_e), as they are, with the temperature of the paper's other half on the token that ends a thought (:class:`SoonerStopped`): below 1 thoughts end
    sooner, and no training is needed for it. Source: arXiv:2505.07961, by its abstract alone: both formulas and all numbers are our reading, the simplest that it allows.
    """
    scale = LevelScale(alphas=(alpha_short, alpha_medium, alpha_long), max_len=max_len)
    sooner = SoonerStopped(size=1, mark=mark, stop_temperature=stop_temperature or 1.0)
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        source=AtLevel(size=group_size),
        shape=(Correctness(wrong=0.0), LengthReward(reference=scale, right=(0.0, -1.0), past="on")),
        decode=AtLevel(size=1, level=0) if stop_temperature is None else sooner,
    )
