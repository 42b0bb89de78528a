"""A curriculum within a step: questions that the policy fails at are asked again in other words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from policyopt.parts.base import Fraction, part
from policyopt.rollout.base import Prompt, Response, Sampler
from policyopt.rollout.group import Group
from policyopt.rollout.rewrite import Kind, PolicyRewriter, Rewriter

Label = Literal["hard", "medium", "easy"]
KINDS: Mapping[Label, Kind] = {"hard": "simplify", "medium": "diversify"}
"""How the questions of each difficulty are written anew; easy ones are not."""


@part
class Restructured(Group):
    """A group, and for a hard or middling question as many answers to another wording of it.

    The share of right answers says how hard the question is. Answers to the new wording have ``source`` 1; they are
    read and trained on behind it, and judged as answers to the question as the task has it. Where nothing of use was
    written, or it leaves no room for a response, the group stands alone. The log counts rewrites that were asked for,
    that were used, and that were answered both right and wrong. Source: CLPO, arXiv:2509.25004, and the authors' code
    (csuking/CLPO).
    """

    hard: Fraction = 0.3
    """Largest share of right answers of a hard question."""
    medium: Fraction = 0.7
    """Largest share of a middling one."""
    rewrite: Literal["both", "hard", "medium", "none"] = "both"
    """Which questions are written anew."""
    rewriter: Rewriter = PolicyRewriter()
    """Who writes them."""

    def __post_init__(self) -> None:
        if self.medium < self.hard:
            raise ValueError(f"medium is {self.medium}, below hard, which is {self.hard}: it is the larger share")

    def difficulty(self, accuracy: float) -> Label:
        """How hard a question is."""
        if accuracy <= self.hard:
            return "hard"
        return "medium" if accuracy <= self.medium else "easy"

    def kind(self, label: Label) -> Kind | None:
        """How such a question is written anew; ``None`` where it is not."""
        return KINDS.get(label) if self.rewrite in ("both", label) else None

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        group = await super().draw(prompt, sampler)
        right = [verdict.correct for verdict in await prompt.score(group)]
        label = self.difficulty(sum(right) / len(right))
        kind = self.kind(label)
        text = None if kind is None else await self.rewriter(prompt, sampler, kind)
        context = None if text is None else prompt.asked(text)
        asked, used = kind is not None, context is not None
        prompt.count(**{f"{name}_prompts": name == label for name in ("hard", "medium", "easy")})
        prompt.count(rewrites_asked=asked, rewrites_used=used, rewrites_mixed=0)
        if context is None:
            return group
        other = await sampler.generate(
            context, n=self.size, max_tokens=prompt.budget, temperature=self.temperature, key=(*prompt.key, -2)
        )
        for response in other:
            response.source, response.context = 1, context
        prompt.count(rewrites_mixed=len({verdict.correct for verdict in await prompt.score(other)}) == 2)
        return [*group, *other]
