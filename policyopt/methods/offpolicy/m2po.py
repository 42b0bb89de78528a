"""M2PO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Level, Positive, Unit, part
from policyopt.parts import Bounds, PPOClip, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class SecondMomentBounds(Bounds):
    r"""As wide as a budget for the second moment of the log-ratios allows, the same for all tokens of the mini-batch.

    .. math:: [\min(1-\epsilon_{low}, e^{-\tau}),\ \max(1+\epsilon_{high}, e^{\tau})],\qquad
              \tau = \max\Big(\tau : \frac{1}{n}\sum_{j\,:\,|d_j| \le \tau} d_j^2 + \frac{m}{n}\tau^2 < B\Big),\qquad d = \log r

    The n tokens that count are those that a bound could matter for (A > 0 and r > 1, A < 0 and r < 1), or ``all``; m of them
    lie beyond tau. ``capped`` counts these with tau, as the clip does; ``kept`` leaves them out, above and below the line (m =
    0, n the others): the largest are taken away until the mean of the rest is below B. Within the budget, as on-policy, there is no
    bound. ``low`` and ``high`` are the least distances. Sources: M2PO, arXiv:2510.01161, and the authors' code
    (Infini-AI-Lab/M2PO; harmful, capped, least 0.3 and 0.5); AReaL's ``m2_threshold`` (all, kept, least 0, two sides, the ratio of
    old to proximal). Our reading: tau stands halfway between the last token that stays and the first that goes; where already the
    smallest is above B, it alone stays.
    """

    budget: Positive = 0.04
    """B, in squared nats."""
    tokens: Literal["harmful", "all"] = "harmful"
    """Which tokens count."""
    beyond: Literal["capped", "kept"] = "capped"
    """How tokens beyond the bound count: with the bound, or not at all."""

    unit: ClassVar[Unit] = "batch"
    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        tau = self.threshold(log_ratio, batch)
        return (-tau).exp().clamp(max=1 - low), tau.exp().clamp(min=1 + high)

    def threshold(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        """tau, a number; infinite where the budget holds as it is."""
        counts = batch.mask.bool()
        if self.tokens == "harmful":
            counts = counts & (batch.advantage * log_ratio > 0)
        # What does not count stands behind all that does, and an endless square stops nothing.
        rising = torch.where(counts, log_ratio**2, math.inf).flatten().sort().values
        n = counts.sum()
        place = torch.arange(1, len(rising) + 1, device=rising.device)
        there = torch.where(place <= n, rising, 0.0)
        total = there.cumsum(0)
        capped = total + there * (n - place), self.budget * n
        square, allowed = capped if self.beyond == "capped" else (total, self.budget * place)
        stay = ((square < allowed) & (place <= n)).sum().clamp(min=1)  # both means grow with the place
        ends = torch.nn.functional.pad(rising, (0, 1), value=math.inf)
        last, first = ends[stay - 1].sqrt(), ends[stay.clamp(max=len(rising))].sqrt()
        return torch.where(stay >= n, math.inf, (last + first) / 2)

    def metrics(self, low: Tensor, high: Tensor, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"bounds/low": low.clamp(min=0), "bounds/high": high.clamp(max=math.exp(20))}


@method(
    parent=grpo,
    arxiv="2510.01161",
    code="Infini-AI-Lab/M2PO",
    confidence="code",
    claim=Claim(
        "On data that are many updates old only the outliers among ratios have to be clipped: stable, and as good as on-policy.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def m2po(
    budget: float = 0.04,
    low: float = 0.3,
    high: float = 0.5,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Second-Moment Trust Policy Optimization: clip no more tokens than it takes to hold the second moment of the log-ratios.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, \min(1-\epsilon_l, e^{-\tau}), \max(1+\epsilon_h, e^{\tau}))A_i)

    tau is the largest bound on \|log r\| under which the mean square of the log-ratios, those beyond it counted as tau, stays below
    ``budget``; only tokens count whose ratio has moved the way that their advantage pushes. A fixed bound silences much of a
    batch that is old, the decisive tokens first; the second moment sees outliers alone, and unlike a mean of log-ratios it does not let
    opposite ones cancel. ``low`` and ``high`` are how narrow the bounds may get. No KL. Defaults from the authors' code and script. Our
    reading: tau is taken over the mini-batch (there over each micro-batch).
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        surrogate=PPOClip(low=low, high=high, bounds=SecondMomentBounds(budget=budget)),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
