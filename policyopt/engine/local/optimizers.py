"""The optimisers that can move what is trained: AdamW, Lion, Muon, and AdamW with moments of 8 bits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from policyopt.engine.settings import OptimizerName
from policyopt.errors import UserError
from policyopt.methods.settings.lion import Lion

_SHORT = frozenset({"step", "state1", "state2"})

STATES: Mapping[str, tuple[frozenset[str], ...]] = {
    "AdamW": (frozenset({"step", "exp_avg", "exp_avg_sq"}),),
    "Lion": (frozenset({"momentum"}),),
    "Muon": (frozenset({"momentum_buffer"}),),
    # Tensors of fewer than 4096 numbers have moments of 32 bits, without tables and scales.
    "AdamW8bit": (_SHORT, _SHORT | {"qmap1", "qmap2", "absmax1", "absmax2"}),
}
"""What an optimiser, by its class, keeps of a parameter: one of these sets of tensors, or nothing before its first step."""

NUMBERS: Mapping[OptimizerName, float] = {"adamw": 2, "lion": 1, "muon": 2, "adamw-8bit": 0.5}
"""How many numbers as wide as its own an optimiser keeps for each of a parameter, at most."""


def make_optimizer(
    name: OptimizerName, parameters: Mapping[str, nn.Parameter], matrices: Collection[str] = (), *, lr: float,
    betas: tuple[float, float], eps: float, weight_decay: float,
) -> torch.optim.Optimizer:  # fmt: skip
    """An optimiser of parameters by name, ``matrices`` of which are those of hidden layers.

    Raises :class:`~policyopt.errors.UserError` for what it cannot move, and for a package that is missing.
    """
    every = list(parameters.values())
    adam: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    if name == "lion":
        return Measured(Lion(every, lr, betas, weight_decay), steady=True)
    if name == "muon":
        muon = _muon([p for n, p in parameters.items() if n in matrices], lr, weight_decay)
        others = [p for n, p in parameters.items() if n not in matrices]
        return Measured(muon, *([torch.optim.AdamW(others, **adam)] if others else []), steady=True)
    if name == "adamw-8bit":
        return Measured(_adamw_8bit(every, **adam))
    return torch.optim.AdamW(every, **adam, fused=True)


class Measured(torch.optim.Optimizer):
    r"""Optimisers, each of some of the parameters, as one that moves parameter after parameter and knows how far they went.

    ``steady`` says that the steps do not shrink with the gradient, as those along a sign or an orthogonal matrix. A gradient
    that is zero everywhere is then no step at all: what the optimiser remembers, and the decay, would move the parameters of a batch
    without any signal as far as a batch that has one.
    """

    def __init__(self, *makers: torch.optim.Optimizer, steady: bool = False) -> None:
        super().__init__([group | {"maker": m} for m in makers for group in m.param_groups], {})
        for maker in makers:
            maker.state = self.state
        self.steady = steady
        self._moved: list[Tensor] = []
        self._size: list[Tensor] = []

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the parameters that have a gradient."""
        self._moved, self._size = [], []
        for group in self.param_groups:
            maker = group["maker"]
            for p in group["params"]:
                if p.grad is not None:
                    before = p.detach().clone()  # of one parameter at a time
                    maker.param_groups = [{key: x for key, x in group.items() if key != "maker"} | {"params": [p]}]
                    maker.step()
                    self._moved.append(before.sub_(p).norm())
                    self._size.append(p.norm())

    def update_size(self) -> float:
        r"""Relative size of the last step as it was measured, :math:`|\Delta\theta|/|\theta|`, with what weight decay did."""
        moved, size = (sum(number(x) ** 2 for x in found) for found in (self._moved, self._size))
        return math.sqrt(moved / size) if size else 0.0


