"""Lion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from policyopt.registry import guide


class Lion(torch.optim.Optimizer):
    r"""Steps along the sign of an interpolation between momentum and gradient; see :func:`lion`.

    One tensor of the shape of each parameter is kept, ``momentum``.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the parameters that have a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    if "momentum" not in self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                    self._move(p, p.grad, self.state[p]["momentum"], **{key: group[key] for key in self.defaults})

    def _move(
        self, p: Tensor, gradient: Tensor, momentum: Tensor, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        direction = momentum.mul(betas[0]).add_(gradient, alpha=1 - betas[0]).sign_()
        p.mul_(1 - lr * weight_decay).add_(direction, alpha=-lr)
        momentum.mul_(betas[1]).add_(gradient, alpha=1 - betas[1])


@guide(arxiv="2302.06675", code="google/automl", confidence="secondary", use="policyopt train grpo --optim.name lion")
def lion(lr: float = 1e-6, weight_decay: float = 0.0, factor: float = 5.0) -> dict[str, Any]:
    r"""An optimiser that moves every weight by the same length, along a sign, with one moment in the place of two.

    .. math:: c_t = \beta_1 m_{t-1} + (1-\beta_1)\,g_t,\qquad
              \theta_t = \theta_{t-1} - \eta_t\,(\mathrm{sign}(c_t) + \lambda\,\theta_{t-1}),\qquad \mathrm{sign}(0) = 0,\qquad
              m_t = \beta_2 m_{t-1} + (1-\beta_2)\,g_t

    :math:`\beta_1` weighs the old momentum in the step, and :math:`\beta_2` in what is kept; 0.9 and 0.99 are the defaults.
    There is no correction of a bias, and the decay is multiplied by the current learning rate (some ports take the first
    one). Scaling all gradients changes nothing. The state is half of AdamW's.

    Against AdamW the learning rate should be 3 to 10 times lower and the decay as much higher, so that their product stays
    the same: this gives the settings (``optim``) of a run that AdamW would train with ``lr`` and ``weight_decay``. Where no learning
    rate is set, a run with lion takes a fifth of AdamW's.

    A step does not shrink with the gradient. A batch without signal, all of whose advantages are zero, would move every weight
    by what the momentum remembers, and by the decay: a step whose gradient is zero everywhere is left out
    (:class:`~policyopt.engine.local.optimizers.Measured`). That is ours, as are batches of 64 responses or more as advice: the
    authors find that it gains with large batches. Source: arXiv:2302.06675, the rule as the authors' code has it, known
    from a port of it.
    """
    return {"name": "lion", "lr": lr / factor, "weight_decay": weight_decay * factor}
