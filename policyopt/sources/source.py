"""What every source of rows has in common."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from policyopt.part import Count, Part, part

if TYPE_CHECKING:
    from policyopt.sources.program import Answered, Prompt, Response, Sampler, Step


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
    """Which texts of an :class:`~policyopt.items.Example` it reads beside the prompt: "completion", "chosen",
    "rejected"."""
    solutions: ClassVar[bool] = False
    """It reads worked solutions. A prompt without one is answered by the policy alone, and counted."""
    roles: ClassVar[frozenset[str]] = frozenset()
    """Models beside the policy that it draws from, which it finds in ``Prompt.samplers``: "teacher", or a name that
    ``--role`` gives."""

    size: Count = 8
    """Responses to one prompt that are trained on."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature; the policy's log-probabilities are taken at it too."""
    rounds: Count = 1
    """How many times prompts are taken at most to fill a batch that filters have thinned out."""

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        """The responses to one prompt. Whoever has no "sampler" among its ``services`` must not use it."""
        raise NotImplementedError

    def beside(
        self, drawn: Sequence[Answered], step: Step, sampler: Sampler
    ) -> Coroutine[Any, Any, list[Answered]] | None:
        """Groups that answer none of the step's prompts, to train on beside those that were drawn for these; ``None``
        for a program that never has any.

        Asked once a step, when all that was ``drawn`` is judged. Their responses are like those that a program draws.
        """
        return None
