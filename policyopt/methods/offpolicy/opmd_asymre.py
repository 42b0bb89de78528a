"""The REC and RED family, with OPMD and AsymRE."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Positive, Regularizer, Weight, part
from policyopt.parts import (
    ClipMask,
    Likelihood,
    Normalise,
    Proximal,
    SeqMeanTokenMean,
    SequenceRatio,
    TokenMean,
    TokenRatio,
    TruncatedRatio,
)
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class AdvantageWeight(Weight):
    r"""More of what is good: :math:`w_{i,t} = e^{A_{i,t}/T}`. Source: RED-Weight, arXiv:2509.24203."""

    temperature: Positive = 1.0
    """T; without bound there is no weighting."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return (batch.advantage / self.temperature).exp()


@method(
    parent=reinforce,
    arxiv="2509.24203",
    code="modelscope/Trinity-RFT",
    confidence="code",
    claim=Claim(
        "Group-relative REINFORCE is off-policy as it is: with a mask it does as well without importance weights.",
        "stale",
        (Effect("accuracy", "higher", -0.01), Effect("drop", "lower", -0.01)),
        against="grpo",
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def opmd_asymre(
    clip_mode: Literal["none", "one-side", "two-side", "ring"] = "one-side",
    low: float | None = 0.2,
    high: float | None = 0.2,
    ring_low: float = 0.6,
    ring_high: float = 2.0,
    weight: Literal["none", "is", "sequence-is", "advantage"] = "none",
    temp: float = 1.0,
    regularizer: Literal["none", "k2", "forward-kl"] = "none",
    reg_coef: float = 0.1,
    std_normalize: bool = False,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Group-relative REINFORCE as an off-policy method: mask, weight and regulariser are independent switches.

    .. math:: L = \mathrm{mean}_{tok}\big(-w_{i,t}\,K_{i,t}\,A_i\log\pi_\theta(y_{i,t}) + reg_{i,t}\big),\qquad A_i = R_i - \mathrm{mean}

    K masks by the ratio r (``clip_mode``): one-side as PPO does, two-side all that is outside the bounds, ring lets back in
    what the update pulls back. w is 1, r (``is``), or :math:`e^{A/T}` (``advantage``, RED-Weight). reg is
    :math:`c(\log r)^2` (``k2``, OPMD, as in Kimi k1.5) or :math:`-c\log\pi` (``forward-kl``, AsymRE: a baseline lower by c). With
    ``sequence-is`` K and w take the geometric mean over the response, and every response weighs the same. one-side with
    ``is`` has the gradient of PPO's clip; none of all is REINFORCE with the mean of the group. Defaults from the
    authors' code; REC-OneSide-NoIS is their recommendation. RED-Drop (fewer bad responses) is not here.
    """
    weights: list[Weight] = []
    if clip_mode != "none":
        sides: dict[str, Literal["one", "two", "ring"]] = {"one-side": "one", "two-side": "two", "ring": "ring"}
        weights += [ClipMask(low=low, high=high, sides=sides[clip_mode], ring_low=ring_low, ring_high=ring_high)]
    if weight in ("is", "sequence-is"):
        weights += [TruncatedRatio(low=None, high=None)]
    if weight == "advantage":
        weights += [AdvantageWeight(temperature=temp)]
    terms: dict[str, Regularizer] = {
        "k2": Proximal(coef=2 * reg_coef, deviation="k2"),  # 2 c k2 is c times the square
        "forward-kl": Likelihood(coef=reg_coef, rows=None),
    }
    whole = weight == "sequence-is"
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="group" if std_normalize else "none"),
        ratio=SequenceRatio() if whole else TokenRatio(),
        weight=tuple(weights),
        regularizers=(terms[regularizer],) if regularizer in terms else (),
        aggregate=SeqMeanTokenMean() if whole else TokenMean(),
        update=Update(minibatches=minibatches),
    )
