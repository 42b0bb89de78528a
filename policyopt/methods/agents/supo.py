"""SUPO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max, group_mean
from policyopt.items import Message, user
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Count, Filter, Fraction, Unit, Whole, Wrapper, part
from policyopt.parts import Normalise, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.desk import Desk
from policyopt.sources.draw import Pieces
from policyopt.turns import episode_of


@part
class Summarised(Pieces):
    """Episodes in which the policy sums up what it has read when its context is full, and goes on from the question and the summary.

    A context holds as many tokens as a response may have (``--max-tokens``). Once ``full`` of it is used, the policy is told ``request``
    behind what the environment said last (if that fits), and what it writes then ends the row; it is trained on as its other words are.
    The next row answers the question with the summary behind it, which is text of the prompt there. Source: arXiv:2510.06727; the words are ours.
    """

    rewrites: ClassVar[bool] = True

    summaries: Whole = 3
    """S: the most summaries of an episode. After them it goes on until its context is full, and is cut off there."""
    full: Fraction = 0.6
    """Share of the context from which on it is summed up, so that there is room for a summary."""
    summary_tokens: Count = 1024
    """The most tokens of a summary."""
    request: str = "Sum up what you know, and what is left to do."
    """What the policy is told to write one."""
    heading: str = "So far: "
    """What stands before the summary behind the question."""

    async def rewrite_context(self, desk: Desk) -> Sequence[Message] | None:
        if desk.number >= self.summaries or desk.used + desk.heard < self.full * desk.budget:
            return None
        for said in (desk.said, ()):
            summary = await desk.ask((*said, *user(self.request)), self.summary_tokens)
            if summary is not None:
                return user(self.heading + summary.strip())
        return ()


@part
class PerEpisode(Wrapper, Advantage):
    """An advantage in which an episode counts once, however many rows it has, and which all of its rows have.

    The ``inner`` one sees one row of each episode, with what the episode was worth (the mean of its rows, where shaping has made these
    differ), and gives it one number, the same on all of its tokens.
    """

    inner: Advantage = Normalise()
    """How episodes are compared."""

    @property
    def needs(self) -> frozenset[str]:
        """What the inner one reads, and which rows are one episode."""
        return super().needs | {"episode"}

    def __call__(self, batch: Batch) -> Tensor:
        number, place = episode_of(batch), torch.arange(len(batch), device=batch.mask.device)
        first = place == -group_max(-place.to(batch.reward), number).long()
        worth = group_mean(batch.total_reward(), number)
        one = batch.replace(reward=worth, token_reward=None)[first]
        found = torch.zeros_like(worth)
        found[number[first]] = (self.inner(one) * one.terminal()).sum(1)
        return found[number][:, None] * batch.mask


@part
class EpisodeEnded(Filter):
    """The rows of episodes that came to an end by themselves; those that ran into a limit teach nothing (arXiv:2510.06727). As a selection,
    after credit was given, they still count in mean and deviation."""

    needs: ClassVar[frozenset[str]] = frozenset({"episode", "truncated"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        return group_max(batch.truncated, episode_of(batch)) < 0.5


@method(
    parent=grpo,
    arxiv="2510.06727",
    confidence="secondary",
    claim=Claim(
        "An agent that learns to sum up a full context solves more of what does not fit into it than one that is cut off there.",
        "history:20",
        (Effect("accuracy", "higher", 0.03),),
        theirs={"kl-coef": 0.0},
    ),
)
def supo(
    summaries: int = 3,
    full: float = 0.6,
    overlong_mask: bool = True,
    low: float = 0.2,
    high: float = 0.28,
    group_size: int = 8,
) -> Recipe:
    r"""Summarisation-augmented Policy Optimization: GRPO on episodes that are longer than the context, summaries included.

    .. math:: \nabla J = \mathrm E\Big[\sum_j \sum_{t \in seg_j} \nabla\log\pi(a_t \mid s_t)\,A_i\Big],\qquad A_i = \frac{R_i - \mathrm{mean}_q R}{\mathrm{std}_q R + \epsilon}

    An episode is a row for each context that the policy had (:class:`Summarised`), and all of its rows have the advantage of the
    episode, with mean and deviation over the episodes of the prompt. Episodes that ran into a limit have no gradient. An episode
    that fits into one context is one row. Source: arXiv:2510.06727, from third parties' descriptions. Our reading: masked episodes
    count in mean and deviation; a mean over all tokens that are trained on; no KL; the bounds are those of DAPO. Held-out
    questions are played with summaries too.
    """
    return grpo(low, high, kl_coef=0.0).replace(
        source=Summarised(size=group_size, summaries=summaries, full=full),
        advantage=PerEpisode(),
        select=(EpisodeEnded(),) if overlong_mask else (),
        aggregate=TokenMean(),
    )
