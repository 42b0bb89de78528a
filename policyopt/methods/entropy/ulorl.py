"""UloRL."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.clip.dapo import dapo
from policyopt.part import Finite, Fraction, NonNegative, Unit, part
from policyopt.parts import Correctness, SelectedWeight, Selector, TokenRatio, TruncatedReward
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean
from policyopt.sources.draw import Windows


@part
class Mastered(Selector):
    r"""Tokens of right answers that the policy is sure of, in responses with little entropy.

    .. math:: R_i \ge 1 \;\wedge\; \pi_\theta(y_{i,t}) \ge \tau \;\wedge\; \tfrac{1}{|y_i|}\textstyle\sum_t H_{i,t} < \sigma

    H is the entropy of the distributions that the response was drawn from. Source: UloRL, arXiv:2507.19766, section
    3.3. Our reading: the entropy is the response's own, as in the formula, not the batch's; its printed form lacks a
    minus sign.
    """

    tau: Fraction = 0.99
    """From which probability on a token counts as mastered."""
    sigma: Finite = 0.2
    """Mean entropy in nats below which mastered tokens are picked; 0 or less picks none."""
    reward: NonNegative = 1.0
    """From which reward on an answer counts as right."""

    unit: ClassVar[Unit] = "row"
    asks: ClassVar[frozenset[str]] = frozenset({"sampling entropy"})

    def __call__(self, batch: Batch) -> Tensor:
        calm = masked_mean(batch.sampled_entropy, batch.mask, dim=-1) < self.sigma
        right = batch.reward >= self.reward
        return batch.mask.bool() & (calm & right)[:, None] & (batch.logp.detach().exp() >= self.tau)


@method(
    parent=dapo,
    arxiv="2507.19766",
    code="liushulinle/ULORL",
    confidence="paper",
    claim=Claim(
        "Mastered tokens of right answers rest while the entropy is low: it does not collapse, and as much is learned.",
        "chain_sum",
        (Effect("entropy", "higher", 0.02), Effect("accuracy", "higher", -0.02)),
        ours={"temperature": 1.0},
    ),
)
def ulorl(
    tau: float = 0.99,
    entropy_target: float = 0.2,
    low: float | None = 0.2,
    high: float | None = 0.2,
    importance: Literal["pois", "sais"] = "pois",
    temperature: float = 0.85,
    rounds: int = 10,
    windows: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""DAPO that stops teaching what is known: no gradient on sure tokens of right answers with little entropy.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}(1-I_{i,t})\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t})A_i),\qquad
              I_{i,t} = 1\big[R_i = 1 \wedge \pi_\theta(y_{i,t}) \ge \tau \wedge \bar H_i < \sigma\big]

    H-bar_i is the mean entropy of response i, sigma = ``entropy_target``: below it mastered tokens rest, above it they
    train, which holds entropy near sigma. Silent tokens stay in the divisor. The denominator of the ratio is the
    policy just before the update (``pois``: then it is 1 and nothing is clipped), or the one that wrote the token
    (``sais``). With ``windows`` (segments; 8 in the paper, for outputs of 128k tokens) a response is written over as many
    steps; with one they are the same. Reward 1 or 0, 0 where truncated; prompts as in DAPO;
    no KL. Defaults: sections 3 and 4 of the paper. Our reading: the entropy that decides is the response's own.
    """
    return dapo(low, high).replace(
        source=Windows(size=group_size, temperature=temperature, rounds=rounds, windows=windows, whole=True),
        shape=(Correctness(right=1.0, wrong=0.0), TruncatedReward(reward=0.0)),
        ratio=TokenRatio(to="proximal") if importance == "pois" else TokenRatio(),
        weight=(SelectedWeight(Mastered(tau, entropy_target), inside=0.0, outside=1.0),),
    )
