"""VSC-RL."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Critic, Finite, Fraction, Label, NonNegative, Unit, part
from policyopt.parts import LogProb, SeqMeanTokenSum
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.schema import member
from policyopt.turns import on_tokens, turn_numbers, turn_of, turn_rewards, turns_there


def segments(reward: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Episodes divided behind each turn that reached a subgoal, from rewards and which turns there are, both [N, K].

    Returns, [N, K] each, the number of the segment that a turn lies in, 1 where that segment ends with a subgoal reached (0 in
    the tail that reached none), and how many turns of the segment come after it.
    """
    closes = (reward > 0) & there
    number = closes.cumsum(1) - closes.long()
    reached, left = torch.zeros_like(reward), torch.zeros_like(reward)
    success, after = torch.zeros_like(reward[:, 0]), torch.zeros_like(reward[:, 0])
    behind = torch.zeros_like(there[:, 0])
    for k in range(reward.shape[1] - 1, -1, -1):
        starts = closes[:, k] | ~behind  # the last turn of its segment
        success = torch.where(closes[:, k], 1.0, torch.where(behind, success, 0.0))
        after = torch.where(starts, 0.0, after + 1)
        reached[:, k], left[:, k] = success * there[:, k], after * there[:, k]
        behind = behind | there[:, k]
    return number, reached, left


def subgoal_rewards(batch: Batch, subgoals: tuple[str, ...]) -> Tensor:
    """[N, K] what reached a subgoal in each turn: what the environment counts under these names, or without names the turn's
    reward."""
    if not subgoals:
        return turn_rewards(batch)
    return torch.stack([turn_numbers(batch, name) for name in subgoals]).sum(0)


def read_of(subgoals: tuple[str, ...]) -> frozenset[str]:
    """The columns that :func:`subgoal_rewards` reads."""
    names = {member("turn_number", name) for name in subgoals}
    return frozenset({"turn_end", *names} if names else {"turn_reward"})


def first_tokens(batch: Batch) -> Tensor:
    """[N, T] 1 on the first token that the policy wrote in each turn."""
    turn = torch.where(batch.mask.bool(), turn_of(batch), -1)
    before = nn.functional.pad(turn.cummax(1).values[:, :-1], (1, 0), value=-1)
    return batch.mask * (turn > before)


def at_starts(batch: Batch, x: Tensor, turns: int) -> Tensor:
    """[N, K] what stands on the first token of each turn, x [N, T]; 0 where there is no turn."""
    place = turn_of(batch).clamp(max=turns - 1)
    return torch.zeros_like(x[:, :1].expand(-1, turns)).scatter_add(1, place, masked(x, first_tokens(batch)))


