"""SPO, the minimaximalist one."""

from __future__ import annotations

import math

import torch

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Count, Shape, part
from policyopt.parts import WinRate
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response


@part
class Evenly(Shape):
    r"""The reward of a response, spread evenly over its tokens: :math:`r_{i,t} = R_i / H_i`, H_i its length.

    For advantages that credit a token with what is still to come. Source: SPO, arXiv:2401.04056, where every step of a trajectory
    gets its share.
    """

    def __call__(self, batch: Batch) -> Batch:
        share = (batch.reward / batch.mask.sum(1).clamp(min=1))[:, None] * batch.mask
        earlier = 0.0 if batch.token_reward is None else batch.token_reward
        return batch.replace(reward=torch.zeros_like(batch.reward), token_reward=earlier + share)


@part
class GroupAndQueue(Group):
    """A group, and the last ``recent`` responses to the same prompt from earlier steps: new ones are held against them too, and they are
    not trained on.

    The queue of a prompt is first in, first out; it is kept by its text, in the checkpoint, for all prompts that the run has seen.
    """

    recent: Count = 8
    """B, how many responses the queue of a prompt holds."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        fresh = await super().draw(question, context)
        queues, prompt = context.notes.setdefault("queues", {}), " ".join(map(str, question.tokens))
        queue = queues.get(prompt, [])
        queues[prompt] = [*queue, *(r.tokens for r in fresh)][-self.recent :]
        return [*fresh, *map(_rival, queue)]


def _rival(tokens: list[int]) -> Response:
    """A response of an earlier step, to be compared with."""
    unknown = [math.nan] * len(tokens)
    return Response([*tokens], [0.0] * len(tokens), unknown, "eos", use="pool", origin=1)


@method(
    parent=reinforce,
    arxiv="2401.04056",
    confidence="recalled",
    claim=Claim(
        "Where preferences run in a circle, a policy that plays against itself is hard to beat; a reward fitted to them leads to "
        "one answer that another one beats.",
        "cyclic",
        (Effect("exploitability", "lower", 0.1),),
        against="grpo",
        both={"kl-coef": 0.1},
    ),
)
def spo_minimaximalist(queue: int = 0, dense: bool = False, kl_coef: float = 0.0, group_size: int = 8) -> Recipe:
    r"""Self-Play Preference Optimization: the reward of a response is the share of the policy's other responses that it beats.

    .. math:: R_i = \frac{1}{G-1}\sum_{j\ne i} P(y_i \succ y_j),\qquad L = -\frac1N\sum_i \big(R_i - \tfrac12\big)\sum_t\log\pi_\theta(y_{i,t})

    It aims at the minimax winner, the mixture of answers that no other one beats more than half the time, which exists where no answer
    is best. The game is symmetric, so one policy plays both sides. The mean of R over a group is 1/2 whatever the judge says, which
    makes 1/2 the baseline. A judge that compares says P (``docs/judges.md``); with any other one the higher score wins. With ``queue``
    responses are held against the last so many to the same prompt, too; with ``dense`` each token gets its share of the
    reward and is credited with what is still to come.

    What the paper promises holds for the average of all policies of a run. The last one goes round in circles where preferences do, and
    with gradient steps ever wider ones; ``kl_coef`` (0.05 of a win per nat) lets it come to rest.

    Source: arXiv:2401.04056; it holds for any policy gradient. Our reading: REINFORCE, groups of 8, a response is not held
    against itself; the paper's queue is one for all trajectories of a control task, here each prompt has its own.
    """
    recipe = reinforce("constant", 0.5, kl_coef=kl_coef, group_size=group_size)
    if queue:
        recipe = recipe.replace(source=GroupAndQueue(size=group_size, recent=queue))
    return (
        recipe.replace(shape=(WinRate(), Evenly())).set("advantage.gamma", 1.0)
        if dense
        else recipe.replace(shape=(WinRate(),))
    )
