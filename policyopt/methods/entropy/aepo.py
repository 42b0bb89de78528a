"""AEPO."""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Thermostat
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Count, Filter, Finite, Fraction, Positive, Unit, Whole, Wrapper, part
from policyopt.parts import BySource, PPOClip, TokenMean
from policyopt.parts.select.rows import main_rows
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response


@part
class RewardedAuxiliary(Wrapper, Advantage):
    r"""The usual advantage on rows of the main program; on auxiliary rows a constant if theirs is large enough, else 0.

    The auxiliary responses to a prompt are a group of their own. With a constant the surrogate is a likelihood term on
    rewarded answers. Source: AEPO, arXiv:2510.08141, and the authors' code (597358816/AEPO), where it is 1.
    """

    inner: Advantage = BySource()
    """The usual advantage, and that of auxiliary rows before it becomes a constant."""
    constant: Positive = 1.0
    """Advantage of a rewarded auxiliary row."""
    threshold: Finite = 0.05
    """Advantage in their own group that auxiliary rows must exceed."""

    def __call__(self, batch: Batch) -> Tensor:
        advantage = self.inner(batch)
        rewarded = self.constant * (advantage > self.threshold).to(advantage)
        return torch.where(main_rows(batch)[:, None], advantage, rewarded) * batch.mask


@part
class ReplaceByAuxiliary(Filter):
    r"""Take rewarded auxiliary rows in the place of as many rows of the main program.

    n = floor(share * min(limit, available)) auxiliary rows with positive advantage replace n rows of the main program;
    all other auxiliary rows go. Source: AEPO, arXiv:2510.08141, the authors' code (597358816/AEPO); the paper's
    coefficient on the auxiliary term is n over the number of rows. Our reading: which n is left to the random numbers
    that came with the rows, where the code takes the first ones; so it does here where a batch has no such numbers.
    """

    limit: Whole = 60
    """Most rows to replace."""
    share: Fraction = 1.0
    """Part of what is available that is used; a controller may move it."""

    needs: ClassVar[frozenset[str]] = frozenset({"noise"})
    unit: ClassVar[Unit] = "batch"

    def used(self, available: int) -> int:
        """n."""
        return int(self.share * min(self.limit, available))

    def __call__(self, batch: Batch) -> Tensor:
        if batch.origin is None:
            return torch.ones_like(batch.mask[:, 0], dtype=torch.bool)
        main = batch.origin == 0
        rewarded = ~main & ((batch.advantage > 0) & batch.mask.bool()).any(-1)
        n = min(self.used(int(rewarded.sum())), int(main.sum()))
        turn = torch.arange(len(main), device=main.device) if batch.noise is None else batch.noise[:, 0]
        return (main & ~first(main, turn, n)) | first(rewarded, turn, n)


def first(rows: Tensor, turn: Tensor, n: int) -> Tensor:
    """Of some rows, boolean [N], the ``n`` whose turn [N] comes first."""
    order = torch.where(rows, turn.double(), torch.inf).argsort(stable=True)
    return rows & torch.zeros_like(rows).index_fill(0, order[:n], True)


@part
class GroupWithAuxiliary(Group):
    """A group, and for every ``every``-th prompt as many auxiliary responses at a temperature of their own.

    Auxiliary rows have ``origin`` 1. Their log-probabilities are those of the main temperature: the policy that is
    trained is asked for what a hotter or colder copy of it wrote. Source: AEPO, arXiv:2510.08141, and the authors' code
    (597358816/AEPO), where they answer the first quarter of the prompts.
    """

    auxiliary_temperature: Annotated[float, Field(gt=0, le=10)] = 1.2
    """Sampling temperature of the auxiliary responses; a controller may move it."""
    every: Count = 4
    """One prompt in so many has them."""

    needs: ClassVar[frozenset[str]] = frozenset({"rollout_logp"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        if question.key[-1] % self.every:
            return await super().draw(question, context)
        main, auxiliary = await asyncio.gather(
            super().draw(question, context),
            context.sampler.generate(
                question.tokens, n=self.size, max_tokens=question.budget, temperature=self.auxiliary_temperature,
                key=(*question.key, -1),
            ),
        )  # fmt: skip
        for response in auxiliary:
            response.origin, response.temperature = 1, self.temperature
        return [*main, *auxiliary]


@method(
    parent=grpo,
    arxiv="2510.08141",
    code="597358816/AEPO",
    confidence="code",
    claim=Claim(
        "Entropy stays at a target that one chooses, where GRPO's falls, and as many answers are right.",
        "many-answers",
        (Effect("entropy", "higher", 0.02), Effect("accuracy", "higher", -0.02)),
        ours={"entropy-target": 0.25},
        theirs={"kl-coef": 0.0},
    ),
)
def aepo(
    entropy_target: float = 0.5,
    t_high: float = 1.2,
    t_low: float = 0.8,
    n_reinforce: int = 60,
    select_threshold: float = 0.05,
    strength: float = 1.0,
    every: int = 4,
    low: float | None = 0.2,
    high: float | None = 0.2,
    dual: float | None = 3.0,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO whose entropy is held at a target by imitating rewarded answers of a hotter or a colder copy of the policy.

    .. math:: \nabla J = \nabla J_{GRPO} + \alpha\,\mathbb E_{o\sim\pi^T}[R(o)\,\nabla\log\pi_\theta(o)],\qquad
              T = T_{high}\ (\hat H \le H_0),\quad T_{low}\ (\hat H > H_0)

    One prompt in ``every`` is answered at temperature T as well. Of these rows the rewarded ones (group advantage above
    ``select_threshold``), at most ``n_reinforce``, half as many while cooling, get advantage ``strength`` and replace as
    many rows of the batch, after the advantages of full groups; they are scored at the main temperature. The loss is
    dual-clip PPO over the token mean. H is the log's ``entropy`` of the step before, T its ``control/source.auxiliary_temperature``.
    Defaults from the authors' code, where groups have 5 rows and 60 rows are 2 % of the batch. Our reading: alpha is the share of replaced
    rows, as in the code; H is the exact entropy at sampling, where the code has its estimate from sampled tokens.
    """
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        source=GroupWithAuxiliary(size=group_size, auxiliary_temperature=t_high, every=every),
        advantage=RewardedAuxiliary(constant=strength, threshold=select_threshold),
        select=(ReplaceByAuxiliary(limit=n_reinforce),),
        surrogate=PPOClip(low, high, dual=dual),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
        controllers=(
            Thermostat("source.auxiliary_temperature", entropy_target, t_high, t_low, label="temperature"),
            Thermostat("select.ReplaceByAuxiliary.share", entropy_target, below=1.0, above=0.5, label="share"),
        ),
    )
