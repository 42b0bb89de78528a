"""BAPO."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import NonNegative, Positive, Unit, part
from policyopt.parts import Bounds, PPOClip, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch, masked


@part
class BalancedBounds(Bounds):
    r"""Bounds widened, batch by batch, until tokens with positive advantage supply a target share of the signal.

    The search starts at :math:`[1-\epsilon_{low}, 1+\epsilon_{high}]`. Order ``paper``: the upper bound rises by
    ``high_step`` to ``high_max``, then the lower one by ``low_step`` to ``low_max``. Order ``code``: the lower one
    first, and the last step is cut to the limit. It stops at the first pair with :math:`\rho \ge target`, else at
    the last. With sums over tokens of either sign of advantage, :math:`\rho` is

    - ``gradient-share``: :math:`S_+/(S_+ + S_-)` of :math:`r|A|` over the tokens inside the bounds;
    - ``value-share``: the same of :math:`\min(r, hi)|A|` and :math:`\max(r, lo)|A|` over all tokens;
    - ``value-ratio``: :math:`S_+/S_-` of these.

    Without negative tokens the target is met; without any signal nothing moves. Source: BAPO, arXiv:2510.18927,
    algorithm 1, and the authors' code (WooooDyy/BAPO), which disagree; eq. 8 also multiplies each token by its
    probability. Our reading: ``gradient-share``, since raising a lower bound adds to the negative value sums.
    """

    target: NonNegative = 0.4
    """Wanted rho."""
    search: Literal["paper", "code"] = "paper"
    """Which bound moves first."""
    measure: Literal["gradient-share", "value-share", "value-ratio"] = "gradient-share"
    """What rho is."""
    low_max: Positive = 0.9
    """Largest lower bound, as a ratio."""
    high_max: Positive = 3.0
    """Largest upper bound, as a ratio."""
    low_step: Positive = 0.02
    """Step of the lower bound."""
    high_step: Positive = 0.05
    """Step of the upper bound."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        lower, upper = 1 - low, 1 + high
        for lower, upper in self.pairs(1 - low, 1 + high):
            if self.rho(log_ratio, batch, lower, upper) >= self.target:
                break
        return log_ratio.new_tensor(lower), log_ratio.new_tensor(upper)

    def metrics(self, low: Tensor, high: Tensor, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        found = self.rho(log_ratio, batch, float(low), float(high))
        return {"bounds/low": low.clamp(min=0), "bounds/high": high, "bounds/rho": log_ratio.new_tensor(found)}

    def pairs(self, lower: float, upper: float) -> Iterator[tuple[float, float]]:
        """The bounds in the order in which they are tried."""
        cut = self.search == "code"
        lows = steps(lower, self.low_max, self.low_step, cut)
        highs = steps(upper, self.high_max, self.high_step, cut)
        if cut:
            yield from ((x, upper) for x in lows)
            yield from ((lows[-1], x) for x in highs[1:])
        else:  # algorithm 1 ends where the lower bound cannot move, even before the upper one has
            yield from ((lower, x) for x in (highs if len(lows) > 1 else highs[:1]))
            yield from ((x, highs[-1]) for x in lows[1:])

    def rho(self, log_ratio: Tensor, batch: Batch, lower: float, upper: float) -> float:
        """The share (or ratio) of the positive signal under a pair of bounds."""
        ratio, advantage = masked(log_ratio.exp(), batch.mask), masked(batch.advantage, batch.mask)
        good = advantage > 0
        if self.measure == "gradient-share":
            counted = torch.where(torch.where(good, ratio > upper, ratio < lower), 0.0, ratio)
        else:
            counted = torch.where(good, ratio.clamp(max=upper), ratio.clamp(min=lower))
        signal = (counted * advantage).double()
        plus, minus = float(signal.clamp(min=0).sum()), float((-signal).clamp(min=0).sum())
        if self.measure == "value-ratio":
            return plus / minus if minus else math.inf
        return plus / (plus + minus) if minus else 1.0


def steps(start: float, limit: float, step: float, cut: bool) -> list[float]:
    """``start``, ``start + step``, ... up to ``limit``; ``cut`` ends with ``limit`` itself."""
    count = math.floor((limit - start) / step + 1e-9) if math.isfinite(start) else 0
    values = [start + k * step for k in range(max(0, count) + 1)]
    return [*values, limit] if cut and values[-1] < limit - 1e-9 and math.isfinite(start) else values


@method(
    parent=grpo,
    arxiv="2510.18927",
    code="WooooDyy/BAPO",
    confidence="code",
    claim=Claim(
        "On stale batches, bounds that balance good and bad tokens keep the policy learning, and exploring.",
        "stale",
        (Effect("accuracy", "higher", 0.02), Effect("entropy", "higher", 0.02)),
        theirs={"kl-coef": 0.0},
    ),
)
def bapo(
    target: float = 0.4,
    search: Literal["paper", "code"] = "paper",
    measure: Literal["gradient-share", "value-share", "value-ratio"] = "gradient-share",
    low_start: float = 0.6,
    low_max: float = 0.9,
    low_step: float = 0.02,
    high_start: float = 1.2,
    high_max: float = 3.0,
    high_step: float = 0.05,
    dual_clip: float | None = None,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Balanced Policy Optimization: for every update, the bounds at which good tokens supply a target share of the
    signal.

    .. math:: \rho(lo, hi) = \frac{\sum_{A>0,\,r\le hi} rA}{\sum_{A>0,\,r\le hi} rA + \sum_{A<0,\,r\ge lo} r|A|} \ge \rho_0,\qquad
              L = \frac1{\sum_i|y_i|}\sum_{i,t}\max(-rA, -\mathrm{clip}(r, lo, hi)A)

    With stale data, bad tokens rule the update, and a fixed clip removes the rare good ones. The bounds are ratios;
    they start at ``low_start`` and ``high_start`` and move by steps up to ``low_max`` and ``high_max``, the upper one
    first (``search="paper"``, algorithm 1) or the lower one (``"code"``). Where the target is met at the start this is
    GRPO with asymmetric bounds. No KL. Defaults: the paper's; the authors' recipe has ``search="code"``,
    ``measure="value-ratio"``, target 1 and ``dual_clip`` 3. Our reading: the share of the gradient, which fits the
    stated purpose; raising a lower bound adds to the value sums of bad tokens.
    """
    bounds = BalancedBounds(
        target=target, search=search, measure=measure, low_max=low_max, high_max=high_max,
        low_step=low_step, high_step=high_step,
    )  # fmt: skip
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        surrogate=PPOClip(low=round(1 - low_start, 12), high=round(high_start - 1, 12), bounds=bounds, dual=dual_clip),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
