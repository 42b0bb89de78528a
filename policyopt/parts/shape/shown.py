"""Whether a piece of text is in a response, as a component."""

from __future__ import annotations

from policyopt.part import Label, Shape, Span, part
from policyopt.parts.span.kinds import LastAnswer
from policyopt.rows import Batch
from policyopt.schema import member


@part
class HasSpan(Shape):
    r"""The component NAME: 1 where a span is in the response, 0 elsewhere. The reward stays as it is.

    Parts after it read it like a judge's component, and the log has its mean (``component/NAME``): which way a response answers, such as
    with a thought or without, or whether it has a form. Sources: AdaCoT, arXiv:2505.11896 (its trigger rate); TON, arXiv:2505.16854 (its format
    and skip ratio); KAT-V1, arXiv:2507.08297 (its mode).
    """

    span: Span = LastAnswer()
    """What is looked for."""
    name: Label = "shown"
    """NAME."""

    @property
    def needs(self) -> frozenset[str]:
        """The span."""
        return frozenset({self.span.column})

    @property
    def provides(self) -> frozenset[str]:
        """The component."""
        return frozenset({member("component", self.name)})

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(**{member("component", self.name): batch.shows(self.span).to(batch.reward)})
