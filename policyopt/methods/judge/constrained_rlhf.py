"""Constrained RLHF."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Controller
from policyopt.control.logged import logged
from policyopt.groups import group_mean, whiten
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Advantage, Finite, Fraction, NonNegative, Positive, Unit, part
from policyopt.parts.shape.components import own
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked


def squash(raw: Sequence[float], equality: bool) -> tuple[float, ...]:
    r"""Multipliers from raw numbers: :math:`\tanh\eta` for constraints that shall hold with equality (they may be
    negative), :math:`\mathrm{sigmoid}(\eta)` for lower bounds (never negative)."""
    return tuple(math.tanh(x) if equality else (1 + math.tanh(x / 2)) / 2 for x in raw)


@part
class ConstrainedAdvantage(Advantage):
    r"""Several components of the reward and closeness to the reference, mixed by multipliers.

    .. math:: A = \Big(K - \sum_k\mu_k\Big)A^{(0)} + \sum_k\mu_k A^{(k)}

    A^(k) is component k minus its mean over the responses to the prompt, A^(0) the same of :math:`-\sum_t\log\pi_{old}/\pi_{ref}`;
    each is whitened over the rows of the batch before it is mixed, so the scale of a component does not matter. The
    weights add up to K whatever the multipliers. Source: constrained RLHF, arXiv:2310.04373, and the authors' code
    (tedmoskovitz/ConstrainedRL4LMs), where K + 1 critics take the place of the means over the prompt.
    """

    components: tuple[str, ...] = ("correct", "formatted")
    """What is constrained: names of a verdict's parts, or "correct" and "formatted"."""
    lagrange: tuple[Finite, ...] = (0.0, 0.0)
    """eta, the raw multiplier of each component; a controller moves them."""
    equality: bool = True
    """Components are held at their thresholds (tanh), not just above (sigmoid)."""
    ddof: int = 1
    """Delta degrees of freedom of the whitening."""
    eps: NonNegative = 1e-8
    """Added to the variance."""

    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    @property
    def needs(self) -> frozenset[str]:
        """The reference, and what every judge says, as far as it counts."""
        return frozenset({"ref_logp"}) | own(self.components)

    def __post_init__(self) -> None:
        if len(self.components) != len(self.lagrange):
            raise ValueError(f"{len(self.components)} components, but {len(self.lagrange)} multipliers (lagrange)")

    def whitened(self, x: Tensor) -> Tensor:
        """``x`` [N] with mean 0 and variance 1 over the rows."""
        return whiten(x, ddof=self.ddof, variance_eps=self.eps)

    def mixed(self, constrained: Tensor, close: Tensor) -> Tensor:
        """The advantage of each row, [N], from those of the components [N, K] and of the closeness [N]."""
        weight = constrained.new_tensor(squash(self.lagrange, self.equality))
        kept = (len(weight) - weight.sum()) * self.whitened(close)
        return kept + sum(w * self.whitened(x) for w, x in zip(weight, constrained.unbind(-1), strict=True))

    def __call__(self, batch: Batch) -> Tensor:
        def gain(x: Tensor) -> Tensor:
            return x - group_mean(x, batch.group)

        close = gain(-masked(batch.old_logp - batch.ref_logp, batch.mask).sum(-1))
        constrained = torch.stack([gain(batch.component(name)) for name in self.components], -1)
        return self.mixed(constrained, close)[:, None] * batch.mask


