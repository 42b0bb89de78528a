"""Critique-GRPO."""

from __future__ import annotations

import asyncio
import pkgutil
import runpy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import Field

from policyopt.claims import Claim, Effect
from policyopt.data.words import AGAIN, refinement, verdict_in_words
from policyopt.errors import UserError
from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, Part, part
from policyopt.parts import EntropyBonus, PolicyShaping, RatioTimesAdvantage, SeqMeanTokenSumNorm, SumOverRows
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Group
from policyopt.sources.draw.request import reply
from policyopt.sources.program import Context, Question, Response


class Critique(Part):
    """What is said, in words, of a response to a prompt."""

    async def __call__(
        self, question: Question, context: Context, text: str, verdict: Verdict, key: tuple[int, ...]
    ) -> str:
        raise NotImplementedError


@part
class VerdictInWords(Critique):
    """Whether the response is right and, if wanted, what the answer is (the critiques ``simple`` and ``simple_gt`` of
    Critique-GRPO, arXiv:2506.03106)."""

    show_answer: bool = True
    """Whether the reference answer is named."""

    async def __call__(
        self, question: Question, context: Context, text: str, verdict: Verdict, key: tuple[int, ...]
    ) -> str:
        return verdict_in_words(verdict.correct, question.answer if self.show_answer else None)


@part
class FunctionCritique(Critique):
    """What a Python function says: ``function(question, response, answer, verdict)``, a text.

    It is called between draws, one response after the other. Raises :class:`~policyopt.errors.UserError` for a function
    that cannot be found, and for one that returns something else than a text.
    """

    function: str
    """``package.module:name`` or ``path/to/file.py:name``."""

    def __post_init__(self) -> None:
        find_function(self.function)

    async def __call__(
        self, question: Question, context: Context, text: str, verdict: Verdict, key: tuple[int, ...]
    ) -> str:
        said = find_function(self.function)(question.text, text, question.answer, verdict)
        if not isinstance(said, str):
            raise UserError(f"critique {self.function!r} returned {type(said).__name__}, expected a text")
        return said


@part
class SelfCritique(Critique):
    """The policy criticises what it wrote itself; it says nothing where its context leaves no room for that."""

    request: str = "Is this right? Say what is wrong with it."
    """What it is asked, after the question and the response."""
    tokens: Count = 400
    """Longest critique in tokens."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Sampling temperature of the critique."""

    async def __call__(
        self, question: Question, context: Context, text: str, verdict: Verdict, key: tuple[int, ...]
    ) -> str:
        request = f"{question.text}\n\n{text}\n\n{self.request}"
        said = await reply(question, context, request, tokens=self.tokens, temperature=self.temperature, key=key)
        return said or ""


@cache
def find_function(name: str) -> Callable[..., Any]:
    """The function that an import path or a file names."""
    home, _, attribute = name.rpartition(":")
    try:
        function = runpy.run_path(home)[attribute] if home.endswith(".py") else pkgutil.resolve_name(name)
    except (ImportError, AttributeError, KeyError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"critique {name!r} cannot be found ({type(error).__name__}: {error})") from error
    if not callable(function):
        raise UserError(f"critique {name!r} is no function: name one as package.module:name or path/to/file.py:name")
    return function


def pick(verdicts: Sequence[Verdict]) -> int:
    """The first that is right, otherwise the first of the highest score."""
    right = [i for i, verdict in enumerate(verdicts) if verdict.correct]
    return right[0] if right else max(range(len(verdicts)), key=lambda i: verdicts[i].score)


