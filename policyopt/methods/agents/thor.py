"""THOR."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import by_source, group_max, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Filter, Fraction, Unit, Whole, part
from policyopt.parts import BySource, Likelihood, PPOClip, RowSelector, TokenMean
from policyopt.parts.select.rows import main_rows
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.schema import member
from policyopt.sources.desk import Begun
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response


@part
class RestartedCalls(Group):
    """A group of episodes; where a call of a tool went wrong in one of them, a second group that goes on from shortly before it.

    Of the episodes with a failed call one is taken by chance. Its turn with the last failed call is cut ``back`` tokens before the
    call shows itself (at its beginning at most), and written anew ``size`` times (``origin`` 1), up to the next answer of the environment:
    reward 1 where there were calls in the turn and all of them ran, else 0. A turn without a call is left out and counted. What stands before
    the cut is read, not trained on. The environment is told of the turns before once more, so it has to say the same again. Source: THOR,
    arXiv:2509.13761, and JingMog/THOR.
    """

    plays: ClassVar[bool] = True

    back: Whole = 100
    """L: how many tokens before a failed call its turn is cut."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        rows = await super().draw(question, context)
        failed = [(row, turn) for row in rows if (turn := last_failure(row)) is not None]
        if context.episodes is None or not failed:
            return rows
        row, turn = random.Random(repr(("restart", question.key))).choice(failed)
        again = await context.episodes(
            question, context.sampler, n=self.size, temperature=self.temperature, key=(*question.key, -1),
            begun=Begun(row, turn, self.back),
        )  # fmt: skip
        called = [executed(step) for step in again]
        context.count(restarted=1, restarts_without_call=len(again) - sum(called))
        return [*rows, *(step for step, did in zip(again, called, strict=True) if did)]


def last_failure(row: Response) -> int | None:
    """The number of the last turn of an episode in which a call went wrong."""
    errors = row.columns.get(member("turn_number", "tool_errors"), [])
    return max((k for k, x in enumerate(errors) if x > 0), default=None)  # type: ignore[arg-type]


def executed(step: Response) -> bool:
    """Give a turn that was written anew its reward for running; whether there was a call in it."""
    step.origin = 1
    verdict = step.verdict
    if verdict is None or not verdict.rewarded:
        return verdict is not None  # the environment itself has failed: it is counted and leaves
    calls, errors = (float(verdict.parts.get(name, 0.0)) for name in ("tool_calls", "tool_errors"))  # type: ignore[arg-type]
    ran = calls > 0 and errors == 0
    step.verdict = dataclasses.replace(
        verdict, score=float(ran), correct=ran, reason=f"{errors:g} of {calls:g} calls failed"
    )
    return calls > 0


@part
class SoundTrajectories(Filter):
    r"""Of whole episodes those in which every call ran, that are long enough and have their answer in form; of the turns that were written
    anew all.

    How many calls went wrong the environment counts (``component[tool_errors]``); 0 where nobody does.
    Where fewer than :math:`\lceil share \cdot G\rceil` of the G episodes of a prompt are left, none of them is. What is left of one
    source of rows, and has equal rewards, leaves too (``differ``): it teaches nothing. Source: THOR, arXiv:2509.13761, and JingMog/THOR.
    """

    shortest: Whole = 0
    """An episode has to have more tokens of the policy."""
    share: Fraction = 0.5
    """Which share of a prompt's episodes has to be left."""
    differ: bool = True
    """Leave out rows of one source whose rewards are all equal."""

    needs: ClassVar[frozenset[str]] = frozenset({"formatted"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        main, source = main_rows(batch), by_source(batch)
        errors = batch.members("component").get("tool_errors", torch.zeros_like(batch.reward)).nan_to_num(0.0)
        sound = (errors == 0) & (batch.length() > self.shortest) & (batch.formatted > 0.5)
        one = torch.ones_like(batch.reward)
        left, all_ = group_sum(sound * one, source), group_sum(one, source)
        keep = ~main | (sound & (left >= torch.ceil(self.share * all_ - 1e-9)))
        if not self.differ:
            return keep
        reward = batch.total_reward()
        high = group_max(torch.where(keep, reward, -math.inf), source)
        low = -group_max(torch.where(keep, -reward, -math.inf), source)
        return keep & (high > low)


@part
class Better(RowSelector):
    """The rows whose advantage is above 0."""

    def __call__(self, batch: Batch) -> Tensor:
        return ((batch.advantage > 0) & batch.mask.bool()).any(1)


@method(
    parent=grpo,
    arxiv="2509.13761",
    code="JingMog/THOR",
    confidence="code",
    claim=Claim(
        "Failed calls are written anew from shortly before them, for the reward of running: with whole episodes beside, more answers "
        "are right than with these alone.",
        "calculator",
        (Effect("accuracy", "higher", 0.02),),
        ours={"back": 4},
        theirs={"kl-coef": 0.0},
    ),
)
def thor(
    low: float = 0.2, high: float = 0.28, dual: float = 3.0, alpha: float = 0.01, back: int = 100, shortest: int = 0, rounds: int = 4,
    minibatches: int = 1, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Tool-integrated Hierarchical Optimization via RL: whole episodes, and failed calls alone, in one batch.

    .. math:: L = \frac{\sum m\,\ell(r, A)}{\sum m} - \alpha\frac{\sum m\,1[A > 0]\,\log\pi_\theta}{\sum m\,1[A > 0]}

    Episodes are rewarded by their answer, turns that start shortly before a failed call by whether the new call runs
    (:class:`RestartedCalls`); each kind is normalised among its own, and they share one mean over tokens. Episodes with a failed call are not
    trained on (:class:`SoundTrajectories`). l is the clipped surrogate, with a ceiling for bad tokens; good rows are also made likelier
    as they are. Where no call fails it is GRPO on filtered episodes. Source: arXiv:2509.13761, and JingMog/THOR: clip 0.2 and 0.28, dual 3,
    alpha 0.01, no KL, groups of 16, 40 updates on a rollout (``minibatches``), more than 150 tokens (``shortest``). Our reading: what a
    tool said is masked in turns too (the code does not); prompts are drawn anew at most ``rounds`` times; ``shortest`` 0, as
    answers here are short. The paper's generator of data (TIRGen) and its retries at inference are no part of this.
    """
    recipe = grpo(low, high, kl_coef=0.0)
    return recipe.replace(
        source=RestartedCalls(size=group_size, back=back, rounds=rounds),
        filter=(SoundTrajectories(shortest=shortest),),
        advantage=BySource(),
        surrogate=PPOClip(low=low, high=high, dual=dual),
        aggregate=TokenMean(),
        regularizers=(Likelihood(coef=alpha, rows=Better()),) if alpha else (),
        update=Update(minibatches=minibatches),
    )
