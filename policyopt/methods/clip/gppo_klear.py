"""GPPO, of Klear-Reasoner."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Filter, NonNegative, part
from policyopt.parts import Judged, Likelihood, PPOClip, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class NotTruncated(Filter):
    """Leave out responses that were cut off at the budget (overlong filtering; DAPO, arXiv:2503.14476, section 3.4).

    Where it stands decides what the others are compared with. In ``filter`` the cut ones go before the statistics of their
    groups are taken: mean, deviation and group size are those of the rest, and where nothing of a group is left, another
    prompt is drawn. In ``select`` they go afterwards: they still lower the mean that the others are measured by, and only
    their own tokens are not trained on, as with TRL's ``mask_truncated_completions``. In neither place do they count
    among the N of an aggregation; TRL counts them.
    """

    def __call__(self, batch: Batch) -> Tensor:
        return batch.truncated < 0.5


@part
class GPPOClip(PPOClip):
    r"""The clipped surrogate whose clipped tokens keep the gradient that they have at the bound.

    .. math:: -\tilde r A,\qquad \tilde r = \beta_{high}\,hi\,\frac{r}{sg[r]}\ (A > 0, r > hi),\quad
              \beta_{low}\,lo\,\frac{r}{sg[r]}\ (A < 0, r < lo),\quad r \text{ elsewhere}

    With both beta 1 its value is PPO's on every token. Beyond ``dual`` a bad token has no gradient. Source: GPPO,
    arXiv:2508.07629, and the authors' code (suu990901/KlearReasoner). Our reading: beta scales the value too.
    """

    beta_low: NonNegative = 1.0
    """Factor on bad tokens below the lower bound; 0 silences them."""
    beta_high: NonNegative = 1.0
    """Factor on good tokens above the upper bound; 0 silences them."""

    def counted(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        low, high = self.window(log_ratio, batch)
        ratio, advantage = log_ratio.exp(), batch.advantage
        alive = (log_ratio - log_ratio.detach()).exp()  # 1, with the gradient of the log-ratio
        kept = torch.where((advantage > 0) & (ratio > high), self.beta_high * high * alive, ratio)
        kept = torch.where((advantage < 0) & (ratio < low), self.beta_low * low * alive, kept)
        return kept if self.dual is None else torch.where(advantage < 0, kept.clamp(max=self.dual), kept)


@method(
    parent=grpo,
    arxiv="2508.07629",
    code="suu990901/KlearReasoner",
    confidence="code",
    claim=Claim(
        "Off policy, clipped tokens that keep a bounded gradient let the policy explore, and learn from its errors sooner.",
        "stale",
        (Effect("accuracy", "higher", 0.02),),
        theirs={"kl-coef": 0.0},
    ),
)
def gppo_klear(
    low: float | None = 0.2,
    high: float | None = 0.28,
    beta_low: float = 1.0,
    beta_high: float = 1.0,
    dual_clip: float | None = 10.0,
    sft_coef: float = 0.1,
    overlong_filter: bool = False,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Gradient-Preserving clipping: a clipped token keeps the gradient that it has at the bound, and right answers are
    imitated a little.

    .. math:: \ell = -\beta_h\,hi\,\tfrac{r}{sg[r]}A\ (A > 0, r > hi),\quad -\beta_l\,lo\,\tfrac{r}{sg[r]}A\ (A < 0, r < lo),\quad -rA \text{ elsewhere},\qquad
              L = \frac1{\sum_i|y_i|}\sum_{i,t}\ell_{i,t} - \alpha\,\mathrm{mean}_{right}\log\pi_\theta

    lo, hi = 1 - ``low``, 1 + ``high``. The loss is PPO's in value (for beta 1); its gradient is bounded and never zero,
    but for bad tokens beyond ``dual_clip``. alpha = ``sft_coef`` weighs the mean negative log-likelihood over the
    tokens of right answers. ``overlong_filter`` leaves truncated responses out, as the authors do below a budget of
    32K. No KL. Defaults from the authors' script. Our reading: which beta is which side; both are 1 in practice.
    """
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        filter=(NotTruncated(),) if overlong_filter else (),
        surrogate=GPPOClip(low=low, high=high, beta_low=beta_low, beta_high=beta_high, dual=dual_clip),
        aggregate=TokenMean(),
        regularizers=(Likelihood(coef=sft_coef, rows=Judged()),) if sft_coef else (),
        update=Update(minibatches=minibatches),
    )