@part
class Refined(Group):
    """A group whose first response makes way for the best that the policy wrote after a critique.

    Each response is criticised, and answered anew in the context of question, response and critique. The first right
    refinement, otherwise the first of the highest score, joins the group with ``origin`` 1, as an answer to the plain
    question; its log-probabilities are those of the policy that is asked it, which did not write it. A response whose
    critique leaves no room for an answer has no refinement, nor has one without a reward; a group that has none stays as it is. The log counts them.
    Source: Critique-GRPO, arXiv:2506.03106, and the authors' code (zhangxy-2019/critique-GRPO). Our reading: the words
    around the critique are ours, and right is what the judge calls so (there: a score of 1).
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    critique: Critique = VerdictInWords()
    """Who criticises."""
    request: str = AGAIN
    """What the policy is asked after the critique."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        verdicts = await context.judge(group)
        answers = await asyncio.gather(
            *(
                self.refine(question, context, response, verdict, i)
                for i, (response, verdict) in enumerate(zip(group, verdicts, strict=True))
                if verdict.rewarded
            )
        )
        drawn = [response for responses in answers for response in responses]
        found = await context.judge(drawn)
        refined = [response for response, verdict in zip(drawn, found, strict=True) if verdict.rewarded]
        judged = [verdict for verdict in found if verdict.rewarded]
        right = sum(verdict.correct for verdict in judged)
        context.count(refinements_asked=len(answers), refinements_drawn=len(drawn), refinements_right=right)
        return [await self.plainly(question, context, refined[pick(judged)]), *group[1:]] if refined else group

    async def refine(
        self, question: Question, context: Context, response: Response, verdict: Verdict, i: int
    ) -> list[Response]:
        """An answer after the critique of the response with number i; none where it has no room."""
        text = context.decode(response.tokens)
        said = await self.critique(question, context, text, verdict, (*question.key, -2, i))
        asked = context.asked(refinement(question.text, text, said, self.request))
        if asked is None:
            return []
        return await context.sampler.generate(
            asked, max_tokens=question.budget, temperature=self.temperature, key=(*question.key, -1, i)
        )

    async def plainly(self, question: Question, context: Context, refined: Response) -> Response:
        """A refinement as an answer to the plain question."""
        row = await context.sampler.logprobs(question.tokens, tuple(refined.tokens), temperature=self.temperature)
        row.stop_reason, row.verdict, row.origin = refined.stop_reason, refined.verdict, 1
        return row


@method(
    parent=grpo,
    arxiv="2506.03106",
    code="zhangxy-2019/critique-GRPO",
    confidence="code",
    claim=Claim(
        "Answers written after a critique teach what rewards alone do not: more are right after as many steps.",
        "requests:chain_sum",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
    ),
)
def critique_grpo(
    critique: str = "simple_gt",
    shape_gamma: float = 0.1,
    loss_norm: float | None = None,
    entropy_coef: float = 0.001,
    group_size: int = 8,
) -> Recipe:
    r"""Critique-GRPO: one answer of each group was written after a critique of another one, and is learned as an answer
    to the plain question.

    .. math:: L = -\frac{1}{L_{max}}\sum_{i,t} A_i\,\omega_{i,t} - c_e\bar H,\qquad
              \omega_{i,t} = \frac{p_{i,t}}{p_{i,t} + \gamma}\ \text{ on the refinement},\quad
              \frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})} \text{ on the others}

    p is the probability of the token behind the plain question, under the policy that is trained. The critique is
    ``simple`` (right or wrong), ``simple_gt`` (and what the answer is), ``self`` (the policy's own words) or a function
    ``package.module:name`` or ``file.py:name``. The best refinement takes the place of the first response; all are
    normalised together, as in GRPO. No clip, no KL; H is the mean entropy of the tokens. L_max = ``loss_norm`` in
    tokens; None takes the run's budget, as in the code. Source: arXiv:2506.03106 and the authors' code, whose switch
    that would leave out the standard deviation has no effect. Our reading: the sum is not divided by the number of
    rows, as in the code before gradients are accumulated over its micro-batches.
    """
    critiques = {"simple": VerdictInWords(show_answer=False), "simple_gt": VerdictInWords(), "self": SelfCritique()}
    if critique not in critiques and ":" not in critique:
        names = ", ".join(critiques)
        raise ValueError(
            f"critique is {critique!r}: one of {names}, or a function as package.module:name or file.py:name"
        )
    chosen = critiques[critique] if critique in critiques else FunctionCritique(function=critique)
    return grpo(kl_coef=0.0).replace(
        source=Refined(size=group_size, critique=chosen),
        surrogate=PolicyShaping(gamma=shape_gamma, inner=RatioTimesAdvantage()),
        aggregate=SumOverRows(inner=SeqMeanTokenSumNorm(norm=loss_norm)),
        regularizers=(EntropyBonus(coef=entropy_coef, mean=True),) if entropy_coef else (),
    )
