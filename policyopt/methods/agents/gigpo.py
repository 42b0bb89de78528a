"""GiGPO."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_std
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Fraction, NonNegative, Unit, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.turns import on_tokens, to_go, turn_rewards, turns_there


@part
class GroupInGroup(Advantage):
    r"""Episodes against those of the same task, and turns against those that were taken in the same state.

    .. math:: A_{i,k} = \frac{R_i - \mathrm{mean}_q R}{F} + \omega\,\frac{G_{i,k} - \mathrm{mean}_{\mathcal G(s_{i,k})} G}{F_{\mathcal G}},\qquad
              G_{i,k} = \sum_{k' \ge k} \gamma^{k'-k} r_{i,k'}

    :math:`\mathcal G(s)` are all turns of the episodes of the task that begin in the state s; a turn that is alone there has no second
    term. F is the standard deviation (ddof 1) plus ``eps``, or 1. A is the same on all tokens of a turn. Source: arXiv:2505.10978, eq. 3
    to 8, and langfengQ/verl-agent. Our reading: the mean over episodes counts every episode once, as in the paper (the code counts it
    once for each turn).
    """

    omega: NonNegative = 1.0
    """Weight of the comparison in the same state; 0 is GRPO."""
    gamma: Fraction = 0.95
    """Discount from turn to turn."""
    scale: Literal["std", "none"] = "std"
    """F: ``std`` is the paper's mean_std_norm, ``none`` its mean_norm."""
    eps: NonNegative = 1e-6
    """Added to the standard deviation."""

    needs: ClassVar[frozenset[str]] = frozenset({"turn_reward", "turn_state"})
    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        return on_tokens(batch, self.of_episodes(batch)[:, None] + self.omega * self.of_turns(batch))

    def of_episodes(self, batch: Batch) -> Tensor:
        """[N] the first term."""
        return self._normalised(batch.total_reward(), batch.group)

    def of_turns(self, batch: Batch) -> Tensor:
        """[N, K] the second term, without omega; 0 where there is no turn."""
        there = turns_there(batch)
        found = torch.zeros(there.shape, dtype=batch.mask.dtype, device=there.device)
        keys = torch.stack([batch.group[:, None].expand_as(there)[there], batch.turn_state[there]], 1)
        same = torch.unique(keys, dim=0, return_inverse=True)[1]
        found[there] = self._normalised(self.returns(batch)[there], same)
        return found

    def returns(self, batch: Batch) -> Tensor:
        """[N, K] G."""
        return to_go(turn_rewards(batch), self.gamma)

    def _normalised(self, x: Tensor, group: Tensor) -> Tensor:
        gain = x - group_mean(x, group)
        return gain if self.scale == "none" else gain / (group_std(x, group, 1) + self.eps)


@method(
    parent=grpo,
    arxiv="2505.10978",
    confidence="code",
    claim=Claim(
        "Turns that start from the same state are compared with each other: more of the tasks are solved than with GRPO.",
        "maze",
        (Effect("accuracy", "higher", 0.03),),
    ),
)
def gigpo(
    omega: float = 1.0, gamma: float = 0.95, scale: Literal["std", "none"] = "std", low: float = 0.2, high: float = 0.2,
    kl_coef: float = 0.01, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Group-in-Group Policy Optimization: GRPO on episodes, and on the turns that start from the same state of the same task.

    .. math:: A_{i,k} = A^E_i + \omega A^S_{i,k}

    The advantage is that of :class:`GroupInGroup`; the rest is GRPO's clipped surrogate with a KL (k3) to the reference. It needs no
    critic and no further episodes: states come again by themselves, at least the first one of a task. Source: arXiv:2505.10978, and
    langfengQ/verl-agent: omega 1, gamma 0.95, KL 0.01. The authors' penalty for actions that cannot be read is the environment's to
    give. Our reading: an episode is one row here, so that a long one counts once in the mean over rows.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        advantage=GroupInGroup(omega=omega, gamma=gamma, scale=scale)
    )
