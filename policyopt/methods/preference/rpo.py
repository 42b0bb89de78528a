"""RPO."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.parts import Likelihood, Side
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=dpo,
    arxiv="2405.16436",
    code="YSLIU627/Regularized-Preference-Optimization",
    confidence="code",
    claim=Claim(
        "Beside its own likelihood the preferred text does not become unlikely, as it does under DPO, and as many pairs come to be in order.",
        "pairs",
        (Effect("loglik/chosen", "higher", 0.05), Effect("pairs/accuracy", "higher", -0.02)),
        both={"steps": 20, "optim.lr": 2e-3},
    ),
)
def rpo(beta: float = 0.1, eta: float = 0.2, sft: Literal["mean", "sum"] = "mean") -> Recipe:
    r"""Regularized Preference Optimization: DPO with the likelihood of the preferred text, which a pessimist's reward comes
    down to.

    .. math:: L = -\mathrm{mean}_{pairs}\Big[\log\sigma(z) + \frac{\eta}{|y_w|}\sum_t\log\pi_\theta(y_{w,t})\Big]\quad\text{or}\quad
              -\mathrm{mean}_{pairs}\Big[\log\sigma(z) + \eta\beta\sum_t\log\pi_\theta(y_{w,t})\Big]

    z is DPO's. The best policy against the worst reward that the pairs allow is that of DPO with a pull to a baseline, here
    the preferred text. The authors recommend the mean (eta 0.2, beta 0.5, learning rate 5e-7) and have the sum for chat (eta 0.005,
    beta 0.01 or 0.05). TRL's mixture of ``sigmoid`` and ``sft`` is neither: a mean over the tokens of the batch.
    """
    likelihood = (
        Likelihood(coef=eta, rows=Side(), mean="response")
        if sft == "mean"
        else Likelihood(coef=eta * beta, rows=Side(), mean="prompt")
    )
    return dpo(beta=beta).replace(regularizers=(likelihood,))
