"""IterResearch with EAPO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max
from policyopt.items import Message, user
from policyopt.methods.ratio.gspo import gspo
from policyopt.part import Count, Filter, Shape, Unit, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.desk import Desk
from policyopt.sources.draw import Pieces
from policyopt.turns import episode_of

_LONGEST = 20_000
"""Characters of a report that are kept."""


@part
class Workspace(Pieces):
    """Episodes in which every round has a context of its own: the question, the report so far, the last action and what came of it.

    The report is what the policy writes between ``begin`` and ``end``; one that writes none keeps the one that it had. The rest of a turn is
    its action. What is older is dropped, so that prompts do not grow with the rounds. Source: arXiv:2511.07327; the words are ours.
    """

    rewrites: ClassVar[bool] = True

    begin: str = "<report>"
    """What stands before the report in a turn."""
    end: str = "</report>"
    """What stands behind it."""

    async def rewrite_context(self, desk: Desk) -> Sequence[Message] | None:
        before, found, rest = desk.wrote.rpartition(self.begin)
        written, closed, after = rest.partition(self.end)
        if found and closed:
            desk.carried["report"] = written.strip()[:_LONGEST]
        action = f"{before}{after}" if found and closed else desk.wrote
        result = "\n".join(m["content"] for m in desk.said)
        told = (("Report", desk.carried.get("report", "")), ("Last action", action.strip()), ("Result", result))
        return user("\n".join(f"{name}: {text}" for name, text in told if text) or "Go on.")


@part
class RoundDiscount(Shape):
    r"""The reward of an episode in each of its rounds, less the earlier the round was.

    .. math:: r_{j,t} = \gamma^{T_j - t} R_j

    T is how many rows (rounds) the episode has; the last one has R itself, whatever the length. Of two episodes that are worth the same
    the shorter has the larger rewards. Source: EAPO, arXiv:2511.07327.
    """

    gamma: Annotated[float, Field(gt=0, le=1)] = 0.95
    """gamma, per round."""

    needs: ClassVar[frozenset[str]] = frozenset({"episode", "turn"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Batch:
        if batch.turn is None:
            return batch
        turn = batch.turn.to(batch.reward)
        return batch.replace(reward=batch.reward * self.gamma ** (group_max(turn, episode_of(batch)) - turn))


@part
class WholeMultiple(Filter):
    """As many rows as the largest multiple of a number that there are, which ones by chance.

    Episodes have unequal numbers of rounds; some engines want rows in equal portions. Source: adaptive downsampling, arXiv:2511.07327, where
    the number is the data-parallel size. Our reading: rows leave by chance, after credit was given.
    """

    of: Count = 8
    """The number."""

    needs: ClassVar[frozenset[str]] = frozenset({"noise"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        keep = torch.zeros(len(batch.mask), dtype=torch.bool, device=batch.mask.device)
        keep[masked(batch.noise, batch.mask).amax(1).argsort(stable=True)[: len(keep) // self.of * self.of]] = True
        return keep


@method(
    parent=gspo,
    arxiv="2511.07327",
    code="Chen-GX/IterResearch",
    confidence="secondary",
    claim=Claim(
        "Where each round is a context of its own with a report in it, long tasks are solved that outgrow a single context.",
        "history:20",
        (Effect("accuracy", "higher", 0.03),),
        ours={"minibatches": 1},
        theirs={"minibatches": 1},
    ),
)
def iterresearch_eapo(
    gamma: float = 0.95,
    multiple: int = 1,
    low: float | None = 3e-4,
    high: float | None = 4e-4,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""IterResearch with Efficiency-Aware Policy Optimization: every round of an episode is a row in a context that was built anew.

    .. math:: s_{t+1} = (q, M_{t+1}, a_t, o_t),\qquad r_{j,t} = \gamma^{T_j - t}R_j,\qquad A_{j,t} = \frac{r_{j,t} - \mathrm{mean}_q r}{\mathrm{std}_q r + \epsilon}

    A turn writes a report M and an action a; of all before only these and the answer o are read in the next one (:class:`Workspace`). The
    reward counts less for early rounds of long episodes (:class:`RoundDiscount`), and is normalised over all rounds of all episodes of the
    question, so that long ones weigh more. The loss is GSPO's, one ratio for a round. ``multiple`` trims the rows of a step to a multiple
    of it (:class:`WholeMultiple`; the authors' is their data-parallel size). With one round it is GSPO. Source: arXiv:2511.07327, from
    third parties' descriptions; gamma and the bounds are not given there: ours are 0.95 and those of GSPO. Our reading: ddof 1.
    """
    return gspo(low, high, minibatches=minibatches).replace(
        source=Workspace(size=group_size),
        shape=(RoundDiscount(gamma=gamma),),
        select=(WholeMultiple(of=multiple),) if multiple > 1 else (),
    )
