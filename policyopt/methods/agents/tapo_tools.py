"""TAPO, of tools."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean
from policyopt.methods.clip.dapo import dapo
from policyopt.part import Filter, Finite, Shape, Unit, part
from policyopt.parts import LengthReward, PPOClip
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


def sound(batch: Batch) -> Tensor:
    """[N] whether a response is right and in its form."""
    return (batch.correct > 0.5) & (batch.formatted > 0.5)


@part
class SoundReward(Shape):
    """One number for a right answer in the form that was asked for, another for all else, in the place of the score.

    In an environment a response is in form where every call of a tool could be read. Source: arXiv:2510.07038 (1 and -1).
    """

    right: Finite = 1.0
    """Reward where it is both."""
    wrong: Finite = -1.0
    """Reward where it is not."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct", "formatted"})

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=torch.where(sound(batch), self.right, self.wrong).to(batch.reward))


@part
class MixedSound(Filter):
    """Keep prompts some of whose responses are right and in form and some of whose are not, whatever the rewards for length."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct", "formatted"})
    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        share = group_mean(sound(batch).to(batch.reward), batch.group)
        return (share > 0) & (share < 1)


@method(
    parent=dapo,
    arxiv="2510.07038",
    code="Goer17/TAPO",
    confidence="code",
    claim=Claim(
        "A reward for right answers in form that never counts calls teaches to use tools where they are needed: more right answers "
        "than with GRPO.",
        "retrieval",
        (Effect("accuracy", "higher", 0.02),),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def tapo_tools(
    low: float = 0.2, high: float = 0.28, dual: float = 10.0, overlong_share: float = 0.5, penalty: float = 1.0, rounds: int = 10,
    minibatches: int = 1, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Tool-Augmented Policy Optimization: DAPO on thoughts and tool calls by turns, in which what tools say counts nowhere.

    .. math:: R_i = c_i + \min\Big(0, -\frac{\ell_i - (L_{max} - B)}{B}\,p\Big),\qquad c_i = \pm 1

    Tokens that tools wrote have no loss, no share in the mean, and no part in the length l, so nothing is won by calling more. c is 1 for a right
    answer in form; a prompt stays where its c differ. The penalty for length goes on beyond L_max, the budget of the run, of which B is
    ``overlong_share``. Bad tokens are bounded by ``dual``. No KL. Source: arXiv:2510.07038, and Goer17/TAPO: clip 0.2 and 0.28, dual
    10, B half of 2048, p 1, at most 10 rounds of drawing, 4 updates on a batch (``minibatches``). Our reading: the mean counts the
    policy's tokens alone, as in the paper; the code counts those of tools too. Form is what the environment or the judge says of it.
    """
    recipe = dapo(low, high, rounds=rounds, minibatches=minibatches, group_size=group_size)
    length = LengthReward(coef=penalty, start=1 - overlong_share, past="on", right=(0.0, -1.0), wrong=(0.0, -1.0))
    return recipe.replace(
        shape=(SoundReward(), length), filter=(MixedSound(),), surrogate=PPOClip(low=low, high=high, dual=dual)
    )
