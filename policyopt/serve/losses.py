"""The losses of the protocol: sums over tokens, each from the parts of the library where one is it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policyopt.parts import LogProb, PPOClip, RatioTimesAdvantage, TruncatedRatio
from policyopt.rows import Batch, held, make_batch

Columns = Mapping[str, Tensor]
"""[M] each, by the names of the protocol."""


def cross_entropy(logp: Tensor, inputs: Columns, config: Mapping[str, float]) -> Tensor:
    r""":math:`-\sum_t w_t \log\pi(y_t)`."""
    return -(inputs["weights"] * logp).sum()


def importance_sampling(logp: Tensor, inputs: Columns, config: Mapping[str, float]) -> Tensor:
    r""":math:`-\sum_t r_t A_t` with :math:`r = \pi/\pi_{old}`."""
    log_ratio, batch = _batch(logp, inputs)
    return RatioTimesAdvantage()(log_ratio, batch).sum()


def ppo(logp: Tensor, inputs: Columns, config: Mapping[str, float]) -> Tensor:
    r""":math:`-\sum_t \min(r_t A_t, \mathrm{clip}(r_t, l, h) A_t)`."""
    log_ratio, batch = _batch(logp, inputs)
    low, high = _distances(config)
    return PPOClip(low=low, high=high)(log_ratio, batch).sum()


def cispo(logp: Tensor, inputs: Columns, config: Mapping[str, float]) -> Tensor:
    r""":math:`-\sum_t sg[\mathrm{clip}(r_t, l, h)] A_t \log\pi(y_t)`."""
    log_ratio, batch = _batch(logp, inputs)
    low, high = _distances(config)
    return (TruncatedRatio(low=low, high=high)(log_ratio, batch).detach() * LogProb()(log_ratio, batch)).sum()


def dro(logp: Tensor, inputs: Columns, config: Mapping[str, float]) -> Tensor:
    r""":math:`-\sum_t \big(A_t\log\pi(y_t) - \tfrac\beta2(\log r_t)^2\big)`."""
    log_ratio, batch = _batch(logp, inputs)
    return (LogProb()(log_ratio, batch) + config["beta"] / 2 * (logp - inputs["logprobs"]) ** 2).sum()


def _batch(logp: Tensor, inputs: Columns) -> tuple[Tensor, Batch]:
    """All tokens as one row: the log-ratio and a batch, [1, M]."""
    old, row = inputs["logprobs"][None], logp[None]
    batch = make_batch(mask=torch.ones_like(old), advantage=inputs["advantages"][None], old_logp=old)
    return held(row - old), batch.with_leaves({"logp": row})


def _distances(config: Mapping[str, float]) -> tuple[float, float]:
    """How far the thresholds, which are ratios, lie from 1."""
    return 1 - config["clip_low_threshold"], config["clip_high_threshold"] - 1


@dataclass(frozen=True)
class Loss:
    """A loss with what it reads."""

    value: Callable[[Tensor, Columns, Mapping[str, float]], Tensor]
    """From log-probabilities [M], columns [M] and settings to a number."""
    reads: tuple[str, ...]
    """Columns beside ``target_tokens``."""
    settings: Mapping[str, float] = field(default_factory=dict)
    """Settings with what they are where a client names none."""


_OLD = ("logprobs", "advantages")
_CLIP = {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}

_ALL = (
    Loss(cross_entropy, ("weights",)),
    Loss(importance_sampling, _OLD),
    Loss(ppo, _OLD, _CLIP),
    Loss(cispo, _OLD, _CLIP),
    Loss(dro, _OLD, {"beta": 0.05}),
)
LOSSES: Mapping[str, Loss] = {loss.value.__name__: loss for loss in _ALL}
"""By the names of the protocol, which the functions have."""
