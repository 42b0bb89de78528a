"""ECHO."""

from __future__ import annotations

from typing import ClassVar

from policyopt.claims import Claim, Effect
from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.part import part
from policyopt.parts import BySource, FromProgram, Likelihood, OwnTokens
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response


@part
class WithObservations(Group):
    """A group of episodes, and for each one in which somebody else spoke the same tokens again as a row (``origin`` 1) whose
    ``mask`` is on what the others said, not on what the policy wrote.

    The prompt, and what the environment says before the first turn, belong to neither. Log-probabilities of such a row are
    taken at temperature 1; its ``old_logp`` is 0, since whoever said it did not draw it. An episode without a reward has none.
    """

    plays: ClassVar[bool] = True

    async def draw(self, question: Question, context: Context) -> list[Response]:
        episodes = await super().draw(question, context)
        echoes = [observations(r) for r in episodes if not all(r.own) and (r.verdict is None or r.verdict.rewarded)]
        context.count(observed_tokens=sum(sum(r.own) for r in echoes))
        return [*episodes, *echoes]


def observations(episode: Response) -> Response:
    """The row of what others said in an episode; it ends with the last of their tokens."""
    theirs = [not own for own in episode.own]
    size = len(theirs) - theirs[::-1].index(True)
    nothing = [0.0] * size
    return Response(
        episode.tokens[:size], nothing, list(nothing), "eos", versions=episode.versions[:size], own=theirs[:size],
        budget=episode.budget, context=episode.context, origin=1, verdict=Verdict(0.0, False, True, "what others said"),
    )  # fmt: skip


@method(
    parent=grpo,
    arxiv="2605.24517",
    code="PrimeIntellect-ai/prime-rl",
    confidence="secondary",
    claim=Claim(
        "Predicting what the environment says beside GRPO teaches from failed episodes too, and more tasks are solved.",
        "maze",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 20},
        theirs={"kl-coef": 0.0},
    ),
)
def echo(
    observation_coef: float = 0.1,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    group_size: int = 8,
) -> Recipe:
    r"""Environment Cross-entropy Hybrid Objective: GRPO on what the policy does, cross-entropy on what the environment says to it.

    .. math:: L = L_{GRPO} - \frac{\lambda}{\sum_i|O_i|}\sum_i\sum_{t\in O_i}\log\pi_\theta(o_{i,t}\mid q_i, o_{i,<t})

    :math:`O_i` are the places of episode i that others wrote after its first turn: tool output, observations, and the template
    around them; lambda = ``observation_coef``. Each term is over the number of its own tokens, so that neither thins the other
    out. A failed episode teaches what the environment does. Without turns, and with lambda 0, it is GRPO.

    Sources: ECHO, arXiv:2605.24517, from third parties' accounts, and prime-rl's algorithm of this name (lambda 0.1, a mean over
    the tokens of the step). Our reading: every token that somebody else wrote after the first turn, where prime-rl takes the
    bodies of tool messages if the renderer knows them and the paper leaves warnings out; no KL by default. What others said is
    a row of its own behind the same tokens, which is exact and costs these rows a second pass; the paper takes one.
    """
    parent = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    if not observation_coef:
        return parent
    return parent.replace(
        source=WithObservations(size=group_size),
        advantage=BySource(inner=require(parent.advantage), rows=FromProgram()),
        aggregate=OwnTokens(inner=parent.aggregate),
        regularizers=(*parent.regularizers, Likelihood(coef=observation_coef, rows=FromProgram(main=False))),
    )
