"""Importance ratios: how far the policy has moved from the one that sampled, as a logarithm [N, T]."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch, masked, masked_mean
from policyopt.parts.base import Level, Positive, Ratio, Unit, part


@part
class TokenRatio(Ratio):
    r"""One importance ratio per token.

    .. math:: \log r_{i,t} = \log\pi_\theta(y_{i,t}) - \log\pi_{old}(y_{i,t})

    Source: PPO, arXiv:1707.06347, section 3.
    """

    def __call__(self, batch: Batch) -> Tensor:
        return batch.logp - batch.old_logp


@part
class SequenceRatio(Ratio):
    r"""One importance ratio per response: the geometric mean of its token ratios.

    .. math:: \log s_i = \frac{1}{|y_i|} \sum_t \log\frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})}

    Repeated over the tokens of row i, [N, T]. Source: GSPO, arXiv:2507.18071, eq. 7.
    """

    unit: ClassVar[Unit] = "row"
    level: ClassVar[Level] = "sequence"

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = batch.logp - batch.old_logp
        return masked_mean(log_ratio, batch.mask, dim=-1, keepdim=True).expand_as(log_ratio)


@part
class TrajectoryRatio(Ratio):
    r"""One importance ratio per response: the product of its token ratios, whatever its length.

    .. math:: \log W_i = \sum_t \log\frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})}
              + \sum_t \min\Big(\log\frac{\pi_{old}(y_{i,t})}{\mu_{old}(y_{i,t})}, \log C\Big)

    Repeated over the tokens of row i, [N, T]. The second sum, trainer over sampler at the weights that drew the batch,
    stands there with ``mismatch_cap`` = C alone. Source: VESPO, arXiv:2602.10693, and the authors' code
    (FloyedShen/VESPO), which holds the log-ratio of each token to 20.
    """

    mismatch_cap: Positive | None = None
    """C; None leaves the mismatch out."""

    unit: ClassVar[Unit] = "row"
    level: ClassVar[Level] = "sequence"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The sampler's log-probabilities where they are corrected for."""
        return frozenset() if self.mismatch_cap is None else frozenset({"rollout_logp"})

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = TokenRatio()(batch).clamp(-20, 20)
        if self.mismatch_cap is not None:
            log_ratio = log_ratio + (batch.old_logp - batch.rollout_logp).clamp(max=math.log(self.mismatch_cap))
        return masked(log_ratio, batch.mask).sum(-1, keepdim=True).expand_as(log_ratio)


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


@part
class ClampedTokenRatio(Ratio):
    r"""The token ratio with its logarithm clamped before it is exponentiated.

    .. math:: \log r_{i,t} = \mathrm{clip}\big(\log\pi_\theta(y_{i,t}) - \log\pi_{old}(y_{i,t}),\, \log d_{min}, \log d_{max}\big)

    A token beyond has no gradient, and its ratio stays finite. Source: StableReinforce, arXiv:2505.02835, and the
    authors' code (yfzhang114/r1_reward).
    """

    ratio_min: Positive = 1e-3
    """d_min."""
    ratio_max: Positive = 1e3
    """d_max."""

    def __call__(self, batch: Batch) -> Tensor:
        return TokenRatio()(batch).clamp(math.log(self.ratio_min), math.log(self.ratio_max))


@part
class PrefixMinRatio(Ratio):
    r"""The token ratio times the smallest ratio before it, which stands for the product of all of them.

    .. math:: \log R_{i,t} = \log r_{i,t} + sg\Big[\min_{j<t} \log r_{i,j}\Big]

    The minimum runs over the policy's own tokens; for the first it is 0. Source: MinPRO, arXiv:2601.22718. Our reading:
    no gradient through the minimum (there the whole is a detached weight).
    """

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = TokenRatio()(batch)
        own = torch.where(batch.mask.bool(), log_ratio.detach(), math.inf)
        before = torch.nn.functional.pad(own, (1, 0), value=math.inf)[:, :-1].cummin(-1).values
        return log_ratio + torch.where(before.isinf(), 0.0, before)


@part
class ProximalRatio(Ratio):
    r"""The token ratio to the policy just before its first update on the batch, whoever wrote the tokens.

    .. math:: \log r_{i,t} = \log\pi_\theta(y_{i,t}) - \log\pi_{prox}(y_{i,t})

    It starts at 0, so nothing is clipped in the first update of stale or pieced rows. Source: UloRL, arXiv:2507.19766
    (pseudo on-policy importance sampling).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prox_logp"})

    def __call__(self, batch: Batch) -> Tensor:
        return batch.logp - batch.prox_logp


def by_position(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One value per position, [N, T]; the last one stands for all positions after it."""
    index = torch.arange(like.shape[1], device=like.device).clamp(max=len(values) - 1)
    return like.new_tensor(values)[index].expand_as(like)
