"""Samples and a reference answer to the same prompt: what each is worth beside the others, and their loss."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.advantage import group_max, group_mean, group_std, group_sum
from policyopt.parts.base import Advantage, Aggregate, Finite, NonNegative, Surrogate, Unit, part
from policyopt.parts.contrast import row_credit
from policyopt.parts.source import main_rows


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
