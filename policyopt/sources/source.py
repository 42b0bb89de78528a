"""What every source of rows has in common."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from policyopt.part import Count, Part, part

if TYPE_CHECKING:
    from policyopt.items import Example
    from policyopt.sources.program import Answered, Context, Question, Response, Step


@part
class Source(Part):
    """Where the rows of a step come from: given the prompts of the step, it returns the responses to each.

    A source that draws is a :class:`~policyopt.sources.program.Rollout`; one that takes texts of the task is a
    :class:`~policyopt.sources.given.Given`.
    """

    services: ClassVar[frozenset[str]] = frozenset()
    """What it asks of a run: "sampler" (the policy writes) and "judge" (somebody says what responses are worth). What no
    source asks for is never started."""
    reads: ClassVar[frozenset[str]] = frozenset()
    """What of an :class:`~policyopt.items.Example` it reads beside the prompt, of :data:`~policyopt.items.BROUGHT`:
    "completion", "chosen", "rejected", "labelled", "responses"."""
    least: ClassVar[int] = 1
    """The fewest prompts that a step may have."""

    @property
    def uses(self) -> frozenset[str]:
        """The services that it calls while it draws, of :data:`~policyopt.sources.program.SERVICES`; a class attribute
        where that is always the same.

        A question without a worked solution is answered by the policy alone, and counted.
        """
        return frozenset()

    @property
    def roles(self) -> frozenset[str]:
        """The models beside the policy that it draws from."""
        return frozenset(name[len("sampler_of[") : -1] for name in self.uses if name.startswith("sampler_of["))

    size: Count = 8
    """Responses to one prompt that are trained on."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature; the policy's log-probabilities are taken at it too."""
    rounds: Count = 1
    """How many times prompts are taken at most to fill a batch that filters have thinned out."""

    def lacks(self, example: Example) -> str:
        """What it would miss in an example that brings all that it ``reads``, in words; ``""`` for nothing."""
        return ""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        """The responses to a question. Whoever has no "sampler" among its ``services`` has none in the context."""
        raise NotImplementedError

    def beside(self, drawn: Sequence[Answered], step: Step) -> Coroutine[Any, Any, list[Answered]] | None:
        """Groups that answer none of the step's questions, to train on beside those that were drawn for these; ``None``
        for a source that never has any.

        Asked once a step, when all that was ``drawn`` is judged. What has no reward is not among it. Their responses are like those that a program draws.
        """
        return None
