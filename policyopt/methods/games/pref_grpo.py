"""Pref-GRPO."""

from __future__ import annotations

from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Positive, Wrapper, part
from policyopt.parts import Decoupled, Normalise, WinRate
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class Held(Wrapper, Advantage):
    r"""Another advantage, held between two bounds: :math:`\mathrm{clip}(A_{i,t}, -c, c)`.

    Source: Pref-GRPO, arXiv:2508.20751 (CodeGoat24/Pref-GRPO, ``adv_clip_max``).
    """

    inner: Advantage = Normalise()
    """The advantage."""
    most: Positive = 5.0
    """c."""

    def __call__(self, batch: Batch) -> Tensor:
        return self.inner(batch).clamp(-self.most, self.most)


@method(
    parent=grpo,
    arxiv="2508.20751",
    code="CodeGoat24/Pref-GRPO",
    confidence="code",
    claim=Claim(
        "Scores that hardly differ within a group make large advantages out of nothing, which a policy learns to please; win rates do "
        "not.",
        beyond="it was shown on reward models of pictures, whose small differences are noise; no judge of these testbeds has such noise",
    ),
)
def pref_grpo(
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    most: float = 5.0,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO on win rates: the reward of a response is the share of its group that it wins against, pair by pair.

    .. math:: R_i = \frac{1}{G-1}\sum_{j\ne i} \mathrm{win}_{ij},\qquad A_i = \mathrm{clip}\Big(\frac{R_i - \mathrm{mean}}{\mathrm{std} + 10^{-8}}, \pm c\Big)

    win is 1, 0 or 1/2 for a tie, by a judge that compares (``docs/judges.md``); with any other one the higher score wins. Win rates lie
    evenly between 0 and 1 where the order is clear, so their spread is never tiny. Several rewards are each normalised, then mixed:
    ``--recipe.advantage.inner.weights`` with "reward" for the win rate and the names of other judges. c = ``most``.

    Source: arXiv:2508.20751 and its code, whose clip range is 1e-4 for the steps of a flow model. Our reading: GRPO's
    clip of 0.2 for tokens; pairs are compared in both orders, where the code asks once; win rates are not rounded to three digits.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        shape=(WinRate(votes=True),),
        advantage=Held(inner=Decoupled(inner=Normalise(eps=1e-8), weights=(("reward", 1.0),), whiten=False), most=most),
    )
