"""GRAO."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.groups import group_max, group_mean, group_std, group_sum
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Aggregate, Finite, NonNegative, Surrogate, Unit, part
from policyopt.parts import Normalise
from policyopt.parts.select.source import main_rows
from policyopt.parts.surrogate.contrast import row_credit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.draw import Group
from policyopt.sources.draw.target import references
from policyopt.sources.program import Prompt, Response, Sampler


def sources(batch: Batch) -> Tensor:
    """[N] a number for each prompt and kind of row, of the main program or of an auxiliary one."""
    return 2 * batch.group + (~main_rows(batch)).to(batch.group)


def of_main(x: Tensor, batch: Batch) -> Tensor:
    """[N] a statistic of each prompt's rows of the main program, given to all of its rows; minus infinity where it has
    none."""
    return group_max(torch.where(main_rows(batch), x, -torch.inf), batch.group)


@part
class AgainstSamples(Advantage):
    r"""All rows of a prompt, references too, measured by the rewards of its samples alone.

    .. math:: A_i = \frac{R_i - \mu}{\sigma + \epsilon},\qquad \mu, \sigma\text{ over the rows of the main program}

    0 where a prompt has no samples. Where all samples are worth the same, a reference that is worth something else has
    an advantage of the order of 1/eps. Source: GRAO, arXiv:2508.07750, eq. 4 as printed.
    """

    ddof: Literal[0, 1] = 0
    """Delta degrees of freedom of the standard deviation."""
    eps: NonNegative = 1e-6
    """Added to the standard deviation."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        reward, apart = batch.total_reward(), sources(batch)
        mean = of_main(group_mean(reward, apart), batch)
        std = of_main(group_std(reward, apart, self.ddof), batch)
        advantage = torch.where(mean.isinf(), 0.0, (reward - mean) / (std + self.eps))
        return advantage[:, None] * batch.mask


@part
class PromptMean(Aggregate):
    r"""Every prompt weighs the same, in it every row of the same kind, in a row every token:
    :math:`1/(P\,n\,|y_i|)`.

    P counts the prompts of the mini-batch, n the prompt's samples, or its auxiliary rows. Source: GRAO,
    arXiv:2508.07750, eq. 1.
    """

    def __call__(self, batch: Batch) -> Tensor:
        count = group_sum(torch.ones_like(batch.mask[:, 0]), sources(batch))
        length = batch.mask.sum(-1).clamp(min=1)
        return batch.mask / (len(batch.group.unique()) * count * length)[:, None]


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
        mean = of_main(group_mean(credit, sources(batch)), batch)
        target = self.beta * credit - self.lam * torch.where(mean.isinf(), 0.0, mean)
        return torch.where(main_rows(batch), (1 + self.lam) * credit, target)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -self.weights(batch)[:, None] * masked(batch.logp, batch.mask)


@part
class WithReference(Group):
    """A group, and the worked solution (``origin`` 1), which is judged as the responses are."""

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    solutions: ClassVar[bool] = True

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        group, targets = await asyncio.gather(
            super().draw(prompt, sampler), references(prompt, sampler, self.temperature)
        )
        return [*group, *targets]


@method(parent=reinforce, arxiv="2508.07750", confidence="paper")
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
    or, without ``target_in_group``, over the samples. A reference below the mean is pushed away. With beta and lambda 0
    it is REINFORCE with the baseline of the group; no ratio, no clip, no KL. Source: arXiv:2508.07750, the paper's
    defaults. Our reading: the joint group, which the text describes (eq. 4 prints G samples); references are the worked
    solutions, judged as samples are; a prompt without one is trained on by its samples.
    """
    statistics = Normalise if target_in_group else AgainstSamples
    return reinforce(baseline="none", group_size=group_size).replace(
        source=WithReference(size=group_size, temperature=temperature),
        advantage=statistics(ddof=0),
        surrogate=Alignment(beta=beta, lam=lam),
        aggregate=PromptMean(),
    )
