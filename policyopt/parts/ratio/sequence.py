"""What the policy thinks of whole responses: scores, and ratios to another policy."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.part import Level, Part, Ratio, Unit, part
from policyopt.rows import Batch, held, masked, masked_mean


def sequence_log_ratio(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """Log-ratio of each whole response, [N], in nats."""
    return masked(logp - ref_logp, mask).sum(-1)


@part
class RowScore(Part):
    r"""What the policy thinks of a response, one number [N] from the log-probabilities of its tokens.

    .. math:: s_i = \sum_t x_{i,t}\quad\text{or}\quad \frac{1}{|y_i|}\sum_t x_{i,t},\qquad
              x = \log\pi_\theta,\quad \log\frac{\pi_\theta}{\pi_{old}},\quad \log\frac{\pi_\theta}{\pi_{ref}},\quad
              \text{or the exponential of these}

    :class:`SequenceRatio` repeats the mean against the old policy on the tokens of a row.
    """

    against: Literal["nothing", "old", "reference"] = "nothing"
    """What the log-probabilities are measured against."""
    reduce: Literal["sum", "mean"] = "sum"
    """How the numbers of the tokens become one."""
    ratio: bool = False
    """Take the exponential of each token first."""

    @property
    def needs(self) -> frozenset[str]:
        """The reference where it is the measure."""
        return frozenset({"ref_logp"} if self.against == "reference" else ())

    def __call__(self, batch: Batch) -> Tensor:
        base = {"nothing": 0.0, "old": batch.old_logp, "reference": batch.ref_logp}[self.against]
        x = masked(batch.logp - base, batch.mask)
        x = masked(held(x).exp(), batch.mask) if self.ratio else x
        return x.sum(-1) if self.reduce == "sum" else masked_mean(x, batch.mask, dim=-1)


@part
class SequenceRatio(Ratio):
    r"""One importance ratio per response: the geometric mean of its token ratios, or their product.

    .. math:: \log s_i = \frac{1}{|y_i|} \sum_t \log\frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})}\quad\text{or}\quad
              \sum_t \log\frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})}

    Repeated over the tokens of row i, [N, T]: the :class:`RowScore` against the old policy. Sources: GSPO,
    arXiv:2507.18071, eq. 7 (mean); TRL's RLOO (sum: the ratio of the trajectory).
    """

    reduce: Literal["mean", "sum"] = "mean"
    """The geometric mean of the token ratios, or their product, which is the exact ratio of the response."""

    unit: ClassVar[Unit] = "row"
    level: ClassVar[Level] = "sequence"

    def __call__(self, batch: Batch) -> Tensor:
        return RowScore(against="old", reduce=self.reduce)(batch)[:, None].expand_as(batch.mask)


@part
class SequenceRatioPerToken(Ratio):
    r"""The value of the sequence ratio with the gradient of each token's own log-probability.

    .. math:: \log s_{i,t} = sg[\log s_i] + \log\pi_\theta(y_{i,t}) - sg[\log\pi_\theta(y_{i,t})]

    Lets the tokens of a response have advantages of their own. Source: GSPO-token, arXiv:2507.18071, eq. 14.
    """

    unit: ClassVar[Unit] = "row"
    level: ClassVar[Level] = "sequence"

    def __call__(self, batch: Batch) -> Tensor:
        return SequenceRatio()(batch).detach() + batch.logp - batch.logp.detach()
