"""PPO at a million environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from policyopt.errors import UserError
from policyopt.registry import guide

if TYPE_CHECKING:
    from policyopt.training.config import TrainConfig


def co_scaled(config: TrainConfig, k: int) -> TrainConfig:
    """The settings of a run whose batches are ``k`` times as large: as many more mini-batches of the size that they have, at the
    same learning rate and for as many epochs; see :func:`ppo_million_envs`.

    ``steps`` stays too, so the run draws ``k`` times as many responses. Raises :class:`~policyopt.errors.UserError` for a ``k``
    below 1.
    """
    if k < 1:
        raise UserError(f"co_scaled: k is {k}, and a batch can become 1, 2, 3, ... times as large")
    path = "update.minibatches"
    recipe = config.recipe.set(path, k * config.recipe.get(path))
    return dataclasses.replace(config, batch=k * config.batch, recipe=recipe)


def stationary_variance(step: float, variance: float, samples: int) -> float:
    r"""Where noisy gradient descent on :math:`\frac12x^2` comes to rest: the variance of x under
    :math:`x \leftarrow x - \eta\,(x + \xi)`, with noise :math:`\xi` of variance :math:`\sigma^2/n`.

    .. math:: \mathrm{Var}(x) = \frac{\eta\,\sigma^2/n}{2-\eta}

    ``step`` is :math:`\eta`, ``variance`` :math:`\sigma^2`, ``samples`` n. Raises ``ValueError`` for a step outside (0, 2), at which
    it does not come to rest.
    """
    if not 0 < step < 2:
        raise ValueError(f"a step of {step:g} never comes to rest: it has to lie between 0 and 2")
    return step * variance / samples / (2 - step)


@guide(arxiv="2603.06009", confidence="secondary", use="policyopt train ppo --batch 512 --recipe.update.minibatches 4")
def ppo_million_envs(k: int = 4) -> Callable[[TrainConfig], TrainConfig]:
    r"""How to grow the batch of a run that no longer improves: more mini-batches, not larger ones.

    .. math:: B' = kB,\qquad M' = kM,\qquad \frac{B'}{M'} = \frac BM,\qquad \eta' = \eta,\qquad
              \mathrm{Var}(x) = \frac{\eta_o\,\sigma^2/n}{2-\eta_o}

    One iteration (draw B responses, then many optimiser steps on M mini-batches) is one step of an outer optimisation. Its
    step :math:`\eta_o` is how far the policy may go from the one that drew, its noise is one over the number of samples n. A plateau is
    that of a step too large for the noise: on :math:`\frac12x^2` the variance at rest (:func:`stationary_variance`; the toy is
    our reading) falls with both. Growing B by k with mini-batches and learning rate as they are lowers the noise; the customary
    way, mini-batches k times as large at :math:`\sqrt k` times the learning rate, lengthens the step as well. Steps per sample stay
    the same. An environment is a response here.

    In Python ``policyopt.co_scaled(config, k)`` is this rule; calling this guide gives it for one k. What a run logs tells whether it
    works: ``update/kl``, how far the policy went from the one that drew while it learned from a batch, and
    ``update/data_per_kl``, tokens of the batch for each nat per token of it. With k it should rise; where the learning rate is
    raised too, it does not. Against clipping that is too tight for old data, ``Reference`` parts that follow the policy
    (``EMA``) are an anchor apart from the policy that drew. Source: arXiv:2603.06009, known from its abstract and short
    accounts of others; the exact definition of the ratio is not established, the one here is ours.
    """
    return partial(co_scaled, k=k)