def _muon(matrices: list[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    r"""Muon, for matrices of hidden layers; embeddings, head, norms and biases are AdamW's, as its documentation says.

    .. math:: m_t = \mu m_{t-1} + (1-\mu) g_t, \qquad
              \theta_t = (1-\eta\lambda)\,\theta_{t-1} - 0.2\,\eta\sqrt{\max(A, B)}\;\mathrm{NS}((1-\mu) g_t + \mu m_t)

    NS are five Newton-Schulz iterations towards the nearest orthogonal matrix, of a matrix [A, B]; with this factor
    (arXiv:2502.16982) a step is about as long as one of AdamW, so that both take one learning rate. :math:`\mu` is 0.95.
    Adapters are factors of a matrix, for which this direction is not meant. Source: :class:`torch.optim.Muon`.
    """
    if not hasattr(torch.optim, "Muon"):
        raise UserError(f"--optim.name muon: PyTorch {torch.__version__} has no Muon; 2.9 is the first that does")
    if not matrices:
        raise UserError(
            "--optim.name muon: it moves whole matrices of hidden layers, and none is trained here (with --lora their "
            "factors are): take --optim.name adamw"
        )
    return torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")


def _adamw_8bit(parameters: list[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """AdamW whose moments have 8 bits, in blocks of 256 with a scale of their own: 2 bytes a parameter in the place of 8.

    A tensor of fewer than 4096 numbers keeps moments of 32 bits. Source: arXiv:2110.02861 and the package bitsandbytes, whose
    ``AdamW8bit`` this is.
    """
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError as error:
        raise UserError(
            "--optim.name adamw-8bit: it needs the package bitsandbytes: pip install 'policyopt[8bit]'"
        ) from error
    if any(isinstance(p, DTensor) for p in parameters):
        raise UserError(
            "--optim.name adamw-8bit: bitsandbytes does not spread its moments over ranks; take adamw, or lion"
        )
    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, **settings)
    return optimizer


def hidden_matrices(model: Any) -> frozenset[str]:
    """The names of the matrices [A, B] of a model's layers; none of a model that trains adapters."""
    if hasattr(model, "merge_and_unload"):
        return frozenset()
    layers = [name for name, m in model.named_modules() if isinstance(m, GradientCheckpointingLayer)]
    return frozenset(
        n for n, p in model.named_parameters() if p.ndim == 2 and any(n.startswith(f"{layer}.") for layer in layers)
    )


def kept(optimizer: torch.optim.Optimizer, p: nn.Parameter) -> dict[str, Tensor]:
    """What an optimiser keeps of a parameter, as tensors that share no memory with each other."""
    state: Mapping[str, Any] = optimizer.state.get(p, {})
    # bitsandbytes counts steps in plain numbers, and has one table for all parameters.
    return {
        key: torch.tensor(x) if isinstance(x, int) else x.clone() if key.startswith("qmap") else x
        for key, x in state.items()
    }


def put_back(optimizer: torch.optim.Optimizer, p: nn.Parameter, state: Mapping[str, Tensor]) -> None:
    """Give an optimiser what :func:`kept` gave. Raises ``KeyError`` for what another optimiser kept."""
    if not state:
        return
    group = next(g for g in optimizer.param_groups if any(q is p for q in g["params"]))
    name = type(group.get("maker", optimizer)).__name__
    if state.keys() not in STATES[name]:
        raise KeyError(
            f"the optimiser that wrote it kept {', '.join(sorted(state))} of a parameter, where {name} keeps "
            f"{', or '.join(', '.join(sorted(keys)) for keys in STATES[name])}: go on with the --optim.name of then"
        )
    optimizer.state[p] = {
        key: int(x) if x.ndim == 0 and x.dtype == torch.int64 else x.clone().to(p.device) for key, x in state.items()
    }


def number(x: Tensor) -> float:
    """A number that a tensor holds; one that is spread over ranks is brought together (all of them have to ask)."""
    return float(x.full_tensor() if isinstance(x, DTensor) else x)
