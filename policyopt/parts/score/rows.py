"""What the policy thinks of whole responses: scores."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from policyopt.part import Part, RoleName, part
from policyopt.rows import Batch, held, masked, masked_mean
from policyopt.schema import member

# Scores --------------------------------------------------------------------------------------------------------------


class Score(Part):
    """A number that stands for a response in a contrast, with its gradient: takes the batch, returns [N]."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class TokenScale(Part):
    """How much each token of a response counts in its score: takes the batch, returns [N, T], without gradient."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


@part
class RowScore(Score):
    r"""What the policy thinks of a response, one number [N] from the log-probabilities of its tokens.

    .. math:: s_i = \sum_t c_{i,t}x_{i,t}\quad\text{or}\quad \frac{1}{|y_i|}\sum_t c_{i,t}x_{i,t},\qquad
              x = \log\pi_\theta,\quad \log\frac{\pi_\theta}{\pi_{old}},\quad \log\frac{\pi_\theta}{\pi_{ref}},\quad
              \text{or the exponential of these}

    c is 1 without a ``scale``. :class:`SequenceRatio` repeats the mean against the old policy on the tokens of a row.
    """

    against: Literal["nothing", "old"] | RoleName = "nothing"
    """What the log-probabilities are measured against: nothing, the policy that sampled ("old"), or the frozen model in a
    role: "reference", "teacher", or one named by ``--role NAME=PATH``."""
    reduce: Literal["sum", "mean"] = "sum"
    """How the numbers of the tokens become one."""
    ratio: bool = False
    """Take the exponential of each token first."""
    scale: TokenScale | None = None
    """c."""

    @property
    def needs(self) -> frozenset[str]:
        """The model that is the measure, and what the scale reads."""
        frozen = () if self.against in ("nothing", "old") else (member("logp_of", self.against),)
        return frozenset(frozen) | (self.scale.needs if self.scale else frozenset())

    def base(self, batch: Batch) -> Tensor | float:
        """What is taken off the log-probabilities, [N, T]."""
        if self.against == "nothing":
            return 0.0
        return batch.old_logp if self.against == "old" else batch.logp_of(self.against)

    def __call__(self, batch: Batch) -> Tensor:
        x = masked(batch.logp - self.base(batch), batch.mask)
        x = masked(held(x).exp(), batch.mask) if self.ratio else x
        x = x if self.scale is None else self.scale(batch).detach() * x
        return x.sum(-1) if self.reduce == "sum" else masked_mean(x, batch.mask, dim=-1)
