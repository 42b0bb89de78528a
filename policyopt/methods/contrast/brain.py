"""BRAIn."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max, group_sum
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Positive, Unit, part
from policyopt.parts import Contrast, RowScore
from policyopt.parts.pairing.pairs import row_credit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.draw import Group


def log_softmax_by(x: Tensor, group: Tensor) -> Tensor:
    """The logarithm of the softmax of ``x`` [N] over the rows of the same group, [N]."""
    gain = x - group_max(x.detach(), group)
    return gain - group_sum(gain.exp(), group).log()


@part
class Posterior(Contrast):
    r"""The self-normalised KL from the posterior of a good response to the policy, on the responses to each prompt.

    .. math:: L = \frac1Q\sum_q\sum_{i\in q}\alpha_i\log\frac{\alpha_i}{b_i},\qquad
              \alpha = \mathrm{softmax}\Big(\frac{A_i}{\gamma} + \log\frac{\pi_{ref}(y_i)}{\pi_{old}(y_i)}\Big),\quad
              b = \mathrm{softmax}\Big(\log\frac{\pi_\theta(y_i)}{\pi_{old}(y_i)}\Big)

    The logarithms are sums over tokens; A is the advantage, of which a constant of the prompt changes nothing. The gradient is
    :math:`-\frac1Q\sum_i(\alpha_i - b_i)\nabla\log\pi_\theta(y_i)`: the weights of a prompt add up to 0, and each of them is 0 where the policy is the
    posterior. Source: BRAIn, arXiv:2402.02479.
    """

    score: RowScore = RowScore(against="old")
    """What b is made of."""
    gamma: Positive = 1.0
    """gamma, the reward that makes a response e times likelier to be called good."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    def log_target(self, batch: Batch) -> Tensor:
        r""":math:`\log\alpha`, [N]."""
        prior = masked(batch.ref_logp - batch.old_logp, batch.mask).sum(-1)
        return log_softmax_by(row_credit(batch) / self.gamma + prior, batch.group)

    def log_policy(self, batch: Batch) -> Tensor:
        r""":math:`\log b`, [N], with its gradient."""
        return log_softmax_by(self.score(batch), batch.group)

    def rows(self, batch: Batch) -> Tensor:
        target = self.log_target(batch).detach()
        prompts = max(1, len(batch.group.unique()))
        return target.exp() * (target - self.log_policy(batch)) * (len(batch.mask) / prompts)


@method(
    parent=dpo,
    arxiv="2402.02479",
    confidence="recalled",
    claim=Claim(
        "The softmax of the policy as its own baseline leaves a gradient of little variance: more answers are right than after DPO on pairs "
        "of others.",
        "many-answers",
        (Effect("accuracy", "higher", 0.02),),
        against="rloo",
        theirs={"kl-coef": 0.1},
    ),
)
def brain(gamma: float = 1.0, group_size: int = 8) -> Recipe:
    r"""Bayesian Reward-conditioned Amortized Inference: the policy is fitted to the reference's posterior, given that a response is good.

    .. math:: L = \frac1Q\sum_q\sum_{i\in q}\alpha_i\log\frac{\alpha_i}{b_i},\qquad
              \alpha = \mathrm{softmax}_q\Big(\frac{R_i}{\gamma} + \log\frac{\pi_{ref}}{\pi_{old}}(y_i)\Big),\quad
              b = \mathrm{softmax}_q\Big(\log\frac{\pi_\theta}{\pi_{old}}(y_i)\Big)

    Goodness is likely in proportion to :math:`e^{R/\gamma}`, so the posterior :math:`\propto\pi_{ref}e^{R/\gamma}` is what a KL of strength gamma allows. The responses of a prompt
    are weighed against each other, whoever drew them; the paper renews what draws every few hundred steps (``--staleness``). With two
    responses and a target of all or nothing it is DPO of beta 1 against the policy that drew. No code is published: the formula from the
    paper's theorem, gamma 1 and 8 responses are ours. Our reading: no factor on the log-ratios, which are sums over tokens.
    """
    return dpo().replace(source=Group(size=group_size), surrogate=Posterior(gamma=gamma))
