"""The trained parameters, their float32 copies where they have 16 bits, and the optimisers that move them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial

from policyopt.engine.local.optimizers import NUMBERS, STATES, Measured, kept, make_optimizer, number, put_back
from policyopt.engine.settings import OptimizerName
from policyopt.models.head import SHORT
from policyopt.spans import span

PIECE = 1 << 20
"""Numbers of a tensor that are looked at together."""


class Weights:
    """What training changes of each trained model ("policy", "critic"): parameters by name, an optimiser for each model.

    ``matrices`` are names of matrices of hidden layers, by model, which some optimisers treat in another way; see
    :func:`~policyopt.engine.local.optimizers.make_optimizer`.
    """

    def __init__(
        self, parameters: Mapping[str, dict[str, nn.Parameter]], rates: Mapping[str, float], *,
        betas: tuple[float, float], eps: float, weight_decay: float,
        optimizer: OptimizerName = "adamw", matrices: Mapping[str, Collection[str]] | None = None,
    ) -> None:  # fmt: skip
        self.parameters, self.name = parameters, optimizer
        self.masters = {role: {n: _master(p) for n, p in named.items()} for role, named in parameters.items()}
        self.optimizers = {
            role: make_optimizer(
                optimizer, named, (matrices or {}).get(role, ()), lr=rates[role], betas=betas, eps=eps,
                weight_decay=weight_decay,
            )
            for role, named in self.masters.items()
        }  # fmt: skip
        self._base_lr = {role: o.param_groups[0]["lr"] for role, o in self.optimizers.items()}

    @property
    def lr(self) -> float:
        """The learning rate of the policy now."""
        return float(self.optimizers["policy"].param_groups[0]["lr"])

    def set_lr(self, factor: float) -> None:
        """Put the learning rates at ``factor`` times their base."""
        for role, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._base_lr[role] * factor

    def bytes(self) -> int:
        """What the parameters take that the optimisers move."""
        return sum(p.numel() * p.element_size() for named in self.masters.values() for p in named.values())

    def saved_bytes(self) -> int:
        """What :meth:`tensors` take after a step: these parameters, and what the optimisers keep of them."""
        return int((1 + NUMBERS[self.name]) * self.bytes())

    @span("optimiser")
    def step(self, clip_norm: float, *, finite: bool = True) -> tuple[float, bool]:
        """Take the step that lies in ``.grad``, clipped to a length, and clear it. Returns the length of the policy's
        gradient before, and whether the step was taken: not where ``finite`` is false or a gradient is not finite. Where it is
        zero everywhere, optimisers with steady steps (:class:`~policyopt.engine.local.optimizers.Measured`) move nothing."""
        for p, master in self._pairs():
            if master is not p and p.grad is not None:
                master.grad = p.grad.float()
        norms = {role: clip(list(named.values()), clip_norm) for role, named in self.masters.items()}
        applied = finite and all(map(math.isfinite, norms.values()))
        if applied:
            for role, optimizer in self.optimizers.items():
                if norms[role] == 0 and isinstance(optimizer, Measured) and optimizer.steady:
                    optimizer.zero_grad()
                optimizer.step()
            self.publish()
        self.zero_grad()
        return norms["policy"], applied

    def zero_grad(self) -> None:
        """Clear all gradients."""
        for pair in self._pairs():
            for p in pair:
                p.grad = None

    def _pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """Every trained parameter with the one that the optimiser moves; mostly they are the same."""
        for role, named in self.parameters.items():
            for name, p in named.items():
                yield p, self.masters[role][name]

    @torch.no_grad()
    def publish(self) -> None:
        """Round the float32 copies to the weights that the models compute with."""
        for p, master in self._pairs():
            if master is not p:
                p.copy_(master)

    @torch.no_grad()
    def update_size(self) -> float:
        r"""Relative size of the policy's last step, :math:`|\Delta\theta|/|\theta|`: of AdamW from its moments (without weight
        decay), of others as :meth:`~policyopt.engine.local.optimizers.Measured.update_size` measured it."""
        optimizer = self.optimizers["policy"]
        if isinstance(optimizer, Measured):
            return optimizer.update_size()
        group = optimizer.param_groups[0]
        found = [
            torch.stack([_moved(state, group), _squared(own(p).flatten().split(PIECE))])
            for p in group["params"]
            if (state := optimizer.state.get(p))
        ]
        if not found:
            return 0.0
        moved, size = whole_sum(torch.stack(found).sum(0), group["params"][0]).tolist()
        return float(group["lr"] * math.sqrt(moved / size)) if size else 0.0

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and what the optimisers keep of them, by name."""
        out: dict[str, Tensor] = {}
        for role, named in self.masters.items():
            for name, p in named.items():
                out[f"{role}/{name}"] = p
                for key, value in kept(self.optimizers[role], p).items():
                    out[f"{role}.{key}/{name}"] = value
        return out

    def like(self) -> dict[str, Tensor]:
        """Tensors of the shapes and places of all that :meth:`tensors` can give after a step, whatever the optimiser."""
        out = self.tensors()
        keys = {key for states in STATES.values() for keys in states for key in keys} - {"step"}
        for role, named in self.masters.items():
            for name, p in named.items():
                out[f"{role}.step/{name}"] = torch.zeros((), device=p.device)
                out |= {f"{role}.{key}/{name}": p for key in keys}
        return out

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave. Raises ``KeyError`` for a parameter that is missing or of another shape, and for
        what another optimiser kept."""
        states: dict[tuple[str, str], dict[str, Tensor]] = {}
        for full, x in tensors.items():
            place, _, name = full.partition("/")
            role, _, key = place.partition(".")
            if key:
                states.setdefault((role, name), {})[key] = x
        for role, named in self.masters.items():
            for name, p in named.items():
                p.copy_(saved(tensors, f"{role}/{name}", p))
                put_back(self.optimizers[role], p, states.get((role, name), {}))
        self.publish()


def clip(parameters: Sequence[nn.Parameter], length: float) -> float:
    """Shorten the gradient of some parameters to a length, as :func:`torch.nn.utils.clip_grad_norm_` does; where it is shorter, it
    is read and not written. Returns its length before."""
    total = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    found = number(total)
    if found + 1e-6 > length:  # torch adds as much to what it divides by
        nn.utils.clip_grads_with_norm_(parameters, length, total)
    return found


def _moved(state: Mapping[str, Tensor], group: Mapping[str, Any]) -> Tensor:
    """The squared length of Adam's direction of a parameter, or of this rank's share of it; piece by piece, so that nothing
    as large as the parameter is made."""
    first, second = (1 - beta ** state["step"].double() for beta in group["betas"])
    pieces = (own(state[name]).flatten().split(PIECE) for name in ("exp_avg", "exp_avg_sq"))
    directions = (mean / (square / second).sqrt_().add_(group["eps"]) for mean, square in zip(*pieces, strict=True))
    return _squared(directions) / first.to(state["exp_avg"].device) ** 2


def _squared(pieces: Iterable[Tensor]) -> Tensor:
    """The squared length of a vector, in float64: a float32 norm of some 10 million numbers at once is off by a thousandth."""
    return torch.stack([piece.norm().double() ** 2 for piece in pieces]).sum()


def own(x: Tensor) -> Tensor:
    """What this process has of a tensor."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole_sum(x: Tensor, like: Tensor) -> Tensor:
    """Sums over what each rank has of a tensor like this, added up; every rank has to ask."""
    if not isinstance(like, DTensor):
        return x
    mesh = like.device_mesh
    return DTensor.from_local(x, mesh, [Partial()] * mesh.ndim).full_tensor()


def _master(p: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(p.detach().float()) if p.dtype in SHORT else p


def saved(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A tensor of a checkpoint, which has to be there in the shape of ``like``, else ``KeyError``."""
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != like.shape:
        seen = "missing" if tensor is None else f"shape {tuple(tensor.shape)}, expected {tuple(like.shape)}"
        raise KeyError(f"{name}: {seen}")
    return tensor
