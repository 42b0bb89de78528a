"""Online DPO."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.parts import BestWorst, Hinge, Link, Logistic, Pairs, SquareTo, TruncatedReward
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Group

Loss = Literal["sigmoid", "square", "hinge"]


@method(
    parent=dpo,
    arxiv="2402.04792",
    confidence="secondary",
    claim=Claim(
        "Pairs that the policy writes itself and a judge compares teach more than the same losses on pairs of others, which age.",
        "pairs",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
    ),
)
def online_dpo(
    beta: float = 0.1, loss: Loss = "sigmoid", missing_eos_penalty: float | None = None, group_size: int = 2
) -> Recipe:
    r"""Online DPO: two responses of the policy as it is, a judge that says which is better, and a step of DPO on this pair.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma(z),\qquad z = \beta(h_w - h_l),\quad h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_t)

    With ``loss`` "square" that of IPO, :math:`(h_w - h_l - 1/(2\beta))^2`, with "hinge" that of SLiC, :math:`\max(0, 1-z)`. Of more than
    two responses the best and the worst are the pair; the others have no gradient. A judge that compares (``docs/judges.md``) is
    asked in both orders, so that a liking for the first place cancels; one that scores prefers the higher score, from which
    ``missing_eos_penalty`` is taken where a response has no end. Samples are constants: the gradient is that of the pair alone, and
    of two on-policy responses it is RLOO's with the weight :math:`\beta\sigma(-z)` in the place of the difference of rewards.

    Source: OAIF, arXiv:2402.04792; the penalty and more than two responses: TRL's ``OnlineDPOTrainer`` (temperature 0.9 there). Our
    reading: a tie is no pair, where TRL prefers the first one; the hinge is taken of log-ratios to the reference.
    """
    links: dict[Loss, Link] = {
        "sigmoid": Logistic(beta=beta),
        "square": SquareTo(target=1 / (2 * beta)),
        "hinge": Hinge(beta=beta),
    }
    penalty = TruncatedReward(reward=-(missing_eos_penalty or 0.0), add=True)
    return dpo(beta).replace(
        source=Group(size=group_size),
        shape=(penalty,) if missing_eos_penalty else (),
        surrogate=Pairs(link=links[loss], choose=BestWorst()),
    )
