"""DPO."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from policyopt.claims import Claim, Effect
from policyopt.part import Positive, part
from policyopt.parts import Logistic, Normalise, Pairs, RowScore, Score, SeqMeanTokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, held
from policyopt.sources.given import PreferencePairs

Divergence = Literal["forward-kl", "js", "alpha"]


@part
class OtherDivergence(Score):
    r"""The implicit reward of a response where another divergence than the reverse KL holds the policy to the reference.

    .. math:: f'(u):\qquad -\frac1u,\qquad \log\frac{2u}{1+u},\qquad \frac{1-u^{-\alpha}}{\alpha};\qquad
              u = \frac{\pi_\theta(y)}{\pi_{ref}(y)}

    for the forward KL, the Jensen-Shannon divergence and the alpha-divergence (alpha to 0 is the reverse KL, log u; 1 is the
    forward one, up to a constant that cancels). Source: f-DPO, arXiv:2309.16240, table 1.
    """

    divergence: Divergence = "js"
    """Which one."""
    alpha: Positive = 0.5
    """alpha; it is read by the alpha-divergence alone."""

    needs = RowScore(against="reference").needs

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = held(RowScore(against="reference")(batch))
        if self.divergence == "js":
            return logsigmoid(log_ratio)  # log(u / (1 + u)): the constant cancels
        alpha = 1.0 if self.divergence == "forward-kl" else self.alpha
        return -(-alpha * log_ratio).exp() / alpha


@method(
    arxiv="2305.18290",
    code="eric-mitchell/direct-preference-optimization",
    confidence="code",
    claim=Claim(
        "Pairs are enough: without a reward model, and without drawing anything, the policy comes to do what they prefer; imitating "
        "the preferred texts does less.",
        "pairs",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        against="sft",
    ),
)
def dpo(
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    robust: bool = False,
    divergence: Literal["reverse-kl", "forward-kl", "js", "alpha"] = "reverse-kl",
    alpha: float = 0.5,
) -> Recipe:
    r"""Direct Preference Optimization: the preferred text of each pair is made likelier than the rejected one, both as
    measured against the reference.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma(z),\qquad z = \beta(h_w - h_l),\quad
              h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_t)

    beta h is the reward for which the policy would be the optimum under a KL of strength beta to the reference; the loss is
    the likelihood of the preferences under it. ``label_smoothing`` is the share of labels that may be flipped: the loss is
    then :math:`-(1-\epsilon)\log\sigma(z) - \epsilon\log\sigma(-z)` (the authors' code: cDPO), and with ``robust`` its unbiased form
    (arXiv:2403.00409, see :func:`rdpo`). ``divergence`` holds the policy to the reference by another one (f-DPO,
    arXiv:2309.16240; ``alpha`` is that of the alpha-divergence). Only differences matter: both texts may become less
    likely. Authors' learning rate 1e-6, batch 64.
    """
    score: Score = RowScore(against="reference")
    return Recipe(
        source=PreferencePairs(),
        advantage=Normalise(centre="none", scale="none"),
        surrogate=Pairs(
            score=score if divergence == "reverse-kl" else OtherDivergence(divergence=divergence, alpha=alpha),
            link=Logistic(beta=beta, smoothing=label_smoothing, debiased=robust),
        ),
        aggregate=SeqMeanTokenMean(),
    )
