"""RA3."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim
from policyopt.errors import UserError
from policyopt.groups import group_mean
from policyopt.items import Verdict
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Count, NonNegative, RoleName, Unit, part
from policyopt.parts import Cloned, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response


def step_reward(logp: float, think: bool, penalty: float) -> float:
    """How likely the expert's next line is, in nats, less the price of a new latent."""
    return logp - penalty * think


def kl_to_prior(keep: Tensor, entropy: Tensor, alpha: float, latents: int) -> Tensor:
    r"""What a latent costs in the bound :math:`\log\pi(a_{0:T}) \ge \sum_t E_q[\log\pi(a_t|z_t)] - KL(q \| p)`, step by step.

    .. math:: KL_t = KL_{Bern}(q_t \| \alpha) + (1 - q_t)\,(\log K - h_t)

    q = ``keep`` is the probability of going on with the latent before, h the entropy of a new one among K = ``latents``; the prior keeps it with probability alpha and else
    draws a new one uniformly. Source: RA3, arXiv:2509.25810, for a uniform distribution over new latents, which is our reading.
    """
    prior = keep.new_tensor(alpha)
    stays = torch.xlogy(keep, keep) - torch.xlogy(keep, prior)
    leaves = torch.xlogy(1 - keep, 1 - keep) - torch.xlogy(1 - keep, 1 - prior)
    return stays + leaves + (1 - keep) * (math.log(latents) - entropy)


def opening(allowed: Sequence[int]) -> Callable[[Tensor, Sequence[Sequence[int]]], Tensor]:
    """A change of logits that leaves these ids alone to choose from as the first token."""

    def only(logits: Tensor, written: Sequence[Sequence[int]]) -> Tensor:
        closed = torch.full_like(logits[0], -torch.inf)
        closed[list(allowed)] = 0
        first = torch.tensor([not tokens for tokens in written], device=logits.device)
        return torch.where(first[:, None], logits + closed, logits)

    return only


@part
class Interleaved(Group):
    r"""The worked solution of a prompt, line by line, before each of which the policy keeps its intent or writes a new one down.

    Before a line it draws one of two tokens: a line break keeps the intent, ``mark`` opens a line of its own words, such as a comment, of ``latent`` tokens at most. The
    line of the solution follows in either case; it is read and not trained on. Each choice is a step, and earns

    .. math:: r_t = \log\pi_{fixed}(a_t \mid x, a_{<t}, z_{\le t}) - c\,1[z_t \text{ is new}]

    with :math:`a_t` the line (``step_reward``, ``step_end``). With ``whole`` the text is one for the policy to imitate, lines and latents. Nothing is judged. A prompt without a worked solution is answered by the policy
    alone, without steps. Where the budget is used up the rest is left out. The log counts lines and new latents. Source: RA3, arXiv:2509.25810, by a third party's account.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"step_reward", "step_end"})
    asks: ClassVar[frozenset[str]] = frozenset({"scoring", "logit processors", "stop sequences", "truncated draws"})

    penalty: NonNegative = 0.05
    """c in nats."""
    mark: Annotated[str, Field(min_length=1)] = "# "
    """How a new latent begins."""
    latent: Count = 16
    """Tokens that it may have."""
    scorer: RoleName = "reference"
    """The model that says how likely a line is, which does not learn."""
    whole: bool = False
    """The row is to be imitated."""

    @property
    def uses(self) -> frozenset[str]:
        """The solutions, and the model that scores."""
        return frozenset({"solutions"} if self.whole else {"solutions", f"sampler_of[{self.scorer}]"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        first = next(iter(context.lines(question.solution)), 0) if question.solution else 0
        if not 0 < first < question.budget - 1:  # no solution, or no room for a line of it and the token before
            context.count(unsolved=1)
            return await super().draw(question, context)
        return list(await asyncio.gather(*(self._row(question, context, i) for i in range(self.size))))

    async def _row(self, question: Question, context: Context, number: int) -> Response:
        """One text: latents and lines in turns."""
        keep, new = context.encode("\n")[:1], context.encode(self.mark)[:1]
        if keep == new:
            raise UserError(
                f"{type(self).__name__}: mark {self.mark!r} begins as a line break does: take another one, such as '# '"
            )
        allowed = sorted({*keep, *new})
        row = Response(
            [], [], [], "eos", temperature=self.temperature, verdict=Verdict(0.0, False, True, "expert text")
        )
        ends, rewards = list[float](), list[float]()
        start = 0
        for line, end in enumerate(context.lines(question.solution)):
            text = question.solution[start:end]
            start = end
            left = question.budget - len(row.tokens) - len(text) - 1
            if left < 1:
                context.count(lines_cut=1)
                row.stop_reason = "length"
                break
            before = (*question.tokens, *row.tokens)
            [latent] = await context.sampler.generate(
                before, max_tokens=min(left, self.latent), temperature=self.temperature, key=(*question.key, number, line),
                stop=context.line_stops(), processor=opening(allowed),
            )  # fmt: skip
            self._write(row, latent, allowed)
            think = latent.tokens[0] != keep[0]
            ends.append(float(len(row.tokens) - 1))
            if not latent.stopped:
                self._read(row, keep)
            if not self.whole:
                scorer, known = context.sampler_of(self.scorer), (*question.tokens, *row.tokens)
                said = await scorer.logprobs(known, tuple(text), temperature=self.temperature)
                rewards.append(step_reward(math.fsum(said.logp), think, self.penalty))
            self._read(row, text)
            context.count(lines=1, latents=float(think))
        if self.whole:
            text = tuple(row.tokens)
            imitated = await context.sampler.logprobs(question.tokens, text, temperature=self.temperature)
            imitated.verdict, imitated.stop_reason = row.verdict, row.stop_reason
            return imitated
        row.columns["step_end"], row.columns["step_reward"] = ends, rewards
        return row

    @staticmethod
    def _write(row: Response, latent: Response, allowed: Sequence[int]) -> None:
        """What the policy wrote, its first token drawn from two; an end token is not kept."""
        n = len(latent.tokens) - (latent.finished and len(latent.tokens) > 1)
        row.tokens += latent.tokens[:n]
        row.logp += latent.logp[:n]
        row.entropy += latent.entropy[:n]
        row.own += [True] * n
        row.support += [tuple(allowed), *[()] * (n - 1)]
        row.versions += (latent.versions or [latent.version] * n)[:n]

    @staticmethod
    def _read(row: Response, text: Sequence[int]) -> None:
        """What somebody else wrote."""
        n = len(text)
        row.tokens += text
        row.logp += [0.0] * n
        row.entropy += [0.0] * n
        row.own += [False] * n
        row.support += [()] * n
        row.versions += [row.version] * n


@part
class LineCredit(Advantage):
    r"""What a step and those after it earn, less what the same line earns in the other responses of the group on average.

    .. math:: A_{i,t} = \sum_{k' \ge k} r_{i,k'} - \mathrm{mean}_j\sum_{k' \ge k} r_{j,k'},\qquad k = \text{the step of token } t

    The steps of a group are the same lines. Source: RA3, arXiv:2509.25810. Our reading: no discount, and this baseline.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"step_reward"})
    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def to_go(self, batch: Batch) -> Tensor:
        """[N, K] what each step and those after it earn; 0 where a row has no such step."""
        there = batch.step_end >= 0
        reward = torch.where(there, batch.step_reward, 0.0)
        return reward.flip(1).cumsum(1).flip(1) * there

    def __call__(self, batch: Batch) -> Tensor:
        there, returns = batch.step_end >= 0, self.to_go(batch)
        n, steps = returns.shape
        place = batch.group[:, None] * steps + torch.arange(steps, device=returns.device)
        mean = group_mean(returns.flatten(), place.flatten(), there.to(returns).flatten()).reshape(n, steps)
        gain = torch.where(there, returns - mean, 0.0)
        position = torch.arange(batch.mask.shape[1], device=returns.device)
        step = (there[:, :, None] & (batch.step_end[:, :, None] < position)).sum(1)
        return (
            torch.where(step < there.sum(1, keepdim=True), gain.gather(1, step.clamp(max=steps - 1)), 0.0) * batch.mask
        )


