"""GRAO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Finite, Surrogate, Unit, part
from policyopt.parts import FromProgram, Normalise, PromptMean
from policyopt.parts.pairing.pairs import row_credit
from policyopt.parts.select.rows import main_rows
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.draw import WithReference


@part
class Alignment(Surrogate):
    r"""Explore with the samples, imitate the reference, and push the two apart by the samples' advantage.

    .. math:: -w_i\log\pi_\theta(y_{i,t}),\qquad w = (1+\lambda)A_i\text{ on samples},\quad
              \beta A_y - \lambda\bar A\text{ on the reference},\qquad \bar A = \tfrac1G\sum_i A_i

    The reference is a row of an auxiliary program. A worse one than the prompt's mean has a negative weight. Reads no
    ratio. Source: GRAO, arXiv:2508.07750, eq. 3, its terms collected.
    """

    beta: Finite = 0.5
    """beta, of the imitation."""
    lam: Finite = 0.6
    """lambda, of the alignment."""

    unit: ClassVar[Unit] = "group"

    def weights(self, batch: Batch) -> Tensor:
        """w, [N]."""
        credit = row_credit(batch)
        main = main_rows(batch)
        target = self.beta * credit - self.lam * group_mean(credit, batch.group, main.to(credit))
        return torch.where(main, (1 + self.lam) * credit, target)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -self.weights(batch)[:, None] * masked(batch.logp, batch.mask)


@method(
    parent=reinforce,
    arxiv="2508.07750",
    confidence="paper",
    claim=Claim(
        "Imitating a reference while it is better than the samples frees group-relative RL from what the policy "
        "can do already.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
        against="grpo",
    ),
)
def grao(
    beta: float = 0.5,
    lam: float = 0.6,
    target_in_group: bool = True,
    temperature: float = 0.7,
    group_size: int = 8,
) -> Recipe:
    r"""Group Relative Alignment Optimization: imitate a reference answer while it is better than the samples.

    .. math:: L = -\tfrac1G\sum_i A_i\ell_i - \beta A_y\ell_y - \lambda\tfrac1G\sum_i A_i(\ell_i - \ell_y),\qquad
              \ell = \tfrac{1}{|o|}\sum_t\log\pi_\theta(o_t),\qquad A = \frac{R - \mu}{\sigma + 10^{-6}}

    o_i are the samples, y the reference; L is the mean over prompts. mu and sigma run over the G + 1 rewards of both
    or, without ``target_in_group``, over the samples (eq. 4 as printed): where these are all worth the same, a reference
    that is worth something else then has an advantage of the order of 1/eps. A reference below the mean is pushed away. With beta and lambda 0
    it is REINFORCE with the baseline of the group; no ratio, no clip, no KL. Source: arXiv:2508.07750, the paper's
    defaults. Our reading: the joint group, which the text describes (eq. 4 prints G samples); references are the worked
    solutions, judged as samples are; a prompt without one is trained on by its samples.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        source=WithReference(size=group_size, temperature=temperature),
        advantage=Normalise(ddof=0, rows=None if target_in_group else FromProgram()),
        surrogate=Alignment(beta=beta, lam=lam),
        aggregate=PromptMean(),
    )
