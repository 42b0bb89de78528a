"""The product with a low-rank adapter, in as few passes over the output as it takes."""

from __future__ import annotations

from typing import Any, cast

from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F


class LowRankLinear(Linear):
    r"""A linear layer with adapters, as PEFT keeps and saves it.

    .. math:: y = x W^T + b + s\,(x A^T) B^T

    for x [..., I], W [O, I], A [R, I] and B [O, R] (LoRA, arXiv:2106.09685, eq. 3). The product with B is scaled and added
    where x W^T lies, while PEFT makes [..., O] twice more and another pass over it. Where the adapters have more bits than x,
    they are rounded to those of x, as under autocast, and the sum is rounded once; PEFT has x in their precision instead.

    Whatever else PEFT's layer can be asked for (adapters that are off, merged, several at a time, with dropout or of
    another kind) is left to it.
    """

    def forward(self, x: Tensor, *args: Any, **keywords: Any) -> Tensor:
        """[..., I] -> [..., O]."""
        name = self._alone()
        if name is None or args or keywords:
            whole: Tensor = super().forward(x, *args, **keywords)
            return whole
        a, b = (cast(Tensor, side[name].weight).to(x.dtype) for side in (self.lora_A, self.lora_B))
        flat = x.reshape(-1, x.shape[-1])
        out: Tensor = self.base_layer(flat)
        out = out.addmm_(F.linear(flat, a), b.T, alpha=self.scaling[name])
        return out.reshape(*x.shape[:-1], -1)

    def _alone(self) -> str | None:
        """The adapter that is to be added, where it is one plain adapter and nothing else."""
        names = self.active_adapters
        if self.disable_adapters or self.merged or len(names) != 1 or names[0] not in self.lora_A:
            return None
        name = names[0]
        drops = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        return None if drops or name in self.lora_variant or self.lora_bias[name] else str(name)


def use_low_rank(net: nn.Module) -> None:
    """Let the adapters on plain linear layers of a model of PEFT be computed by :class:`LowRankLinear`. Those on other
    layers, such as weights of few bits, stay as they are."""
    for module in net.modules():
        # By class rather than by instance: a copy of the model must call its own layers.
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.__class__ = LowRankLinear
