"""Critiques in words, and answers that were given anew after one."""

from __future__ import annotations

import asyncio
import pkgutil
import runpy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import Field

from policyopt.errors import UserError
from policyopt.parts.base import Count, Part, part
from policyopt.rollout.base import Prompt, Response, Sampler
from policyopt.rollout.group import Group
from policyopt.rollout.request import reply
from policyopt.tasks.base import Verdict
from policyopt.tasks.words import AGAIN, refinement, verdict_in_words


class Critique(Part):
    """What is said, in words, of a response to a prompt."""

    async def __call__(
        self, prompt: Prompt, sampler: Sampler, text: str, verdict: Verdict, key: tuple[int, ...]
    ) -> str:
        raise NotImplementedError


@part
class VerdictInWords(Critique):
    """Whether the response is right and, if wanted, what the answer is (the critiques ``simple`` and ``simple_gt`` of
    Critique-GRPO, arXiv:2506.03106)."""

    show_answer: bool = True
    """Whether the reference answer is named."""

    async def __call__(
        self, prompt: Prompt, sampler: Sampler, text: str, verdict: Verdict, key: tuple[int, ...]
    ) -> str:
        return verdict_in_words(verdict.correct, prompt.answer if self.show_answer else None)


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
        self, prompt: Prompt, sampler: Sampler, text: str, verdict: Verdict, key: tuple[int, ...]
    ) -> str:
        said = find_function(self.function)(prompt.question, text, prompt.answer, verdict)
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
        self, prompt: Prompt, sampler: Sampler, text: str, verdict: Verdict, key: tuple[int, ...]
    ) -> str:
        request = f"{prompt.question}\n\n{text}\n\n{self.request}"
        said = await reply(prompt, sampler, request, tokens=self.tokens, temperature=self.temperature, key=key)
        return said or ""


@cache
def find_function(name: str) -> Callable[..., Any]:
    """The function that an import path or a file names."""
    home, _, function = name.rpartition(":")
    try:
        found = runpy.run_path(home)[function] if home.endswith(".py") else pkgutil.resolve_name(name)
    except (ImportError, AttributeError, KeyError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"critique {name!r} cannot be found ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise UserError(f"critique {name!r} is no function: name one as package.module:name or path/to/file.py:name")
    return found


def pick(verdicts: Sequence[Verdict]) -> int:
    """The first that is right, otherwise the first of the highest score."""
    right = [i for i, verdict in enumerate(verdicts) if verdict.correct]
    return right[0] if right else max(range(len(verdicts)), key=lambda i: verdicts[i].score)


@part
class Refined(Group):
    """A group whose first response makes way for the best that the policy wrote after a critique.

    Each response is criticised, and answered anew in the context of question, response and critique. The first right
    refinement, otherwise the first of the highest score, joins the group with ``source`` 1, as an answer to the plain
    question; its log-probabilities are those of the policy that is asked it, which did not write it. A response whose
    critique leaves no room for an answer has no refinement; a group that has none stays as it is. The log counts them.
    Source: Critique-GRPO, arXiv:2506.03106, and the authors' code (zhangxy-2019/critique-GRPO). Our reading: the words
    around the critique are ours, and right is what the judge calls so (there: a score of 1).
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    critique: Critique = VerdictInWords()
    """Who criticises."""
    request: str = AGAIN
    """What the policy is asked after the critique."""

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        group = await super().draw(prompt, sampler)
        verdicts = await prompt.score(group)
        found = await asyncio.gather(
            *(self.refine(prompt, sampler, r, v, i) for i, (r, v) in enumerate(zip(group, verdicts, strict=True)))
        )
        refined = [response for responses in found for response in responses]
        judged = await prompt.score(refined)
        right = sum(verdict.correct for verdict in judged)
        prompt.count(refinements_asked=len(group), refinements_drawn=len(refined), refinements_right=right)
        return [await self.plainly(prompt, sampler, refined[pick(judged)]), *group[1:]] if refined else group

    async def refine(
        self, prompt: Prompt, sampler: Sampler, response: Response, verdict: Verdict, i: int
    ) -> list[Response]:
        """An answer after the critique of the response with number i; none where it has no room."""
        assert prompt.decode is not None, "this prompt comes without a tokenizer"
        text = prompt.decode(response.tokens)
        said = await self.critique(prompt, sampler, text, verdict, (*prompt.key, -2, i))
        context = prompt.asked(refinement(prompt.question, text, said, self.request))
        if context is None:
            return []
        return await sampler.generate(
            context, max_tokens=prompt.budget, temperature=self.temperature, key=(*prompt.key, -1, i)
        )

    async def plainly(self, prompt: Prompt, sampler: Sampler, refined: Response) -> Response:
        """A refinement as an answer to the plain question."""
        found = await sampler.score(prompt.tokens, tuple(refined.tokens), temperature=self.temperature)
        found.finished, found.verdict, found.source = refined.finished, refined.verdict, 1
        return found
