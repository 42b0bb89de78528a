"""BCO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.control import MovingAverage
from policyopt.methods.preference.dpo import dpo
from policyopt.parts import BinaryLogistic
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=dpo,
    arxiv="2404.04656",
    confidence="secondary",
    claim=Claim(
        "A classifier of good and bad texts needs no pairs to learn what DPO learns from them: as many held-out ones come to be in order.",
        "pairs",
        (Effect("pairs/accuracy", "higher", -0.02),),
        both={"steps": 10},
    ),
)
def bco(beta: float = 0.1, momentum: float | None = 0.9) -> Recipe:
    r"""Binary Classifier Optimization: good and bad texts are told apart by a classifier whose logit is the implicit reward.

    .. math:: L = -\mathrm{mean}_{pairs}\Big[\log\sigma\big(\beta(h_w - \delta)\big) + \log\sigma\big(-\beta(h_l - \delta)\big)\Big],\qquad
              h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}

    Its loss is an upper bound of DPO's; delta, the mean of h over texts, brings it near. It is the moving average of earlier steps with
    ``momentum``, which begins at 0 (nats); ``None`` keeps it at 0, as TRL 1.16 does (``bco_pair``). beta as in DPO. Source: arXiv:2404.04656.
    Our reading: the form for pairs, and the momentum.
    """
    field, metric = "surrogate.link.shift", "kl/ref_response"  # the mean h of all rows: half of either side
    moved = () if momentum is None else (MovingAverage(field=field, metric=metric, momentum=momentum),)
    return dpo().set("surrogate.link", BinaryLogistic(beta=beta)).replace(controllers=moved)
