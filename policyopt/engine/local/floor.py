"""What the arithmetic of a model alone would take: its matrix products, counted, and timed on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

MOST = 1024
"""Rows of a product that is timed: beyond it a product takes as long as it has rows."""

AT_ONCE = 2e10
"""Floating-point operations up to which all matrices are timed, and not one of each shape."""

SLICE = 16_384
"""Rows of a matrix of which a product is timed; a head has ten times as many, each as expensive as any other."""


@dataclass
class Products:
    """The products of rows with some matrices, each [out, in]: what they cost, and how fast they run here."""

    matrices: Sequence[Tensor]
    dtype: torch.dtype
    _rates: dict[int, float] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """Floating-point operations for one row."""
        return 2.0 * sum(w.numel() for w in self.matrices)

    def seconds(self, rows: float, calls: float) -> float:
        """What the products of so many rows, spread evenly over so many calls, take on this machine."""
        if not rows or not self.matrices:
            return 0.0
        each = min(MOST, max(1, round(rows / max(1.0, calls))))
        near = 1 << (each - 1).bit_length()
        if near not in self._rates:
            self._rates[near] = self._rate(near)
        return rows * self.cost / self._rates[near]

    @torch.no_grad()
    def _rate(self, rows: int) -> float:
        """Operations per second of products of ``rows`` rows with matrices as they lie in memory; the best of three rounds."""
        chosen = self.matrices
        if rows * self.cost > AT_ONCE:
            chosen = list({w.shape: w for w in self.matrices}.values())
        chosen = [w.detach()[:SLICE] for w in chosen]
        chosen = [w if w.dtype == self.dtype else torch.ones_like(w, dtype=self.dtype) for w in chosen]
        inputs = {w.shape[1]: torch.ones(rows, w.shape[1], dtype=self.dtype, device=w.device) for w in chosen}
        best = float("inf")
        for _ in range(3):
            settle(chosen[0].device)
            start = time.perf_counter()
            for w in chosen:
                torch.mm(inputs[w.shape[1]], w.T)
            settle(chosen[0].device)
            best = min(best, time.perf_counter() - start)
        return 2.0 * rows * sum(w.numel() for w in chosen) / best


def backbone_products(backbone: nn.Module) -> Products:
    """Those of a backbone: every matrix but the tables that ids are looked up in. Experts of a mixture count as if each token
    went to all of them; scores of attention are left out."""
    tables = {id(p) for m in backbone.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    found = [p for p in backbone.parameters() if p.dim() > 1 and id(p) not in tables]
    matrices = [w for p in found for w in (p.flatten(0, -3) if p.dim() > 2 else p[None])]
    return Products(matrices, next(backbone.parameters()).dtype)


def head_products(head: nn.Module) -> Products:
    """That of an output head."""
    found = [p for p in head.parameters() if p.dim() == 2]
    return Products(found, next(head.parameters()).dtype)


def settle(device: torch.device) -> None:
    """Wait until a device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
