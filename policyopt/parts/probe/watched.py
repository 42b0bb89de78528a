"""What falls on a span of the responses."""

from __future__ import annotations

from policyopt.errors import UserError
from policyopt.part import Probe, Span, part
from policyopt.parts.span.kinds import LastAnswer, Regex


@part
class Watched(Probe):
    r"""A span whose part in training the log tells at every step.

    .. math:: \mathrm{tokens} = \frac{\sum_{i,t} S_{i,t}}{\sum_{i,t} 1},\qquad \mathrm{weight} = \frac{\sum_{i,t} S_{i,t}\,|w_{i,t}|}{\sum_{i,t} |w_{i,t}|}

    S is 1 on the tokens of the span and 0 elsewhere, w the token weight :math:`-\partial L/\partial\log\pi`. ``span[NAME]/tokens`` and
    ``span[NAME]/weight`` are shares between 0 and 1: where the second is the larger one, the method trains these tokens more than others. The log
    has both for every span that a recipe reads; this part reads one and does nothing else.
    """

    span: Span = LastAnswer()
    """S."""

    @property
    def needs(self) -> frozenset[str]:
        """The span."""
        return frozenset({self.span.column})


def watching(words: str) -> Watched:
    """The probe for ``NAME=PATTERN``, a name and a regular expression.

    Raises:
        UserError: There is no ``=`` in it, or nothing on one side.
    """
    name, _, pattern = words.partition("=")
    if not name or not pattern:
        raise UserError(f"--watch {words}: expected NAME=PATTERN, such as 'numbers=[0-9]+'")
    return Watched(Regex(pattern, label=name))
