"""SubPO."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt import turns
from policyopt.claims import Claim, Effect
from policyopt.groups import group_max, group_rank
from policyopt.judging.alike import answer_groups
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Shape, Unit, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


def first_of(elements: Tensor) -> Tensor:
    """Boolean [N, K, E]: where an element (a number of 0 or more) of a step's E stands for the first time in its row, steps in order."""
    flat = elements.flatten(1)
    before = (flat[:, :, None] == flat[:, None, :]).tril(-1).any(-1)
    return (~before & (flat >= 0)).reshape(elements.shape)


def gains(elements: Tensor, weight: Tensor) -> Tensor:
    r"""[N, K] the marginal gains :math:`F(s_k \mid s_{0:k-1})` of weighted coverage, :math:`F(S) = \sum_{c \in \cup_s D(s)} w_c`.

    ``elements`` [N, K, E] are the numbers of what each step covers, -1 for nothing, and ``weight`` their weights in the same places.
    What a step covers again gains nothing, and the gains of a row add up to F of the whole.
    """
    return torch.where(first_of(elements), weight, 0.0).sum(-1)


def left_out(worth: Tensor, kind: Tensor) -> Tensor:
    r"""[N] :math:`F(\text{all}) - F(\text{all} \setminus i)` where F counts, of each ``kind`` [N], the largest ``worth`` [N] among its
    rows (0 at least)."""
    worth = worth.clamp(min=0)
    top = group_rank(-worth, kind) == 0
    second = group_max(torch.where(top, 0.0, worth), kind)
    return torch.where(top, worth - second, 0.0)


@part
class MarginalGain(Shape):
    r"""What a row, or a turn, adds to a set in the place of what it is worth by itself.

    ``over="group"``: the set is that of the different answers to a prompt, each worth the reward of the best row that gives it, and a row
    earns :math:`F(\text{all}) - F(\text{all} \setminus i)`: what others have too earns 0. ``over="turns"``: the set is that of the states that an
    episode has seen (``turn_state``), 1 each; a turn earns 1 where it leads to a new one, as a reward of its last token, and the
    reward of the episode is their sum; that of the environment no longer counts. Source: SubPO, arXiv:2307.13372, which has the second with
    any monotone submodular F; the first is our reading of it for independent responses.
    """

    over: Literal["group", "turns"] = "group"
    """What is a set."""

    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """What an environment says of its states."""
        return frozenset({"turn_state"}) if self.over == "turns" else frozenset()

    def __call__(self, batch: Batch) -> Batch:
        if self.over == "group":
            return batch.replace(reward=left_out(batch.reward, answer_groups(batch)))
        states = torch.where(turns.turns_there(batch), batch.turn_state, -1)
        found = gains(states[:, :, None], torch.ones_like(states, dtype=batch.mask.dtype)[:, :, None])
        led_to = torch.cat([found[:, 1:], torch.zeros_like(found[:, :1])], 1)  # a turn stands before its state
        return batch.replace(reward=torch.zeros_like(batch.reward), token_reward=turns.at_ends(batch, led_to))


@method(
    parent=reinforce,
    arxiv="2307.13372",
    code="manish-pra/non-additive-RL",
    confidence="code",
    claim=Claim(
        "A reward for what is new in a set keeps a policy from collecting the same again: more different right answers stay.",
        "many-answers",
        (Effect("distinct", "higher", 0.05),),
        ours={"group-size": 8},
        theirs={"group-size": 8},
    ),
)
def subpo(
    over: Literal["group", "turns"] = "group",
    baseline: Literal["none", "moving-average", "batch-mean", "group-mean"] = "moving-average",
    group_size: int = 8,
) -> Recipe:
    r"""Submodular RL: a step is credited with what is gained from then on by a set function with diminishing returns.

    .. math:: \nabla J = \mathbb E\Big[\sum_i \nabla\log\pi(a_i|s_i)\,\big(F(\tau) - F(\tau_{0:i}) - b\big)\Big],\qquad
              F(\tau) - F(\tau_{0:i}) = \sum_{j\ge i} F(s_{j+1} \mid \tau_{0:j})

    F rewards the set of what was visited. ``over="turns"`` is the paper's: the states of an episode, each new one worth 1, and every
    token has the gains that are still to come. ``over="group"`` is its counterpart for independent responses to a prompt: F is the
    worth of the different right answers among them, and a response is credited with what would be lost without it
    (:class:`MarginalGain`), which is unbiased since the others do not depend on it. The baseline is that of REINFORCE. Source:
    arXiv:2307.13372 and its theorem; the authors' grid code (manish-pra/non-additive-RL) weighs a step with F of the states so far, the marginal
    line being commented out. The last turn of an episode leads to no state that is known.
    """
    parent = reinforce(baseline=baseline, group_size=group_size)
    return parent.replace(shape=(MarginalGain(over=over),)).set("advantage.gamma", 1.0)
