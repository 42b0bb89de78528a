"""Robust DPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=dpo,
    arxiv="2403.00409",
    confidence="paper",
    claim=Claim(
        "Three labels in ten turned around hold DPO at the margin that such labels deserve; the unbiased loss learns what clean ones would "
        "teach, and more answers are right.",
        "noisy-pairs",
        (Effect("accuracy", "higher", 0.1), Effect("pairs/accuracy", "higher", 0.01)),
        both={"steps": 40, "beta": 3.0},
        ours={"epsilon": 0.3},
    ),
)
def rdpo(epsilon: float = 0.1, beta: float = 0.1) -> Recipe:
    r"""Robust DPO: an unbiased estimate of DPO's loss from labels of which a known share is flipped.

    .. math:: L = \mathrm{mean}_{pairs}\frac{-(1-\epsilon)\log\sigma(z) + \epsilon\log\sigma(-z)}{1-2\epsilon},\qquad z = \beta(h_w - h_l)

    Its mean over flipped labels is :math:`-\log\sigma(z)` of the right ones. epsilon 0 is DPO, and 1/2 has nothing to learn from. The
    pull never stops, :math:`|\partial L/\partial z| \ge \epsilon/(1-2\epsilon)`, where that of label smoothing does; the loss has no lower bound.
    The paper takes epsilon as known. It runs beta 0.01 (as TRL lists its appendix); beta 0.1 is DPO's.
    """
    return dpo(beta=beta, label_smoothing=epsilon, robust=True)
