"""One model in training: adapters of its own, their gradient, and the optimiser that moves them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from policyopt.engine.local.weights import Weights, saved
from policyopt.models.head import SHORT, at_once
from policyopt.models.pieces import padded_pieces
from policyopt.serve.refused import Refused
from policyopt.serve.seats import Seats, Shape
from policyopt.serve.wire import Asked, Datum

GRADIENT = "gradient/"


class Trained:
    """A model in training: ``tensors`` by name, which have to fill ``like``, else ``KeyError``. Nothing of it is in the network
    between two calls."""

    def __init__(
        self, shape: Shape, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor], *, seed: int = 0
    ) -> None:
        self.shape, self.seed, self.steps = shape, seed, 0
        self.parameters = {name: nn.Parameter(saved(tensors, name, x).to(x).clone()) for name, x in like.items()}
        self.weights = Weights(
            {"policy": self.parameters}, {"policy": 0.0}, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0
        )

    def run(self, seats: Seats, split: Any, asked: Asked) -> tuple[list[np.ndarray], float]:
        """The log-probability of every target, [L] or [L, K] by text, and the loss; its gradient is added to what is there
        where that was asked for, all of it or none."""
        out: list[np.ndarray] = [np.zeros(0)] * len(asked.data)
        loss = 0.0
        with seats.seated(self.shape, self.parameters) as seat, torch.set_grad_enabled(asked.backward):
            for rows in padded_pieces([len(d.tokens) for d in asked.data]):
                some = [asked.data[i] for i in rows]
                logp = leaf(split, some)
                columns = {
                    name: torch.from_numpy(np.concatenate([d.columns[name].reshape(-1) for d in some])).to(logp)
                    for name in asked.loss.reads
                }
                value = asked.loss.value(logp, columns, asked.config)
                if asked.backward:
                    value.backward()
                loss += float(value.detach())
                ends = np.cumsum([d.targets.size for d in some])[:-1]
                for i, found in zip(rows, np.split(logp.detach().float().cpu().numpy(), ends), strict=True):
                    out[i] = found.reshape(asked.data[i].targets.shape)
            if asked.backward:
                self._add({name: p.grad for name, p in seat.items()})
        return out, loss

    def _add(self, gradient: Mapping[str, Tensor | None]) -> None:
        for name, p in self.parameters.items():
            g = gradient[name]
            g = torch.zeros_like(p) if g is None else g.detach().clone()
            p.grad = g if p.grad is None else p.grad + g

    def step(self, adam: Any) -> dict[str, float]:
        """One step of AdamW along the gradient that was gathered, which is used up. Raises
        :class:`~policyopt.serve.refused.Refused` where there is none, or where it is not finite: then nothing changes."""
        if all(p.grad is None for p in self.parameters.values()):
            raise Refused("optim_step without a gradient: forward_backward comes first")
        for group in self.weights.optimizers["policy"].param_groups:
            group |= {"lr": adam.learning_rate, "betas": (adam.beta1, adam.beta2), "eps": adam.eps}
            group["weight_decay"] = adam.weight_decay
        norm, applied = self.weights.step(adam.grad_clip_norm or math.inf)
        if not applied:
            raise Refused("the gradient is not finite: it was dropped, and the weights are as they were")
        self.steps += 1
        return {"grad_norm": norm}

    # State -----------------------------------------------------------------------------------------------------------

    def adapters(self) -> dict[str, Tensor]:
        """The adapters by name."""
        return {name: p.detach() for name, p in self.parameters.items()}

    def rest(self, gradient: bool = False) -> dict[str, Tensor]:
        """What the optimiser keeps, and where asked for the gradient gathered so far."""
        out = {name: x.detach() for name, x in self.weights.tensors().items() if not name.startswith("policy/")}
        if gradient:
            out |= {GRADIENT + name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        return out

    def load(self, rest: Mapping[str, Tensor], steps: int) -> None:
        """Put back what :meth:`rest` gave after so many steps. Raises ``KeyError`` for a tensor of another shape."""
        self.weights.load_tensors({f"policy/{name}": p.detach() for name, p in self.parameters.items()} | dict(rest))
        self.steps = steps
        for name, p in self.parameters.items():
            if GRADIENT + name in rest:
                p.grad = saved(rest, GRADIENT + name, p).to(p)


def leaf(split: Any, data: Sequence[Datum]) -> Tensor:
    """The log-probabilities of all targets, [M] in the order of the texts, at temperature 1; float32 for 16-bit models."""
    device = next(split.hidden.parameters()).device
    ids = nn.utils.rnn.pad_sequence([torch.from_numpy(d.tokens) for d in data], batch_first=True)
    row = torch.cat([torch.full((len(d.tokens),), i) for i, d in enumerate(data)])
    position = torch.cat([torch.arange(len(d.tokens)) for d in data])
    hidden = split.states(ids.to(device), row.to(device), position.to(device))
    found, start = [], 0
    for width, places in _widths(data):  # texts with as many targets at each place side by side
        targets = torch.from_numpy(np.concatenate([d.targets.reshape(-1, width) for d in places])).to(device)
        states = hidden[start : start + len(targets)]
        start += len(targets)
        size = at_once(split.vocab)
        for h, t in zip(states.split(size), targets.split(size), strict=True):
            if len(hidden) <= size or not torch.is_grad_enabled():
                found.append(scored(split, h, t))
            else:
                found.append(checkpoint(partial(scored, split), h, t, use_reentrant=False))
    return torch.cat([x.reshape(-1) for x in found])


def _widths(data: Sequence[Datum]) -> Iterator[tuple[int, list[Datum]]]:
    some: list[Datum] = []
    width = 0
    for d in data:
        mine = d.targets[0].size
        if some and mine != width:
            yield width, some
            some = []
        width = mine
        some.append(d)
    yield width, some


def scored(split: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities [M, K] of targets [M, K] after hidden states [M, H]."""
    logits = split.logits(hidden)
    logits = logits.float() if logits.dtype in SHORT else logits
    return logits.gather(-1, targets) - logits.logsumexp(-1, keepdim=True)
