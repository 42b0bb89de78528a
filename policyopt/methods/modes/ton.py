"""TON."""

from __future__ import annotations

import random
import re

from policyopt.claims import Claim
from policyopt.methods.group.grpo import grpo
from policyopt.part import Fraction, part
from policyopt.parts import HasSpan, Regex, WeightedSum
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.given import Demonstrations
from policyopt.sources.program import Context, Question, Response

FORM = r"\A\s*<think>(?>(?s:.*?)</think>)\s*<answer>(?>(?s:.*?)</answer>)\s*\Z"
"""A block of thought, which may be empty, and a block with the answer; nothing else."""
EMPTY = r"<think>\s*</think>"
"""A thought that is left out."""

_THOUGHT = re.compile(r"(?<=<think>).*?(?=</think>)", re.DOTALL)


def dropped(text: str, uniform: float, p: float, empty: str = "\n\n") -> str:
    """A worked text with an empty thought in the place of its first one where ``uniform`` in [0, 1) is below ``p``; question and answer are never
    touched."""
    return _THOUGHT.sub(lambda _: empty, text, count=1) if uniform < p else text


@part
class ThoughtDropout(Demonstrations):
    """Completions of the task, some of which have lost their thought: what stands between ``<think>`` and ``</think>`` is exchanged for blank lines.

    A source for ``sft``: it teaches that an empty thought is a legal form, before :func:`ton` finds out where it pays. Which ones lose it follows from the seed, the step and
    the prompt. Source: TON, arXiv:2505.16854, and the authors' code (kokolerk/TON).
    """

    p: Fraction = 0.5
    """Probability that a completion loses its thought."""
    empty: str = "\n\n"
    """What is left of it."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        chance = random.Random(repr(("dropout", question.key)))
        *tokens, end = question.given["completion"]
        text = context.decode(tokens)
        thin = dropped(text, chance.random(), self.p, self.empty)
        kept = tokens if thin == text else context.encode(thin)
        return [self.row(question, context, "completion", 1.0, (*kept, end))]


@method(
    parent=grpo,
    arxiv="2505.16854",
    code="kokolerk/TON",
    confidence="code",
    claim=Claim(
        "A model that was taught that a thought may be empty finds out by itself where to leave it out.",
        beyond="The gain is that of thought dropout before the training with rewards, which the testbed's warm start has for either side; the training itself is GRPO's.",
    ),
)
def ton(
    form: str = FORM, accuracy_weight: float = 1.0, form_weight: float = 1.0, low: float | None = 0.2, high: float | None = 0.2,
    kl_coef: float = 0.04, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Think or not: GRPO on accuracy and on a form in which the thought may be empty, after fine-tuning with thoughts left out.

    .. math:: R = w_a\,1[\text{right}] + w_f\,1[\text{a thought, which may be empty, and an answer}]

    The thought has to be written, if only as ``<think></think>``; a text without the block is out of form. Nothing rewards a short answer: of two right responses one with an empty thought is worth as much as
    one with a long one. What the policy makes of the tie is its own. ``form`` is a regular expression that a response in form matches. The log has its share (``component/form``)
    and the share of empty thoughts (``component/skipped``).

    The first stage is ``sft`` with the source :class:`~policyopt.methods.modes.ton.ThoughtDropout`; without it GRPO never sees a response that skips. Source: arXiv:2505.16854
    and the authors' code (p 0.5, groups of 8). There the model reads images, and clicks on a screen have a reward for their distance, which a judge may
    give here. Our reading: the first ``</think>`` ends the thought. Defaults of clip and KL as in GRPO.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(
            HasSpan(span=Regex(form, label="form"), name="form", label="form"),
            HasSpan(span=Regex(EMPTY, label="skipped"), name="skipped", label="skipped"),
            WeightedSum((("correct", accuracy_weight), ("form", form_weight))),
        )
    )
