"""Many adapters on one model: each shape has a seat in the model, and whoever computes takes it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from policyopt.errors import UserError, first_line
from policyopt.models.load import Policy
from policyopt.models.quiet import quiet
from policyopt.serve.refused import Refused

ALPHA = 32.0
"""The update is scaled by this over the rank, as hosted servers of the protocol do."""
MAX_RANK = 512

_ATTENTION = re.compile(r"(^|[._])(self_)?(attn|attention)([._]|$)", re.IGNORECASE)

_ROUTER = re.compile(r"(^|\.)(gate|router)$")
"""What sends tokens to experts is left as it is."""


@dataclass(frozen=True)
class Shape:
    """Which matrices an adapter changes, and in how many directions."""

    rank: int
    attn: bool = True
    mlp: bool = True
    unembed: bool = True

    @property
    def name(self) -> str:
        """What the seat is called in the model."""
        return f"r{self.rank}" + "".join(k[0] for k in ("attn", "mlp", "unembed") if getattr(self, k))


class Seats:
    """A model with places for adapters; it computes with one at a time, or with none. Raises
    :class:`~policyopt.errors.UserError` for a model that takes none."""

    def __init__(self, policy: Policy) -> None:
        if hasattr(policy.model, "merge_and_unload"):
            raise ValueError("a model that has adapters already")
        self._groups = _groups(policy.model)
        self.net = policy.model = self._wrapped(policy.model)
        self._made: dict[str, dict[str, nn.Parameter]] = {}

    @quiet()
    def _wrapped(self, net: Any) -> Any:
        """The model with every matrix wrapped that any shape names, so that seats can be added under whoever holds its
        functions."""
        from peft import get_peft_model

        from policyopt.models.lowrank import use_low_rank

        every = sorted(name for group in self._groups.values() for name in group)
        try:
            wrapped: Any = get_peft_model(net, self._config(1, every), adapter_name="none")
        except ValueError as error:
            raise UserError(
                f"{type(net).__name__} cannot be served: it takes no adapters ({first_line(error)})"
            ) from error
        use_low_rank(wrapped)
        return wrapped.eval().requires_grad_(False)

    @staticmethod
    def _config(rank: int, modules: list[str]) -> Any:
        from peft import LoraConfig

        alpha: Any = ALPHA
        return LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, task_type="CAUSAL_LM")

    def modules(self, shape: Shape) -> list[str]:
        """The matrices of a shape. Raises :class:`~policyopt.serve.refused.Refused` where the model has none of a kind that was
        asked for, and for a rank out of range."""
        if not 1 <= shape.rank <= MAX_RANK:
            raise Refused(f"lora_config.rank {shape.rank}: 1 to {MAX_RANK} are served")
        asked = [kind for kind in ("attn", "mlp", "unembed") if getattr(shape, kind)]
        if not asked:
            raise Refused("lora_config: at least one of train_attn, train_mlp, train_unembed is needed")
        for kind in asked:
            if not self._groups[kind]:
                raise Refused(
                    f"lora_config.train_{kind}: this model has no linear layers of that kind; set it to False"
                )
        return [name for kind in asked for name in self._groups[kind]]

    def fresh(self, shape: Shape, seed: int) -> dict[str, Tensor]:
        """Adapters that change nothing yet: A uniform by the seed, B zero (arXiv:2106.09685)."""
        generator = torch.Generator().manual_seed(seed)
        out = {}
        for name, p in self.parameters(shape).items():
            t = torch.zeros(p.shape, dtype=p.dtype)
            if "lora_A" in name:
                nn.init.kaiming_uniform_(t, a=math.sqrt(5), generator=generator)
            out[name] = t.to(p.device)
        return out

    @quiet()
    def parameters(self, shape: Shape) -> dict[str, nn.Parameter]:
        """The seat of a shape: its tensors by the names under which PEFT saves them."""
        if shape.name not in self._made:
            self.net.add_adapter(shape.name, self._config(shape.rank, self.modules(shape)))
            mark = f".{shape.name}."
            found = {n.replace(mark, "."): p for n, p in self.net.named_parameters() if mark in n}
            self._made[shape.name] = dict(sorted(found.items()))
        return self._made[shape.name]

    @contextmanager
    def seated(self, shape: Shape | None, tensors: Mapping[str, Tensor] = {}) -> Iterator[Mapping[str, nn.Parameter]]:
        """Compute with adapters; without a shape, with the model alone. Gives the parameters that the gradient arrives at."""
        if shape is None:
            with self.net.disable_adapter():
                yield {}
            return
        seat = self.parameters(shape)
        with torch.no_grad():
            for name, p in seat.items():
                p.copy_(tensors[name])
        self.net.set_adapter(shape.name)
        try:
            yield seat
        finally:
            for p in seat.values():
                p.grad = None


def _groups(net: Any) -> dict[str, list[str]]:
    """The linear layers of a model by kind, as full names."""
    head = net.get_output_embeddings()
    groups: dict[str, list[str]] = {"attn": [], "mlp": [], "unembed": []}
    for name, module in net.named_modules():
        if type(module).__name__ not in ("Linear", "Conv1D") or _ROUTER.search(name):
            continue
        kind = "unembed" if module is head else "attn" if _ATTENTION.search(name) else "mlp"
        groups[kind].append(name)
    return groups