@part
class DualDescent(Controller):
    r"""Multipliers that learn to hold the components of a reward at their thresholds.

    .. math:: g_k = \mu'(\eta_k)\,(J_k - \theta_k),\qquad v \leftarrow m v + g,\qquad \eta \leftarrow \eta - \alpha v

    J_k is the mean of component k over the batch; g is cut to the norm c first. A component below its threshold gains
    weight, one above it loses weight. Source: arXiv:2310.04373 and the authors' code.
    """

    field: str = "advantage.lagrange"
    """Path of the multipliers."""
    components: tuple[str, ...] = ("correct", "formatted")
    """Names of the components, in the order of the multipliers."""
    threshold: tuple[Finite, ...] = (0.9, 0.9)
    """theta."""
    lr: Positive = 0.1
    """alpha."""
    momentum: Fraction = 0.1
    """m."""
    max_grad_norm: Positive | None = 0.5
    """c; None for no bound."""
    equality: bool = True
    """The multipliers are tanh of eta, not sigmoid."""

    def __post_init__(self) -> None:
        if len(self.components) != len(self.threshold):
            raise ValueError(f"{len(self.components)} components, but {len(self.threshold)} thresholds")

    def start(self) -> dict[str, float]:
        return {f"velocity.{k}": 0.0 for k in range(len(self.components))}

    def gradient(self, raw: Sequence[float], measured: Sequence[float]) -> list[float]:
        """g."""
        slope = [1 - m * m if self.equality else m * (1 - m) for m in squash(raw, self.equality)]
        found = [s * (j - theta) for s, j, theta in zip(slope, measured, self.threshold, strict=True)]
        if self.max_grad_norm is None:
            return found
        # 1e-6 as in torch's clip_grad_norm_, which the authors call
        return [g * min(1.0, self.max_grad_norm / (math.hypot(*found) + 1e-6)) for g in found]

    def __call__(
        self, value: tuple[float, ...], metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[float, ...]:
        names = [logged(name) for name in self.components]
        if not all(name in metrics for name in names):
            return value
        gradient = self.gradient(value, [metrics[name] for name in names])
        state |= {k: self.momentum * v + g for (k, v), g in zip(state.items(), gradient, strict=True)}
        return tuple(x - self.lr * v for x, v in zip(value, state.values(), strict=True))


@method(
    parent=ppo,
    arxiv="2310.04373",
    code="tedmoskovitz/ConstrainedRL4LMs",
    confidence="code",
    claim=Claim(
        "Each component is held at the point up to which it is a good sign: less is hacked than where their sum "
        "is maximised.",
        "proxy-reward",
        (Effect("accuracy", "higher", 0.05),),
        ours={"components": ("true", "proxy"), "threshold": (0.9, 0.2), "epochs": 4},
    ),
)
def constrained_rlhf(
    components: tuple[str, ...] = ("correct", "formatted"),
    threshold: tuple[float, ...] = (0.9, 0.9),
    equality: bool = True,
    lr: float = 0.1,
    momentum: float = 0.1,
    max_grad_norm: float | None = 0.5,
    low: float | None = 0.2,
    high: float | None = 0.2,
    epochs: int = 5,
    group_size: int = 8,
) -> Recipe:
    r"""Hold each component of the reward at the point up to which it is a good proxy, and stay close to the reference
    otherwise.

    .. math:: A = \Big(K - \sum_k\mu_k\Big)A^{(0)} + \sum_k\mu_k A^{(k)},\qquad
              \eta_k \leftarrow \eta_k - \alpha\,\mu'(\eta_k)(J_k - \theta_k)

    mu = tanh(eta) (``equality``, xi-PPO) or sigmoid(eta) (mu-PPO); A^(0) is the advantage of closeness, all are
    whitened. ``threshold`` has one theta for each of ``components``: the accuracy and the share of well-formed answers,
    or parts of the verdict by name. Source: arXiv:2310.04373 and the authors' code; alpha, momentum and the bound on
    the dual gradient are theirs. Our reading: the mean over the responses to a prompt takes the place of each of the
    K + 1 critics, and eta starts at 0. The search for the proxy points lies outside of training.
    """
    return ppo(low, high, kl_coef=0.0, epochs=epochs, group_size=group_size).replace(
        advantage=ConstrainedAdvantage(
            components=components, lagrange=(0.0,) * len(components), equality=equality
        ),
        critic=None,
        controllers=(
            DualDescent(
                components=components, threshold=threshold, lr=lr, momentum=momentum, max_grad_norm=max_grad_norm,
                equality=equality,
            ),
        ),
    )  # fmt: skip
