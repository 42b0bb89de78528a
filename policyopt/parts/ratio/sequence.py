"""Ratios of whole responses to the policy that sampled."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.part import Level, Ratio, Unit, part
from policyopt.parts.ratio.token import TokenRatio, Whose
from policyopt.rows import Batch, masked, masked_mean


def sequence_log_ratio(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """Log-ratio of each whole response, [N], in nats."""
    return masked(logp - ref_logp, mask).sum(-1)


@part
class SequenceRatio(Ratio):
    r"""One importance ratio per response: the geometric mean of its token ratios, or their product.

    .. math:: \log s_i = \frac{1}{|y_i|} \sum_t \log\frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})}\quad\text{or}\quad
              \sum_t \log\frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})}

    Repeated over the tokens of row i, [N, T]: as it stands the :class:`~policyopt.parts.RowScore` against the old policy. Sources: GSPO,
    arXiv:2507.18071, eq. 7 (mean); TRL's RLOO (sum: the ratio of the trajectory).
    """

    reduce: Literal["mean", "sum"] = "mean"
    """The geometric mean of the token ratios, or their product, which is the exact ratio of the response."""
    of: Whose = "policy"
    """Whose probability stands above, as in :class:`TokenRatio`."""
    to: Whose = "old"
    """Whose stands below."""

    unit: ClassVar[Unit] = "row"
    level: ClassVar[Level] = "sequence"

    @property
    def needs(self) -> frozenset[str]:
        """The log-probabilities that take a pass of their own."""
        return TokenRatio(of=self.of, to=self.to).needs

    def __call__(self, batch: Batch) -> Tensor:
        token = masked(TokenRatio(of=self.of, to=self.to)(batch), batch.mask)
        whole = token.sum(-1) if self.reduce == "sum" else masked_mean(token, batch.mask, dim=-1)
        return whole[:, None].expand_as(batch.mask)


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
