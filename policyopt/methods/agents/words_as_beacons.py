"""Words as Beacons."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Count, Finite, Fraction, Label, Shape, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.schema import member
from policyopt.turns import at_ends, turn_numbers, turns_there


@part
class OrderedSubgoals(Shape):
    r"""A bonus for each of some subgoals, in their order, once, and the larger the sooner it is reached; and a reward that
    falls with time.

    .. math:: r_k = \alpha\Big(1 - \frac{s_k}{T}\Big)\,1[\text{the current subgoal is reached in turn } k],\qquad
              R \leftarrow R\,\Big(1 - d\,\frac KT\Big)

    s_k counts the turns since the subgoal before was reached, this one included; K is the number of turns of the episode, T =
    ``max_turns``. A subgoal that is reached before its turn has come pays nothing and does not count as reached. The bonus is a
    token reward on the last token of its turn, beside the episode's ``reward``; the log's accuracy knows nothing of it. All
    bonuses of an episode are at most :math:`n\alpha`. Source: Words as Beacons, arXiv:2410.08632, and the authors' code
    (aklein1995/Words-as-Beacons), where the last subgoal is the task itself, which pays by itself. Our reading: a subgoal is
    reached in a turn in which the world counts it.
    """

    subgoals: Annotated[tuple[Label, ...], Field(min_length=1)] = ("key", "door", "goal")
    """What the world counts when each is reached (``Observation.numbers``), the first one first."""
    alpha: Finite = 0.2
    """alpha; it is not potential-based, so a large one may change what is best."""
    max_turns: Count = 16
    """T."""
    decay: Fraction = 0.9
    """d; 0 where the world's own reward falls with time."""
    pay_last: bool = False
    """Whether the last subgoal pays a bonus too."""

    @property
    def paid(self) -> tuple[str, ...]:
        """The subgoals with a bonus."""
        return self.subgoals if self.pay_last else self.subgoals[:-1]

    @property
    def needs(self) -> frozenset[str]:
        """What is counted of them, turn by turn."""
        return frozenset({"turn_end", *(member("turn_number", name) for name in self.paid)})

    def bonus(self, batch: Batch) -> Tensor:
        """r, [N, K]."""
        there = turns_there(batch)
        found = torch.zeros(there.shape, dtype=batch.mask.dtype, device=there.device)
        counted = [turn_numbers(batch, name) > 0 for name in self.paid]
        current = torch.zeros(len(found), dtype=torch.long, device=there.device)
        waited = torch.zeros_like(found[:, 0])
        for k in range(found.shape[1]):
            waited = waited + 1
            reached = torch.zeros_like(there[:, k])
            for j, fired in enumerate(counted):
                reached |= (current == j) & fired[:, k] & there[:, k]
            found[:, k] = torch.where(reached, self.alpha * (1 - waited / self.max_turns).clamp(min=0), 0.0)
            current, waited = current + reached, torch.where(reached, 0.0, waited)
        return found

    def __call__(self, batch: Batch) -> Batch:
        late = self.decay * (turns_there(batch).sum(1) / self.max_turns).clamp(max=1)
        bonus = at_ends(batch, self.bonus(batch))
        before = torch.zeros_like(bonus) if batch.token_reward is None else batch.token_reward
        return batch.replace(reward=batch.reward * (1 - late), token_reward=before + bonus)


@method(
    parent=ppo,
    arxiv="2410.08632",
    code="aklein1995/Words-as-Beacons",
    confidence="code",
    claim=Claim(
        "Bonuses for subgoals in their order lead to a goal that alone pays too seldom: it is reached far sooner than with PPO.",
        "maze",
        (Effect("accuracy", "higher", 0.05),),
        both={"steps": 20, "epochs": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def words_as_beacons(
    subgoals: tuple[str, ...] = ("key", "door", "goal"), alpha: float = 0.2, max_turns: int = 16, decay: float = 0.9,
    pay_last: bool = False, kl_coef: float = 0.0, entropy_coef: float = 5e-4, gamma: float = 1.0,
    lam: float = 0.95, epochs: int = 4, group_size: int = 1,
) -> Recipe:  # fmt: skip
    r"""PPO with a bonus for each subgoal, in their order and once, that is larger the sooner it is reached.

    .. math:: r_k = \alpha\Big(1 - \frac{s_k}{T}\Big)\,1[\text{subgoal reached}],\qquad R^{ext} = R\,\Big(1 - 0.9\,\frac KT\Big)

    ``subgoals`` are names of what the world counts, in the order in which they lead to the goal; the last one is the goal
    itself, which pays by itself (``pay_last``). Without a subgoal but the goal this is PPO. Source: arXiv:2410.08632 and the
    authors' code (aklein1995/Words-as-Beacons): alpha 0.2, lambda 0.95, clip 0.2, 4 epochs, entropy 5e-4. A language model
    wrote their subgoals down once for each task, and the policy, a small network, was told the current one; here whoever makes
    the task names them. Our reading: no discount from token to token, where theirs is 0.99 from step to step.
    """
    bonus = OrderedSubgoals(subgoals=subgoals, alpha=alpha, max_turns=max_turns, decay=decay, pay_last=pay_last)
    parent = ppo(kl_coef=kl_coef, entropy_coef=entropy_coef, gamma=gamma, lam=lam, epochs=epochs, group_size=group_size)
    return parent.replace(shape=(*parent.shape, bonus))
