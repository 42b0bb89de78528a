"""Parrot."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt import schema
from policyopt.claims import Claim, Effect
from policyopt.groups import group_sum
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Unit, part
from policyopt.parts import SumOverRows
from policyopt.parts.aggregate.means import SeqMeanTokenSum
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.schema import column
from policyopt.sources.program import Context, Question, Response, Rollout

column(
    "reward_id",
    sentence="which of several rewards the prompt of the row names: its number, from 0",
    filled_by="program",
    dtype="int",
    invent=lambda s: s.integers(2),
    advice="take the source Identified()",
)


@part
class Identified(Rollout):
    r"""A group to each prompt, whose rows are asked in turns for one of several rewards, named before the question.

    Row i is asked for reward i mod K, so that as many rows are asked for each (``reward_id``). With ``together`` all rewards are named: so a
    trained policy is asked. Where the longer prompt leaves no room the question stands alone. Source: Parrot, arXiv:2401.05675 (reward
    identifiers). Our reading: words for the identifiers, which for pictures are tokens; responses are drawn by turns, where there each
    reward has a batch of its own.
    """

    rewards: tuple[str, ...] = ("correct", "formatted")
    """The names of the components."""
    prefix: str = "<{}> "
    """What stands before the question; ``{}`` is the name of a reward, or all their names."""
    together: bool = False
    """Whether all rewards are named at once."""

    provides: ClassVar[frozenset[str]] = frozenset({"reward_id"})

    def __post_init__(self) -> None:
        if not self.rewards or (self.size < len(self.rewards) and not self.together):
            raise ValueError(
                f"size is {self.size} and there are {len(self.rewards)} rewards: name one at least, and draw a row for each"
            )

    async def draw(self, question: Question, context: Context) -> list[Response]:
        names = ("> <".join(self.rewards),) if self.together else self.rewards
        rows: list[Response] = []
        for k, name in enumerate(names):
            tokens = context.asked(self.prefix.format(name) + question.text)
            found = await context.sampler.generate(
                question.tokens if tokens is None else tokens,
                n=len(range(k, self.size, len(names))),
                max_tokens=question.budget,
                temperature=self.temperature,
                key=(*question.key, k),
            )
            for response in found:
                response.columns["reward_id"] = float(k)
                response.context = tokens or ()
            rows += found
        return rows


def non_dominated(rewards: Tensor, within: Tensor) -> Tensor:
    """Boolean [N]: rows to whose rewards [N, K] no other row of the same set is at least equal in all and better in one. Equal rows do not
    dominate each other, so each set (``within`` [N], a number for each row) keeps a row."""
    other, mine = rewards[None], rewards[:, None]
    dominated = (other >= mine).all(-1) & (other > mine).any(-1) & (within[:, None] == within)
    return ~dominated.any(-1)


@part
class ParetoReward(Advantage):
    r"""The reward that a row was asked for, on rows that no other row asked for the same beats in all rewards.

    .. math:: A_i = \frac{1[i \in P_{k_i}]\;r_{k_i}(y_i)}{n(P_{k_i})}

    P_k are the rows of the batch with ``reward_id`` k that are not dominated (:func:`non_dominated`), :math:`n(P_k)` their number. Other
    rows have exactly no gradient. Rewards enter as they are: without a baseline they should not be negative. Source: Parrot,
    arXiv:2401.05675; the normaliser is that of the algorithm, one for each k.
    """

    rewards: tuple[str, ...] = ("correct", "formatted")
    """The names of the components, in the order of their numbers."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What each row was asked for, and what judges say of it."""
        said = (name if schema.find(name) else schema.member("component", name) for name in self.rewards)
        return frozenset({"reward_id", *said})

    def __call__(self, batch: Batch) -> Tensor:
        rewards = torch.stack([batch.component(name) for name in self.rewards], dim=-1)
        number = batch.reward_id.long()
        kept = non_dominated(rewards, number).to(rewards)
        asked = rewards.gather(1, number.clamp(0, rewards.shape[1] - 1)[:, None])[:, 0]
        return (kept * asked / group_sum(kept, number))[:, None] * batch.mask


@method(
    parent=reinforce,
    arxiv="2401.05675",
    confidence="paper",
    claim=Claim(
        "Learning from what no other sample beats in all rewards raises them together, where a weighted sum gives one up for another.",
        "proxy-reward",
        (Effect("accuracy", "higher", 0.02),),
        against="grpo",
        ours={"rewards": ("true", "proxy")},
        theirs={"kl-coef": 0.0},
    ),
)
def parrot(rewards: tuple[str, ...] = ("correct", "formatted"), prefix: str = "<{}> ", group_size: int = 8) -> Recipe:
    r"""Several rewards without weights: a prompt names one, and of its samples those teach that no other beats in all rewards.

    .. math:: \nabla J = \sum_{k=1}^K\frac{1}{n(P_k)}\sum_{i\in P_k} r_k(y_i)\,\nabla\log\pi_\theta(y_i|\hat x_k)

    :math:`\hat x_k` is the prompt with the name of reward k before it (:class:`Identified`), P_k the rows asked for it that are not
    dominated (:class:`ParetoReward`). The log-probability is that of the whole response. Held-out questions are answered with all names
    before them too (``accuracy/decode``). No baseline, no clip: rewards that are 0 or more. Source: arXiv:2401.05675, where the policy is a
    diffusion model with a model that rewrites prompts. Our reading: words for identifiers, REINFORCE on the text alone, a sum over the
    mini-batch; the guidance of images at inference has no counterpart.
    """
    return reinforce(baseline="none").replace(
        source=Identified(size=group_size, rewards=rewards, prefix=prefix),
        advantage=ParetoReward(rewards=rewards),
        ratio=None,
        aggregate=SumOverRows(inner=SeqMeanTokenSum()),
        decode=Identified(size=1, rewards=rewards, prefix=prefix, together=True),
    )
