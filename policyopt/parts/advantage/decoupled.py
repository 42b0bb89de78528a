"""An advantage in which each component of the reward counts by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from policyopt import schema
from policyopt.groups import whiten
from policyopt.part import Advantage, Finite, NonNegative, Unit, Wrapper, part
from policyopt.parts.advantage.normalise import Normalise
from policyopt.parts.aggregate.means import SeqMeanTokenMean
from policyopt.rows import Batch


@part
class Decoupled(Wrapper, Advantage):
    r"""Each component of the reward is normalised by itself, then they are summed up by weight and whitened (GDPO).

    .. math:: A_i = \frac{S_i - mean_{batch}(S)}{std_{batch}(S) + \epsilon},\qquad S_i = \sum_k w_k A^{(k)}_i

    A^(k) is the ``inner`` advantage on component k in the place of the reward: in GDPO
    :math:`(c_{k,i} - mean_{group}) / std_{group}`. Summed up first, rewards of unlike spread drown each other, and different
    combinations of the same sum cannot be told apart. A row counts in the statistics of the components that apply to it
    (those that are not NaN). What ``shape`` makes of the reward counts where "reward" is among the weights; rewards of
    single tokens or steps count there alone. Source: GDPO, arXiv:2601.05242. Our reading of what it leaves open: ddof 1
    and eps 1e-6 (verl).
    """

    inner: Advantage = Normalise()
    """How the responses to a prompt are compared in one component."""
    weights: tuple[tuple[str, Finite], ...] = ()
    """Name and weight of each component; empty: as the judges are weighed (``--judge NAME=JUDGE:WEIGHT``), or all that
    there are alike."""
    whiten: bool = True
    """Centre and scale the sum over the batch, in which each row counts once."""
    eps: NonNegative = 1e-6
    """Added to the standard deviation of the batch."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What the inner one reads, and what is weighed."""
        names = [name for name, _ in self.weights if name != "reward"]
        return super().needs | {name if schema.find(name) else schema.member("component", name) for name in names}

    def __call__(self, batch: Batch) -> Tensor:
        total = torch.zeros_like(batch.mask)
        for name, weight in self.weights or self._all(batch):
            total = total + weight * self._of(name, batch)
        if self.whiten:
            rows = SeqMeanTokenMean()(batch) * len(batch)
            total = whiten(total, weight=rows, ddof=1, eps=self.eps)
        return total * batch.mask

    @staticmethod
    def _all(batch: Batch) -> Sequence[tuple[str, float]]:
        return [(name, 1.0) for name in sorted(batch.members("component"))] or [("reward", 1.0)]

    def _of(self, name: str, batch: Batch) -> Tensor:
        """The inner advantage on one component, [N, T]; 0 on rows that it does not apply to."""
        said = batch.components()
        if name == "reward" and name not in said:
            return self.inner(batch)
        reward = said[name] if name in said else batch.component(name)
        there = ~reward.isnan()
        out = torch.zeros_like(batch.mask)
        if bool(there.any()):
            out[there] = self.inner(batch[there].replace(reward=reward[there], token_reward=None, step_reward=None))
        return out
