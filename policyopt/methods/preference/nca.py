"""NCA."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Positive, part
from policyopt.parts import Link
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class NoiseContrast(Link):
    r"""Both scores by themselves: the better one up, and both not far from 0.

    .. math:: \ell = -\log\sigma(\beta s_w) - \tfrac12\log\sigma(-\beta s_w) - \tfrac12\log\sigma(-\beta s_l)

    A text as likely as under the reference is as likely to be data as noise. Beyond :math:`\beta s_w = \log 2` the better text is
    pulled back. Source: NCA, arXiv:2402.05369, algorithm 1 (K = 2).
    """

    beta: Positive = 0.1
    """Scale of the scores."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        good, bad = self.beta * score[better], self.beta * score[worse]
        return -logsigmoid(good) - (logsigmoid(-good) + logsigmoid(-bad)) / 2


@method(
    parent=dpo,
    arxiv="2402.05369",
    code="thu-ml/Noise-Contrastive-Alignment",
    confidence="code",
    claim=Claim(
        "The preferred text does not become less likely, as it does under DPO, where only the difference to the other counts.",
        "pairs",
        (Effect("loglik/chosen", "higher", 0.02), Effect("pairs/accuracy", "higher", -0.05)),
        both={"steps": 10},
    ),
)
def nca(beta: float = 0.1) -> Recipe:
    r"""Noise Contrastive Alignment: each text is told apart from what the reference would have written, not from the other text.

    .. math:: L = -\mathrm{mean}_{pairs}\Big[\log\sigma(\beta h_w) + \tfrac12\log\sigma(-\beta h_w) + \tfrac12\log\sigma(-\beta h_l)\Big],\qquad
              h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}

    The absolute likelihood counts, so that what is preferred cannot fall with what is not. The form for pairs, as TRL has it as
    ``nca_pair``; beta as in DPO. Source: arXiv:2402.05369 and the authors' code.
    """
    return dpo().set("surrogate.link", NoiseContrast(beta=beta))
