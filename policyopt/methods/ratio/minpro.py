"""MinPRO."""

from __future__ import annotations

from policyopt.methods.clip.cispo import cispo
from policyopt.parts import PrefixMinRatio
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=cispo, arxiv="2601.22718", confidence="secondary")
def minpro(low: float | None = None, high: float | None = 0.28, epochs: int = 1, group_size: int = 8) -> Recipe:
    r"""CISPO with the smallest ratio of the prefix in its weights: one token that has drifted damps all after it.

    .. math:: w_{i,t} = sg\Big[\mathrm{clip}\Big(r_{i,t}\min_{j<t} r_{i,j},\, 1-\epsilon_l,\, 1+\epsilon_h\Big)\Big],\qquad
              L = -\frac{1}{\sum_i|y_i|}\sum_{i,t} w_{i,t} A_i \log\pi_\theta(y_{i,t})

    The exact correction at a token is the product of all ratios up to it, which is unusable; the minimum (1 for the
    first token) stands for the ratios before it. For data that is several updates old. A small ``low`` would undo the
    damping, so there is no lower bound by default; the paper's bounds are not known to us.
    """
    return cispo(low, high, epochs=epochs, group_size=group_size).replace(ratio=PrefixMinRatio())
