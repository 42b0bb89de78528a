"""Listener-Rewarded Thinking."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.judging.answers import MARK, before_answer, locate
from policyopt.judging.letters import LETTERS, choice_of, has_options, reference_letter
from policyopt.methods.group.grpo import grpo
from policyopt.part import RoleName, part
from policyopt.parts import WeightedSum
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response, Sampler


@part
class Listened(Group):
    r"""A group; another model reads each response up to its conclusion and says how likely the right answer is to it.

    .. math:: p_i = \frac{\pi_l(k^* \mid x, z_i)}{\sum_k \pi_l(k \mid x, z_i)}

    :math:`z_i` is the reasoning: all before the first mark of an answer, so that whatever is concluded, once or several times, is not seen. The options
    k are the letters that the question lists (``A)``, ``A:``), each behind ``opener``; probabilities of options of several tokens are products. Where a question lists none, p
    is how likely the whole reference answer is, the geometric mean over its tokens. Where there is no answer, and where the text is longer than a model reads, p is 0. The log
    counts in how many responses the listener would have chosen otherwise (``rollout/contradicted``).
    """

    provides: ClassVar[frozenset[str]] = frozenset({"listened"})
    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    listener: RoleName = "reference"
    """Who listens: a role whose model does not learn."""
    opener: str = f"{MARK} "
    """What stands between the reasoning and an option, as the policy would write it."""

    @property
    def uses(self) -> frozenset[str]:
        """The listener."""
        return frozenset({f"sampler_of[{self.listener}]"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        rows = await context.answers(question, n=self.size, temperature=self.temperature, key=question.key)
        texts = [context.decode(row.tokens) for row in rows]
        letters = options_of(question.text)
        gold = reference_letter(question.answer)
        letters = letters if gold in letters else ""
        options = [context.encode(option) for option in letters or ([question.answer] if question.answer else [])]
        heard = [(*question.tokens, *context.encode(self.ending(text))) for text in texts]
        longest = context.room + question.budget - max(map(len, options), default=0)
        asked = [tokens for tokens in dict.fromkeys(heard) if options and len(tokens) <= longest]
        said = await asyncio.gather(
            *(likely(context.sampler_of(self.listener), tokens, options, bool(letters)) for tokens in asked)
        )
        known = dict(zip(asked, said, strict=True))
        for row, text, tokens in zip(rows, texts, heard, strict=True):
            logits = known.get(tokens)
            if logits is None:
                row.columns["listened"] = 0.0
            elif letters:
                row.columns["listened"] = float(option_probability(torch.tensor(logits), letters.index(gold)))
                chosen = letters[max(range(len(letters)), key=logits.__getitem__)]
                context.count(contradicted=float(choice_of(text, locate(text), letters) != chosen))
            else:
                row.columns["listened"] = math.exp(logits[0])
        return rows

    def ending(self, text: str) -> str:
        """What of a response is heard, and what stands before the options."""
        reasoning = before_answer(text)
        return reasoning + ("\n" if reasoning and not reasoning.endswith("\n") else "") + self.opener


async def likely(
    listener: Sampler, tokens: tuple[int, ...], options: Sequence[tuple[int, ...]], whole: bool
) -> list[float]:
    """The log-probability of each option behind some tokens, of the ``whole`` option or the mean over its tokens."""
    rows = await asyncio.gather(*(listener.logprobs(tokens, option, temperature=1.0) for option in options))
    return [math.fsum(row.logp) / (1 if whole else max(1, len(row.logp))) for row in rows]


def option_probability(logits: Tensor, gold: int | Tensor) -> Tensor:
    """The probability of option ``gold`` [...] among options of these logits [..., K], or log-probabilities."""
    where = torch.as_tensor(gold, device=logits.device)[..., None]
    return logits.softmax(-1).gather(-1, where)[..., 0]


def options_of(question: str) -> str:
    """The letters that a question lists as options, from A on; none for fewer than two."""
    sizes = (n for n in range(len(LETTERS), 1, -1) if has_options(question, LETTERS[:n]))
    return LETTERS[: next(sizes, 0)]


@method(
    parent=grpo,
    arxiv="2506.22832",
    confidence="secondary",
    claim=Claim(
        "Reasoning has to convince an independent model that does not see the conclusion: it contradicts its answer less, and as many answers are right.",
        "biased-thought",
        (Effect("component/consistency", "higher", 0.02), Effect("accuracy", "higher", -0.02)),
        ours={"recipe.source.listener": "teacher"},
    ),
)
def listener(
    listener_weight: float = 0.5,
    accuracy_weight: float = 0.5,
    format_weight: float = 1.0,
    listener: str = "reference",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Listener-Rewarded Thinking: part of the reward is how well the reasoning convinces a model that does not see the conclusion.

    .. math:: R_i = w_f f_i + w_a\,1[\hat k_i = k^*] + w_l\,p_i(k^*)

    p is the probability of the right option to the listener once it has read the question and the reasoning
    (:class:`~policyopt.methods.judge.listener.Listened`). It tells equally right answers apart, and it does not change with the answer that a response ends with. The listener is a frozen model in a role:
    the policy as it was at the start, or any other one that reads the same tokens (``--listener NAME --role NAME=PATH``). With w_l = 0 it is GRPO on format and accuracy.

    Source: arXiv:2506.22832, weights by a third party's account. There both models see two images and choose the better one. Our reading: p is that of the right option, not of the one that was chosen; the listener reads
    nothing behind the first mark of an answer.
    """
    return grpo(low, high, kl_coef, group_size=group_size).replace(
        source=Listened(size=group_size, listener=listener),
        shape=(
            WeightedSum((("formatted", format_weight), ("correct", accuracy_weight), ("listened", listener_weight))),
        ),
    )