@method(
    parent=reinforce,
    arxiv="2509.25810",
    confidence="secondary",
    claim=Claim(
        "Mid-training on expert text with intents written into it makes a better start for training with rewards than the text alone.",
        beyond="The gain is that of a billion tokens of code with words of intent, which takes a model that knows both.",
    ),
)
def ra3(
    stage: Literal["latents", "text"] = "latents", penalty: float = 0.05, mark: str = "# ", latent: int = 16, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Reasoning as Action Abstractions: intents that make an expert's next lines likely are found by policy gradient, then written into the text that is learnt.

    .. math:: r_t = \log\pi(a_t \mid s_t, z_t) - c\,1[z_t \ne \langle act\rangle],\qquad L_E = -\sum_t\hat A_t\log\pi_\theta(z_t),\qquad L_M = -\log\pi_\theta(z_{0:T}, a_{0:T})

    The two steps of an EM loop, a run for each, with the model of the one for the other. ``stage`` "latents" trains the choice before each line of the worked solution: to go on (a line break), or to write
    a new intent down, behind ``mark`` (:class:`Interleaved`, :class:`LineCredit`); the likelihood is that of the policy of the start. "text" trains on the solutions with such intents
    in them, as on any text. A new intent has to raise the likelihood of the lines to come by more than c = ``penalty``; with a large one none is opened, and the second stage is fine-tuning on
    the solutions with blank lines in them.

    Source: arXiv:2509.25810, by a third party's account: c 0.05 (0.01 always thinks, 0.2 never). Our reading: undiscounted returns, the baseline, and that both tokens of the choice are drawn
    from each other alone. The bound that the latents raise is :func:`kl_to_prior`'s.
    """
    parent = reinforce(baseline="none", group_size=group_size)
    source = Interleaved(size=group_size, penalty=penalty, mark=mark, latent=latent, whole=stage == "text")
    if stage == "text":
        return parent.replace(source=source, advantage=Cloned(), ratio=None, aggregate=TokenMean())
    return parent.replace(source=source, advantage=LineCredit())
