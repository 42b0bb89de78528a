"""SPO, the one with a single stream."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_sum, whiten
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Count, Curriculum, Fraction, Memory, NonNegative, Positive, Unit, Whole, part
from policyopt.parts import PPOClip, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean
from policyopt.schema import column
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response

column(
    "drift",
    sentence="how far the policy has moved since it last answered the prompt: mean absolute difference, in nats per token, of what it "
    "says of the response that it gave then; 0 where the prompt is new, infinite where that response is no longer kept",
    filled_by="program",
    advice="take the source Revisited()",
)
column(
    "prior",
    sentence="smoothed share of right responses among those that were drawn beforehand to a new prompt; NaN where none were",
    filled_by="program",
    absent=math.nan,
    invent=lambda s: 0.05 + 0.9 * s.uniform(s.n),
    advice="take the source Revisited()",
)


def moved(stored: Tensor, now: Tensor, mask: Tensor) -> Tensor:
    r"""[N] the drift :math:`\frac1T\sum_t|\log\pi_{stored}(y_t) - \log\pi_{now}(y_t)|` from log-probabilities [N, T]."""
    return masked_mean((stored - now).abs(), mask, dim=-1)


def smoothed(rewards: Sequence[float]) -> float:
    r"""The share of right ones of n rewards in [0, 1] with half a success and half a failure more, :math:`\frac{\sum s + 1/2}{n + 1}`; NaN
    for none."""
    held = [min(max(x, 0.0), 1.0) for x in rewards]
    return (sum(held) + 0.5) / (len(held) + 1) if held else math.nan


def expected(batch: Batch) -> Tensor:
    r"""[N] v, what a response to the prompt was expected to be worth before this one: :math:`\alpha/(\alpha+\beta)` of the tracker, the
    ``prior`` of a new prompt, 1/2 without one."""
    known = batch.history[:, 0] / batch.history[:, :2].sum(-1)
    new = batch.history[:, 0].isnan()
    prior = torch.full_like(known, math.nan) if batch.prior is None else batch.prior
    return torch.where(new, prior, known).nan_to_num(0.5)


@part
class Revisited(Group):
    r"""A response or several to each prompt; the one that it gave at its last visit is scored again by the policy as it now is.

    How far the two log-probabilities lie apart is the column ``drift``. A prompt that is new is first answered ``initial`` times more:
    these responses are judged and not trained on, and the share of right ones is the column ``prior``. Source: SPO, arXiv:2509.13232, and
    the authors' recipe (verl-project/verl-recipe). Our reading: what they estimate of all prompts before training is estimated at a
    prompt's first visit, where it costs the same and is of the policy as it then is; the last ``prompts`` prompts are remembered. The log
    has the sum of the drifts as ``rollout/drift``, over ``rollout/revisited`` prompts.
    """

    initial: Whole = 8
    r""":math:`n_0`: responses that are drawn beforehand to a new prompt."""
    scored: bool = True
    """Whether the last response is scored again; without it the drift is 0."""
    prompts: Count = 4096
    """Prompts whose last responses are kept, those that were visited last; the drift of others counts as infinite."""

    provides: ClassVar[frozenset[str]] = frozenset({"drift", "prior"})
    plays: ClassVar[bool] = True

    @property
    def uses(self) -> frozenset[str]:
        """The judge, where new prompts are answered beforehand."""
        return frozenset({"judge"}) if self.initial else frozenset()

    @property
    def asks(self) -> frozenset[str]:
        """Scoring what was written before."""
        return frozenset({"scoring"}) if self.scored else frozenset()

    async def draw(self, question: Question, context: Context) -> list[Response]:
        drift = await self.drift(question, context) if self.scored else 0.0
        rows = await super().draw(question, context)
        before: list[Response] = []
        if self.initial and question.history and math.isnan(question.history[0]):
            before = await context.answers(
                question, n=self.initial, temperature=self.temperature, key=(*question.key, -1)
            )
            for response in before:
                response.use = "pool"
        prior = smoothed([v.score for v in await context.judge(before) if v.rewarded]) if before else math.nan
        for response in rows:
            response.columns.update(drift=drift, prior=prior)
        if self.scored and rows:
            await self.keep(rows[0], question, context)
        return [*rows, *before]

    async def drift(self, question: Question, context: Context) -> float:
        """How far the policy has moved since its last visit."""
        stored = context.notes.get("visited", {}).get(_name(question))
        if stored is None:
            seen = bool(question.history) and not math.isnan(question.history[0])
            return math.inf if seen else 0.0
        found = await context.sampler.logprobs(
            tuple(stored["prompt"]), tuple(stored["tokens"]), temperature=stored["temperature"]
        )
        own = stored["own"] or [True] * len(stored["tokens"])
        then, now = torch.tensor([stored["logp"], found.logp], dtype=torch.float64)
        drift = float(moved(then, now, torch.tensor(own, dtype=torch.float64)))
        context.count(drift=drift, revisited=1.0)
        return drift

    async def keep(self, response: Response, question: Question, context: Context) -> None:
        """Keep a response for the next visit, with what the policy says of it."""
        visited: dict[str, Any] = context.notes.setdefault("visited", {})
        prompt, logp = response.context or question.tokens, response.logp
        if any(map(len, response.support)):  # it was drawn from fewer tokens, over which it is not scored again
            scored = await context.sampler.logprobs(
                tuple(prompt), tuple(response.tokens), temperature=response.temperature
            )
            logp = scored.logp
        name = _name(question)
        visited.pop(name, None)
        visited[name] = {
            "prompt": list(prompt), "tokens": list(response.tokens), "logp": list(logp), "own": list(response.own),
            "temperature": response.temperature,
        }  # fmt: skip
        while len(visited) > self.prompts:
            visited.pop(next(iter(visited)))


def _name(question: Question) -> str:
    return question.name or " ".join(map(str, question.tokens))


@part
class BetaTracker(Memory):
    r"""How often a prompt is answered right, as two counts that are forgotten the faster, the more the policy has moved.

    .. math:: \alpha \leftarrow \rho\alpha + r,\quad \beta \leftarrow \rho\beta + 1 - r,\qquad
              \rho = \mathrm{clip}\big(2^{-D/D_{1/2}}, \rho_{min}, \rho_{max}\big)

    r is the reward, held to [0, 1]; D the ``drift``. A new prompt begins with :math:`N_0 = 1/(1 - \rho_{min})` counts, divided as its
    ``prior`` says, or without one with half a count on either side. :math:`\alpha/(\alpha+\beta)` is a moving average whose step is
    :math:`1/(\rho(\alpha+\beta) + 1)`; the counts never exceed :math:`1/(1-\rho_{max})` for long. Several rows of a prompt count each. Source: SPO,
    arXiv:2509.13232, and the authors' recipe (verl-project/verl-recipe), which has the mean absolute difference of log-probabilities where
    the paper speaks of a KL.
    """

    least: Annotated[float, Field(gt=0, lt=1)] = 0.875
    r""":math:`\rho_{min}`."""
    most: Fraction = 0.96
    r""":math:`\rho_{max}`."""
    half: Positive = 0.06
    r""":math:`D_{1/2}`, the drift in nats per token that halves what is remembered."""
    forget: Literal["drift", "constant"] = "drift"
    r"""By how much the policy has moved, or always :math:`\rho_{min}`."""

    width: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"least is {self.least:g}, above most = {self.most:g}: lower least or raise most")

    @property
    def needs(self) -> frozenset[str]:
        """What the program finds out of each prompt."""
        return frozenset({"prior", "drift"} if self.forget == "drift" else {"prior"})

    def __call__(self, batch: Batch) -> Tensor:
        right = batch.total_reward().clamp(0, 1)
        seen = group_sum(torch.stack([right, 1 - right], dim=-1), batch.group)
        return self.kept(batch)[:, None] * self.counts(batch) + seen

    def counts(self, batch: Batch) -> Tensor:
        """[N, 2] alpha and beta before the update."""
        new = batch.history[:, :1].isnan()
        value = expected(batch)
        prior = torch.full_like(value, math.nan) if batch.prior is None else batch.prior
        total = torch.where(prior.isnan(), 1.0, 1 / (1 - self.least))
        first = torch.stack([value * total, (1 - value) * total], dim=-1)
        return torch.where(new, first, batch.history[:, :2])

    def kept(self, batch: Batch) -> Tensor:
        """[N] rho, the share of the counts that is kept."""
        if self.forget == "constant":
            return torch.full_like(batch.reward, self.least)
        return torch.exp2(-batch.drift / self.half).clamp(self.least, self.most)


@part
class TrackedBaseline(Advantage):
    r"""Reward minus what the tracker expected of the prompt before it, whitened over the rows of the batch.

    .. math:: a_i = R_i - \hat v_{x_i},\qquad A_{i,t} = \frac{a_i - \mathrm{mean}(a)}{\mathrm{std}(a) + \epsilon}

    Needs the memory :class:`BetaTracker`. Source: SPO, arXiv:2509.13232, and the authors' recipe (verl-project/verl-recipe), ddof 1.
    """

    eps: NonNegative = 1e-8
    """Added to the standard deviation."""

    needs: ClassVar[frozenset[str]] = frozenset({"history", "prior"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        gain = batch.total_reward() - expected(batch)
        return whiten(gain, ddof=1, eps=self.eps)[:, None] * batch.mask


@part
class UncertainFirst(Curriculum):
    r"""Prompts come the oftener, the less certain it is whether they are answered right: with weight
    :math:`\sqrt{\hat v(1 - \hat v)} + \epsilon`.

    Needs the memory :class:`BetaTracker`; of a new prompt v is 1/2. Source: SPO, arXiv:2509.13232, eq. of the prioritised sampling.
    """

    explore: NonNegative = 0.05
    """epsilon, the weight of a prompt that is always or never answered right."""

    needs: ClassVar[frozenset[str]] = frozenset({"history"})

    def weights(self, memory: Tensor) -> Tensor:
        value = (memory[:, 0] / memory[:, :2].sum(-1)).nan_to_num(0.5)
        return (value * (1 - value)).clamp(min=0).sqrt() + self.explore


@method(
    parent=reinforce,
    arxiv="2509.13232",
    code="verl-project/verl-recipe",
    confidence="code",
    claim=Claim(
        "One response to a prompt, against what is remembered of it, leaves no prompt silent, and from as many tokens as many answers are right as from "
        "groups, or more.",
        "mixed-difficulty",
        (Effect("signal/groups", "higher", 0.2), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        both={"stopping.tokens": 90_000, "steps": 80},
        ours={"initial": 0},
        theirs={"kl-coef": 0.0},
    ),
)
def spo_single_stream(
    rho_min: float = 0.875, rho_max: float = 0.96, d_half: float = 0.06, forget: Literal["drift", "constant"] = "drift",
    initial: int = 8, explore: float = 0.05, pool: int = 1024, low: float | None = 0.2, high: float | None = 0.28, dual: float | None = 10.0,
    minibatches: int = 1, group_size: int = 1,
) -> Recipe:  # fmt: skip
    r"""Single-stream Policy Optimization: one response to each prompt, held against what is remembered of the prompt.

    .. math:: A_i = \frac{a_i - \mathrm{mean}_{batch}(a)}{\mathrm{std}_{batch}(a)},\quad a_i = r_i - \hat v_{x_i},\qquad
              \hat v = \frac{\alpha}{\alpha+\beta},\quad (\alpha, \beta) \leftarrow \rho\,(\alpha, \beta) + (r, 1 - r)

    No group, so none is silent and nobody waits for its slowest row. The counts of a prompt (:class:`BetaTracker`) are kept in the
    checkpoint; they are forgotten by how far the policy has moved on the response that the prompt had last (:class:`Revisited`:
    one pass without gradient over it), or at a constant rate with ``forget="constant"``. v is the value before this response. Prompts
    come by their uncertainty (:class:`UncertainFirst`); of a task that makes them on demand ``pool`` are drawn from, for they have to
    come again. A new prompt is answered ``initial`` times more for its first estimate, which costs as much as drawing so many; 0 begins
    with half a count on either side. Rewards are between 0 and 1.

    Source: arXiv:2509.13232 and the authors' recipe (verl-project/verl-recipe): clip 0.2 and 0.28, ceiling 10, no KL, mean over tokens, 8
    updates on a batch (``minibatches``). Our reading: the estimates beforehand are made when a prompt first comes; drift is that between
    the policies that answered at two visits, which is what the paper says of it.
    """
    parent = reinforce(baseline="none", group_size=group_size)
    return parent.replace(
        source=Revisited(size=group_size, initial=initial, scored=forget == "drift"),
        advantage=TrackedBaseline(),
        surrogate=PPOClip(low=low, high=high, dual=dual),
        aggregate=TokenMean(),
        memory=BetaTracker(least=rho_min, most=rho_max, half=d_half, forget=forget),
        curriculum=UncertainFirst(explore=explore, pool=pool),
        update=Update(minibatches=minibatches),
    )
