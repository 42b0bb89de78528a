"""A model spread over ranks: its layers and the rest are groups of FSDP2, gathered while they compute and no longer.

A pass through a model is a pass through a :class:`Root`, whatever of the model it calls and in whatever order: embedding,
head and what else lies outside the layers is one group, which the root gathers, so that tied weights are one tensor and the
head can be applied in chunks without any talk between ranks.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from policyopt.errors import UserError
from policyopt.models.causal import SplitModel
from policyopt.models.head import SHORT


class Root(nn.Module):
    """A model whose every pass goes through ``root(call, ...)``, which is ``call(...)`` with the weights there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passed = model, False

    def forward(self, call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """What ``call`` gives."""
        self.passed = True
        return call(*args, **keywords)


def spread(model: nn.Module, mesh: DeviceMesh) -> Root:
    """Spread a model over the ranks of a mesh, in place: each of its parameters becomes a ``DTensor``, of which every rank
    holds a part of the first dimension, and its gradient and moments after it.

    Where all of a model is trained and it has 16 bits, the parts are float32, which is what an optimiser can move; what is
    gathered has 16 bits, and gradients are added up in float32. Raises :class:`~policyopt.errors.UserError` for weights of
    few bits, which cannot be spread.
    """
    if getattr(model, "is_quantized", False) or any(not p.is_floating_point() for p in model.parameters()):
        raise UserError("--adapters.quantized: weights of few bits cannot be spread over ranks; leave it out")
    kinds = {p.dtype for p in model.parameters()}
    short = next(iter(kinds)) if len(kinds) == 1 and all(p.requires_grad for p in model.parameters()) else None
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if short in SHORT:
        policy = MixedPrecisionPolicy(param_dtype=short, reduce_dtype=torch.float32, cast_forward_inputs=False)
    root = Root(model)
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for module in (*reversed(layers), root):  # the inner ones first
        if short in SHORT:  # layer by layer, so that no whole copy of the model is made
            module.float()
        fully_shard(module, mesh=mesh, mp_policy=policy)
    return root


class Called:
    """A function of a model that is called through its root; its attributes are the function's own."""

    def __init__(self, root: Root, call: Any) -> None:
        self._root, self._call = root, call

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self._root(self._call, *args, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def read_through(root: Root, split: SplitModel) -> SplitModel:
    """A model that is only read, called piece by piece through its root. (One that learns goes through it once a pass.)"""
    return dataclasses.replace(split, hidden=Called(root, split.hidden), logits=Called(root, split.logits))


def let_go(root: Root) -> None:
    """Let go of what a root has gathered and keeps, once the passes of a call are over: at the next the weights may be
    others."""
    spread: Any = root  # which FSDP2 has made one of its own modules
    if root.passed and hasattr(spread, "reset_iter_state") and not any(p.requires_grad for p in root.parameters()):
        spread.reset_iter_state()  # clears the notes of its passes too, which else only a backward does
    else:
        spread.reshard()


def whole(p: Tensor) -> Tensor:
    """A parameter with all that the other ranks hold of it; every rank has to ask."""
    return p.full_tensor() if isinstance(p, DTensor) else p


class Plain:
    """A model as it is without ranks, empty but for the time in which it is :meth:`filled`: drawing needs no talk between
    ranks then, and each can draw what it likes.

    It is made before the model is spread.
    """

    def __init__(self, model: nn.Module) -> None:
        self._dtypes = {name: p.dtype for name, p in model.named_parameters()}
        empty = {id(p): nn.Parameter(p.detach().new_empty(0), p.requires_grad) for p in model.parameters()}
        self.model: Any = copy.deepcopy(model, empty)
        """Tied parameters are one here too."""
        self._mine = {name: empty[id(p)] for name, p in model.named_parameters()}
        self._spread = model

    @property
    def full(self) -> bool:
        """Whether it holds the weights."""
        return next(iter(self._mine.values())).numel() > 0

    @torch.no_grad()
    def gathered(self) -> Iterator[tuple[str, Tensor]]:
        """The weights as they are now by name, each whole, in the precision that the model computes in; every rank has to
        take all of them."""
        for name, p in self._spread.named_parameters():
            yield name, whole(p.detach().to(self._dtypes[name]))

    def fill(self) -> None:
        """Gather the weights; every rank has to."""
        for name, x in self.gathered():
            self._mine[name].data = x

    def empty(self) -> None:
        """Let go of the weights."""
        for p in self._mine.values():
            p.data = p.data.new_empty(0)

    def with_weights(self, weights: Mapping[str, Tensor]) -> Any:
        """A copy of the model on the CPU that has these weights."""
        found: Any = {id(p): nn.Parameter(weights[name], p.requires_grad) for name, p in self._mine.items()}
        return copy.deepcopy(self.model, found).cpu()
