"""EMPG."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, NonNegative, Unit, Wrapper, part
from policyopt.parts import Normalise
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean
from policyopt.turns import on_tokens, turn_means, turns_there


@part
class EntropyModulated(Wrapper, Advantage):
    r"""An episode's advantage, more of it on sure turns than on unsure ones, and a bonus where a turn leads to a sure one.

    .. math:: A'_{i,k} = A_i\,\frac{e^{-\kappa\bar H_{i,k}}}{\mathrm{mean}\,e^{-\kappa\bar H} + \epsilon} + \zeta\,e^{-\kappa'\bar H_{i,k+1}},\qquad
              A_{i,k} = A'_{i,k} - \mathrm{mean}\,A',\qquad \bar H = \frac{H - \min H}{\max H - \min H + \epsilon}

    H is the mean entropy (nats) of the tokens of a turn as they were drawn; minima, maxima and means run over all turns of the
    batch, each of which counts once. The last turn of an episode has no bonus. Equal entropies everywhere leave the advantage
    as it is, but for bonus and mean. Source: EMPG, arXiv:2509.09265, and the pseudocode of its page.
    """

    of: Advantage = Normalise()
    """The advantage of an episode, the same on all of its tokens."""
    kappa: NonNegative = 1.0
    """kappa: the surest turn has :math:`e^\\kappa` times as much of it as the least sure."""
    future: NonNegative = 1.0
    """kappa'."""
    zeta: NonNegative = 0.1
    """zeta: most bonus of a turn."""

    around: ClassVar[str] = "of"
    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """Where turns end."""
        return frozenset({"turn_end"}) | self.of.needs

    def __call__(self, batch: Batch) -> Tensor:
        there = turns_there(batch)
        row = masked_mean(self.of(batch), batch.mask, dim=-1)
        modulated = self.modulated(row, turn_means(batch, batch.sampled_entropy), there)
        return on_tokens(batch, modulated - (modulated * there).sum() / there.sum().clamp(min=1))

    def modulated(self, row: Tensor, entropy: Tensor, there: Tensor) -> Tensor:
        """A' [N, K] from advantages [N], and entropies and which turns there are, both [N, K]."""
        clear = self.clarity(entropy, there)
        return row[:, None] * self.scale(entropy, there) + self.zeta * nn.functional.pad(clear[:, 1:], (0, 1))

    def scale(self, entropy: Tensor, there: Tensor) -> Tensor:
        """What an advantage is multiplied by in each turn, [N, K], with a mean of 1; 0 where there is none."""
        weight = torch.where(there, (-self.kappa * spread(entropy, there)).exp(), 0.0)
        return weight / (weight.sum() / there.sum().clamp(min=1) + 1e-8)

    def clarity(self, entropy: Tensor, there: Tensor) -> Tensor:
        """How sure each turn is, [N, K], from 1 down; 0 where there is none."""
        return torch.where(there, (-self.future * spread(entropy, there)).exp(), 0.0)


def spread(x: Tensor, there: Tensor) -> Tensor:
    """x [N, K] from 0, for the smallest of those that are there, to 1."""
    low, high = (x[there].amin(), x[there].amax()) if there.any() else (x.sum() * 0, x.sum() * 0)
    return ((x - low) / (high - low + 1e-8)).clamp(0, 1)


@method(
    parent=grpo,
    arxiv="2509.09265",
    confidence="paper",
    claim=Claim(
        "Sure turns learn more from the outcome than unsure ones, which a gradient favours by itself: more tasks are solved than with GRPO.",
        "maze",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 20},
        theirs={"kl-coef": 0.0},
    ),
)
def empg(
    kappa: float = 1.0, future: float = 1.0, zeta: float = 0.1, low: float | None = 0.2,
    high: float | None = 0.2, kl_coef: float = 0.0, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Entropy-Modulated Policy Gradients: an episode's advantage is dealt to its turns by how sure the policy was in them.

    .. math:: A_{i,k} = A_i\,g(H_{i,k}) + \zeta f(H_{i,k+1}) - \mathrm{mean},\qquad
              g \propto e^{-\kappa\bar H},\qquad f = e^{-\kappa'\bar H}

    The expected size of a gradient grows with entropy (:math:`E\|\nabla_z\log\pi\|^2 = 1 - \sum_a\pi_a^2`), so sure steps learn
    too little and unsure ones too much. g averages to 1: sure turns have more of the advantage, whatever its sign. ``zeta``
    pays for turns after which the policy is sure. With all three numbers 0 it is GRPO's advantage less its mean over turns.
    Source: arXiv:2509.09265; kappa and kappa' 1, zeta 0.1 from the authors' pseudocode (a port has 0.05); on GRPO and DAPO.
    """
    return grpo(low, high, kl_coef, group_size=group_size).replace(
        advantage=EntropyModulated(kappa=kappa, future=future, zeta=zeta)
    )
