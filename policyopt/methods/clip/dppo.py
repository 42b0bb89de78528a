"""DPPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.part import Level, part
from policyopt.parts import Bounds, ClipMask, LogProb, Proximal, TruncatedRatio
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import BOUND, Batch

HALVINGS = 40
"""Of an interval of 20 nats: what is left is below float32."""


@part
class DivergenceBounds(Bounds):
    r"""The ratios at which the policy is a given divergence away from the old one, where the sampled token is one outcome and all
    other tokens together are the other.

    .. math:: TV = |\pi_\theta - q|,\qquad KL = q\log\frac{q}{\pi_\theta} + (1 - q)\log\frac{1 - q}{1 - \pi_\theta},\qquad q = \pi_{old}(y_{i,t})

    The distances are divergences (KL in nats), no distances of ratios: of tv the bounds are :math:`1 \pm \epsilon/q`; of kl there is
    one on each side of 1, found by bisection. Rare tokens may move far, and likely ones only a little. Source: DPPO,
    arXiv:2602.04879 (binary), and the authors' code in verl (``dppo_tv``, ``dppo_kl``), which asks for the divergence
    instead of the bound.
    """

    divergence: Literal["tv", "kl"] = "tv"
    """Total variation, or KL(old || policy)."""

    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        q = batch.old_logp.exp()
        if self.divergence == "tv":
            return 1 - low / q, 1 + high / q
        return self._reached(low, q, -1.0), self._reached(high, q, 1.0)

    def _reached(self, limit: float, q: Tensor, side: float) -> Tensor:
        """The ratio on one side of 1 at which the KL is ``limit``, to the outer end of the interval where it never is."""
        inside, outside = torch.zeros_like(q), torch.full_like(q, side * BOUND)
        if math.isinf(limit):
            return outside.exp() if side > 0 else torch.zeros_like(q)
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            near = binary_kl(q, middle) <= limit
            inside, outside = torch.where(near, middle, inside), torch.where(near, outside, middle)
        return inside.exp()

    def metrics(self, low: Tensor, high: Tensor, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        q = batch.old_logp.exp()
        found = q * torch.expm1(log_ratio).abs() if self.divergence == "tv" else binary_kl(q, log_ratio)
        return {"divergence/binary": found}


def binary_kl(q: Tensor, log_ratio: Tensor) -> Tensor:
    r"""KL of Bernoulli distributions in nats, old || new, from the probability q of the token and the log-ratio of new to old,
    [N, T]; infinite where the new probability would be 1 or more."""
    rest = 1 - q * log_ratio.exp()
    change = torch.where(rest > 0, ((1 - q) / rest.clamp(min=1e-30)).clamp(min=1e-30).log(), math.inf)
    return -q * log_ratio + torch.where(q < 1, (1 - q) * change, torch.where(log_ratio > 0, math.inf, 0.0))


@method(
    parent=dr_grpo,
    arxiv="2602.04879",
    code="sail-sg/Stable-RL",
    confidence="code",
    claim=Claim(
        "Bounds on the divergence, not on the ratio, spare rare tokens and hold likely ones: training is more stable, and more is "
        "learned.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        against="grpo",
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def dppo(
    divergence: Literal["tv", "kl"] = "tv",
    low: float | None = 0.15,
    high: float | None = 0.15,
    sides: Literal["one", "two"] = "one",
    cap: float | None = None,
    drift_coef: float = 0.0,
    minibatches: int = 8,
    group_size: int = 8,
) -> Recipe:
    r"""Divergence Proximal Policy Optimization: a token is silent once its probability has moved too far, whatever its ratio.

    .. math:: L = \frac{1}{N L_{max}}\sum_{i,t}\big(-M_{i,t}\,sg[\min(r_{i,t}, c)]\,A_i\log\pi_\theta(y_{i,t}) + \lambda(\log r_{i,t})^2\big),\qquad
              M = 0\ \text{where}\ A > 0,\ \pi_\theta > q,\ D > \epsilon_h\ \text{or}\ A < 0,\ \pi_\theta < q,\ D > \epsilon_l

    q is the probability under the policy that sampled, D the total variation (``tv``) or KL (``kl``) of the two distributions
    "this token, any other". A token of probability 0.001 may become 100 times as likely, one of 0.9 may not lose a fifth. A_i
    is the reward minus the mean of the group. Defaults of the authors' script: 0.15 for tv; take ``low`` and ``high`` 0.05 for
    kl; c = ``cap`` is 10,000 there, which is None here (20 in the paper's section 5.4, unset 3 in verl); eight mini-batches.

    With ``sides`` "two" every token that is too far away is silent, also one that the update would bring back, and lambda =
    ``drift_coef`` holds the log-ratio on all tokens. prime-rl's default loss is ``low`` 0.2, ``high`` 0.2, ``drift_coef`` 0.001 over a
    token mean, and its ``ipo`` loss the same with two sides and 0.1 (no relation to the method ``ipo``).
    """
    return dr_grpo(None, None, group_size=group_size).replace(
        surrogate=LogProb(),
        weight=(
            TruncatedRatio(low=None, high=None if cap is None else cap - 1),
            ClipMask(low=low, high=high, bounds=DivergenceBounds(divergence=divergence), sides=sides),
        ),
        regularizers=(Proximal(coef=2 * drift_coef, deviation="k2"),) if drift_coef else (),
        update=Update(minibatches=minibatches),
    )