@part
class HardFilter(Advantage):
    r"""1 on turns of good segments that have made the subgoal likelier, 0 on all others; and a weight on all that reached
    theirs.

    .. math:: w_k = 1\big[\mathrm{clip}(V_{k+1} - V_k - m + r_k + g_k, 0, 1) > 0\big]\cdot
              1\big[u_\sigma - V_{\sigma_0} \ge Q_q\big] + c\,u_\sigma,\qquad
              g_k = \gamma^{n_\sigma - 1 - k}\,u_\sigma

    An episode is divided into segments sigma at the subgoals that it reached; u is 1 where the segment ends with one, n its
    number of turns, and V the critic's probability that the current subgoal will be reached, before a turn (0 after the last).
    Q_q is the q-quantile over the segments of the batch of how far they surpassed what the critic expected at their start.
    Source: VSC-RL, arXiv:2502.07949, and the authors' code (ai-agents-2030/VSC_RL). Our reading: one critic of states in the
    place of the smaller of two of states and actions, and of the one of trajectories; the cloning that the authors do first is
    the second term.
    """

    margin: Finite = 0.05
    """m."""
    gamma: Fraction = 0.5
    """gamma: from turn to turn within a segment."""
    quantile: Fraction = 0.9
    """q; 0 lets all segments through."""
    clone: NonNegative = 1.0
    """c: weight of imitating segments that reached their subgoal; 0 for none."""
    subgoals: tuple[Label, ...] = ()
    """What the environment counts where one is reached; empty: a turn's reward above 0 says it."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """The critic, and what tells subgoals."""
        return read_of(self.subgoals) | {"value"}

    def __call__(self, batch: Batch) -> Tensor:
        there, reward = turns_there(batch), subgoal_rewards(batch, self.subgoals)
        number, reached, left = segments(reward, there)
        value = at_starts(batch, torch.sigmoid(batch.old_value), there.shape[1])
        after = nn.functional.pad(value[:, 1:], (0, 1))
        gain = self.gain(value, after, reward, self.returns(reached, left))
        kept = self.surpassing(number, reached, value, there)
        return on_tokens(batch, (gain > 0).to(value) * kept + self.clone * reached)

    def returns(self, reached: Tensor, left: Tensor) -> Tensor:
        """g, [N, K], from what :func:`segments` returns."""
        return reached * self.gamma**left

    def gain(self, value: Tensor, after: Tensor, reward: Tensor, returns: Tensor) -> Tensor:
        """The clipped advantage of turns, all of one shape."""
        return (after - value - self.margin + reward + returns).clamp(0, 1)

    def surpassing(self, number: Tensor, reached: Tensor, value: Tensor, there: Tensor) -> Tensor:
        """[N, K] 1 on the turns of segments that surpassed what was expected of them by the quantile or more."""
        begins = there & (number > nn.functional.pad(number[:, :-1], (1, 0), value=-1))
        surplus = reached - value
        if not begins.any():
            return torch.zeros_like(value)
        bound = surplus[begins].quantile(self.quantile)
        passes = torch.where(begins, (surplus >= bound - 1e-6).to(value), 0.0)
        for k in range(1, value.shape[1]):  # the rest of a segment goes as its first turn
            passes[:, k] = torch.where(begins[:, k], passes[:, k], passes[:, k - 1])
        return passes * there


@part
class SubgoalClassifier(Critic):
    r"""The critic as a classifier: will the current subgoal be reached?

    .. math:: -\frac{c}{K_i}\sum_k u_k\log\sigma(v_k) + (1 - u_k)\log(1 - \sigma(v_k))

    v_k is its prediction on the first token of turn k, u_k whether the segment of that turn reached its subgoal; meant for
    ``seq-mean-token-sum``. Source: VSC-RL, arXiv:2502.07949, and the authors' code (ai-agents-2030/VSC_RL). Our reading: a mean
    over the turns of an episode.
    """

    coef: NonNegative = 1.0
    """c."""
    subgoals: tuple[Label, ...] = ()
    """What the environment counts where one is reached; empty: a turn's reward above 0 says it."""

    @property
    def needs(self) -> frozenset[str]:
        """The critic, and what tells subgoals."""
        return read_of(self.subgoals) | {"value"}

    def target(self, batch: Batch) -> Tensor:
        return on_tokens(batch, segments(subgoal_rewards(batch, self.subgoals), turns_there(batch))[1])

    def __call__(self, batch: Batch) -> Tensor:
        states = first_tokens(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(batch.value, batch.returns, reduction="none")
        return self.coef * masked(loss, states) / states.sum(-1, keepdim=True).clamp(min=1)


@method(
    parent=reinforce,
    arxiv="2502.07949",
    code="ai-agents-2030/VSC_RL",
    confidence="code",
    claim=Claim(
        "Episodes divided at the subgoals that they reached teach from failures too: faster than a policy gradient on whole episodes.",
        "maze",
        (Effect("accuracy", "higher", 0.03),),
        ours={"subgoals": ("key", "door", "goal")},
        both={"group-size": 8, "steps": 20},
    ),
)
def vsc_rl(
    margin: float = 0.05, gamma: float = 0.5, quantile: float = 0.9, clone: float = 1.0, vf_coef: float = 1.0,
    subgoals: tuple[str, ...] = (), group_size: int = 1,
) -> Recipe:  # fmt: skip
    r"""Episodes are divided at the subgoals that they reached, and the policy imitates the turns of good pieces that made
    theirs likelier.

    .. math:: L = -\frac1N\sum_i\sum_k w_{i,k}\sum_{t \in k}\log\pi_\theta(y_{i,t}),\qquad
              w_k = 1[V_{k+1} - V_k - m + r_k + g_k > 0]\,1[u - V_0 \ge Q_q] + c\,u

    A piece that ends with a subgoal is a success in itself, whatever became of the episode. The critic learns how likely a
    piece is to be one; the pieces that surpass it most, a share of 1 - ``quantile``, teach (:class:`HardFilter`), with weights
    of 0 and 1, and with ``clone`` all successes are imitated, which stands for the paper's KL to a reference. With the goal as
    the only subgoal it is a filtered policy gradient on the goal. Subgoals are reached where the environment counts one of
    ``subgoals`` in a turn, or without names where it gives the turn a reward above 0; who names them, in the paper a large
    model, makes the task. Source: arXiv:2502.07949 and the authors' code (ai-agents-2030/VSC_RL). Our reading: N counts
    episodes, not turns; cloning and filter at the same time, not one after the other.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=HardFilter(margin=margin, gamma=gamma, quantile=quantile, clone=clone, subgoals=subgoals),
        ratio=None,
        surrogate=LogProb(),
        aggregate=SeqMeanTokenSum(),
        critic=SubgoalClassifier(coef=vf_coef, subgoals=subgoals),
    )
