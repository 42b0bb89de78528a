"""Decoupled PPO, as AReaL has it."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, Ratio, Weight, part
from policyopt.parts import Rejection, SamplerMismatch, TokenMean, TokenRatio
from policyopt.parts.weight.mismatch import Mode
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class InterpolatedRatio(Ratio):
    r"""A ratio to, or of, a proximal policy that is guessed and not computed.

    .. math:: \log\pi_{prox} = \log\pi_{old} + \alpha_i\,sg\big[\log\pi_\theta - \log\pi_{old}\big],\qquad \alpha_i = \frac{g_i}{g_i + u}

    g_i is how many updates the row was old when training on the batch began (``batch.lag``), u how many the batch itself makes:
    a straight line in logarithms from the policy that wrote to the policy that is trained. Fresh rows have the old policy.
    Source: AReaL (``prox_logp_method: loglinear``), where g and u = 1 are counted in batches.
    """

    of: Literal["policy", "proximal"] = "policy"
    """Policy over proximal, or proximal over old."""
    ahead: Count = 1
    """u."""

    needs: ClassVar[frozenset[str]] = frozenset({"lag"})

    def __call__(self, batch: Batch) -> Tensor:
        moved = batch.logp - batch.old_logp
        lag = batch.lag.clamp(min=0).to(moved)[:, None]
        guess = lag / (lag + self.ahead) * moved.detach()  # of the logarithm of proximal over old
        return moved - guess if self.of == "policy" else guess


@method(
    parent=grpo,
    arxiv="2505.24298",
    code="inclusionAI/AReaL",
    confidence="code",
    claim=Claim(
        "Clipped around a recent policy and weighed for the one that sampled, PPO bears old data: as good as on fresh ones.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def decoupled_ppo(
    low: float | None = 0.2,
    high: float | None = 0.2,
    proximal: Literal["recomputed", "interpolated"] = "recomputed",
    mode: Mode = "token_mask",
    weight_low: float | None = None,
    weight_high: float | None = 5.0,
    reject: Literal["none", "k1", "k2", "k3"] = "none",
    reject_over: Literal["token", "sum", "mean", "max"] = "mean",
    reject_above: float = 0.1,
    epochs: int = 1,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Two policies in the place of the old one: PPO's clip is around a recent one, and a weight corrects for the one that sampled.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t} w_{i,t}\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t})A_i),\qquad
              r = \frac{\pi_\theta}{\pi_{prox}},\qquad w = \frac{\pi_{prox}}{\pi_{old}}

    prox is the policy just before its first update on the batch (one forward pass more), or with "interpolated" a guess that
    costs nothing. However old the rows are, training starts inside the clip, and the step is small in what it changes, not in
    how far it is from the rows. w is held by ``mode`` as in ``tis``: here masked above 5. ``reject`` masks tokens or
    responses by an estimate of KL(old || prox) above ``reject_above`` nats, all without effect on fresh rows. Sources: Hilton et al.,
    arXiv:2110.00641; AReaL, arXiv:2505.24298, and its code, whose cap of 5 and mask were its defaults until it took
    ``rejection_sampling`` (without it the code of today leaves w out). Its weight of a whole sequence is the geometric mean, here a product. No KL,
    no critic. Our reading: GRPO's advantage, four mini-batches.
    """
    guessed, updates = proximal == "interpolated", epochs * minibatches
    ratio = InterpolatedRatio(ahead=updates) if guessed else TokenRatio(to="proximal")
    behind = InterpolatedRatio(of="proximal", ahead=updates) if guessed else TokenRatio(of="proximal", to="old")
    weight: tuple[Weight, ...] = (SamplerMismatch(mode=mode, low=weight_low, high=weight_high, ratio=behind),)
    if reject != "none":
        weight += (Rejection(estimator=reject, over=reject_over, high=reject_above, ratio=behind),)
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        ratio=ratio,
        weight=weight,
        aggregate=TokenMean(),
        update=Update(epochs=epochs, minibatches=minibatches),
    )
