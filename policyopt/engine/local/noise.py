"""How much the gradients of parts of a mini-batch differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from policyopt.engine.plan import UpdateReport
from policyopt.models.likelihood import Weigh
from policyopt.rows import Batch

PARTS = 4
"""So many parts of a mini-batch, of as many rows in their order, are looked at; fewer rows are as many parts."""

Learn = Callable[[Batch, Weigh], None]


def signal_and_noise(squares: Iterable[float], whole: float) -> tuple[float, float]:
    r"""Squared length of the true gradient and variance of the mean one, from the squared lengths of n gradients
    :math:`g_k` and of their mean :math:`\bar g` (``whole``); NaN for one.

    .. math:: \hat\sigma^2 = \frac{1}{n(n-1)}\sum_k\|g_k - \bar g\|^2 = \frac{\frac1n\sum_k\|g_k\|^2 - \|\bar g\|^2}{n-1},\qquad
              \widehat{\|\nabla J\|^2} = \|\bar g\|^2 - \hat\sigma^2

    Both are without bias; the first may be below 0. Source: OBLR-PO, arXiv:2511.23310, derived from its abstract.
    """
    each = list(squares)
    if len(each) < 2:
        return torch.nan, torch.nan
    noise = max(sum(each) / len(each) - whole, 0.0) / (len(each) - 1)
    return whole - noise, noise


def measured(
    parameters: Iterable[nn.Parameter], batch: Batch, pieces: Callable[[Batch], Iterator[Tensor]], learn: Learn,
    carry_out: Callable[..., UpdateReport],
) -> UpdateReport:  # fmt: skip
    """Carry out an update's plan part by part of the batch, and let the report say how much their gradients differ.

    A part of n of N rows counts N/n times: so its gradient is one of the same objective where shares are even. One more
    gradient is held while it lasts.
    """
    trained = [p for p in parameters if p.requires_grad]
    rows = torch.arange(len(batch), device=batch.mask.device).chunk(min(PARTS, len(batch)))
    parts = [[part[numbers] for numbers in pieces(batch[part])] for part in rows]
    ends = {sum(map(len, parts[: k + 1])): len(batch) / len(part) for k, part in enumerate(rows)}
    squares, passed, total = list[float](), 0, list[Tensor | None]([None] * len(trained))

    def counted(piece: Batch, weigh: Weigh) -> None:
        nonlocal passed
        learn(piece, weigh)
        passed += 1
        if passed not in ends:
            return
        squares.append(ends[passed] ** 2 * _square(p.grad for p in trained))
        for i, p in enumerate(trained):
            before = total[i]
            total[i] = p.grad if before is None or p.grad is None else before.add_(p.grad)
            total[i] = before if p.grad is None else total[i]
            p.grad = None

    report = carry_out([numbers for part in parts for numbers in part], learn=counted)
    for p, gradient in zip(trained, total, strict=True):
        p.grad = gradient
    report.noise = signal_and_noise(squares, _square(total))
    return report


def _square(gradients: Iterable[Tensor | None]) -> float:
    found = [g.detach().double().square().sum() for g in gradients if g is not None]
    return float(torch.stack(found).sum()) if found else 0.0
