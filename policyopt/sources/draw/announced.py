"""Groups whose prompt says more than the question."""

from __future__ import annotations

from policyopt.part import part
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Context, Question, Response

QUESTION = "{question}"
"""Where the question stands in a text around it."""


@part
class Announced(Group):
    """A group that answers the question with a text around it; where the longer prompt leaves no room the question stands alone.

    Rows are trained on behind the prompt that they answer. Sources: Curriculum GRPO, arXiv:2508.08940 (a budget); TLDR, arXiv:2505.07961 (a
    level of length).
    """

    text: str = QUESTION
    """What is asked: ``{question}`` is the question, other names are what the program announces."""

    def __post_init__(self) -> None:
        if QUESTION not in self.text:
            raise ValueError(f"text is {self.text!r}: it has to say where the question stands, {QUESTION}")

    def announced(self, question: Question) -> dict[str, str]:
        """What is announced to a question, by the names in the text."""
        return {}

    async def draw(self, question: Question, context: Context) -> list[Response]:
        text = self.text
        for name, said in (
            self.announced(question) | {"question": question.text}
        ).items():  # a question may hold braces
            text = text.replace(f"{{{name}}}", said)
        asked = context.asked(text)
        responses = await context.sampler.generate(
            question.tokens if asked is None else asked, n=self.size, max_tokens=question.budget, temperature=self.temperature,
            key=question.key,
        )  # fmt: skip
        for response in responses:
            response.context = asked or ()
        return responses
