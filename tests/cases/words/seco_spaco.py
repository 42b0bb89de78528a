"""What the cases of SeCO and SpaCO call things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from policyopt.models.chunked import Selection, backward_by_chunks


class Chain:
    r"""A cache of one number a chunk, :math:`m_i = a x_i + b\sum_{j<i} m_j`, under the loss :math:`\frac1k\sum_i (m_i - y_i)^2/2`."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.x, self.y = (torch.tensor(given[name], dtype=torch.float64) for name in ("x", "y"))
        self.a, self.b = (
            torch.tensor(given["params"][name], dtype=torch.float64, requires_grad=True) for name in ("a", "b")
        )
        self.pieces = [slice(i, i + 1) for i in range(len(self.x))]
        m = torch.zeros(0, 1, dtype=torch.float64)
        with torch.no_grad():
            for piece in self.pieces:
                m = torch.cat([m, self(piece, [m])[0]])
        self.m = m

    def __call__(self, piece: slice, before: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        m = self.a * self.x[piece, None] + self.b * before[0].sum(0, keepdim=True)
        return m, [m]

    @property
    def loss(self) -> float:
        return float((self.m[:, 0] - self.y).square().mean() / 2)

    def gradient(self, selection: Selection) -> list[float]:
        by_m = (self.m - self.y[:, None]) / len(self.x)
        self.a.grad, self.b.grad = torch.zeros_like(self.a), torch.zeros_like(self.b)
        backward_by_chunks(self, self.pieces, [self.m], [by_m[piece] for piece in self.pieces], selection)
        return [float(self.a.grad), float(self.b.grad)]


def _other(given: Mapping[str, Any]) -> dict[str, Any]:
    chain = Chain(given)
    k, t, cap = (given["params"][name] for name in ("chunks", "budget", "factor_cap"))

    def drawn(chunks: Sequence[int], cap: float = float("inf")) -> list[float]:
        return chain.gradient(Selection(chunks, own=k / t, handed=min(k / t, cap)))

    weighed = [
        (torch.tensor([t / k if on else 1 - t / k for on in drawing]).double().prod(), torch.tensor(drawn([i for i in range(k) if drawing[i]])))
        for drawing in product((False, True), repeat=k)
    ]  # fmt: skip
    return {
        "m": chain.m[:, 0],
        "loss": chain.loss,
        "seco_grad": chain.gradient(Selection(range(k))),
        "spaco_factor": min(k / t, cap),
        "spaco_grad": drawn(given["selected"], cap),
        "mean_over_all_subsets_uncapped": torch.tensor([drawn(c) for c in combinations(range(k), t)]).mean(0),
        "mean_over_bernoulli_selection_uncapped": torch.stack([weight * g for weight, g in weighed]).sum(0),
    }


CASES = {"other": _other}
