"""Distributions tilted by a reward."""

from __future__ import annotations

from torch import Tensor


def tilt(base: Tensor, reward: Tensor, strength: float) -> Tensor:
    r"""The tilt of ``base`` by ``strength`` :math:`\lambda`, proportional to :math:`p(y)\,e^{\lambda r(y)}`; at 0 it is ``base``."""
    return (base.log() + strength * reward).softmax(-1)


def optimal_set(value: Tensor, tie: float = 1e-9) -> Tensor:
    """Which outcomes are best up to ``tie``, boolean [..., n]: without regularisation every policy on them is
    optimal."""
    return value >= value.amax(-1, keepdim=True) - tie
