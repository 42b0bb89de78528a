"""Past-token prediction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, part
from policyopt.parts import BySource, FromProgram, Likelihood, OwnTokens
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response, Rollout, Sampler


def chunk_loss(error: Tensor, past: int, weight: float = 1.0) -> Tensor:
    r"""The mean of the errors [..., k + l + 1] of a chunk of actions of which the first k = ``past`` are over already and count
    ``weight`` times; with weight 0 that of the policy alone.

    .. math:: \frac{w\sum_{\tau < k} e_\tau + \sum_{\tau \ge k} e_\tau}{wk + l + 1}

    Source: Past-Token Prediction, arXiv:2505.09561, where e is a squared error and w = 1.
    """
    factor = torch.ones_like(error)
    factor[..., :past] = weight
    return (factor * error).sum() / factor.sum()


def most_agreeing(errors: Sequence[float]) -> int:
    """Which of several candidates agrees best with what was done, by its errors; the first of equal ones."""
    return min(range(len(errors)), key=lambda i: errors[i])


def unheard(tokens: Sequence[int], own: Sequence[bool]) -> tuple[int, ...]:
    """Of an episode what the policy did not say itself."""
    return tuple(t for t, mine in zip(tokens, own, strict=True) if not mine)


@part
class Recalling(Group):
    """A group, and for each episode of several turns a row in which the policy says what it had done before its last turn
    (``origin`` 1).

    That row stands behind the prompt and all that the world said up to the last turn, without anything that the policy said
    itself; so it has to be told from what came of it. Its log-probabilities are the policy's own. Source: Past-Token
    Prediction, arXiv:2505.09561. Our reading for language models: the policy of the paper does not see its past actions, one
    that reads its own text does.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})
    uses: ClassVar[frozenset[str]] = frozenset({"judge"})
    plays: ClassVar[bool] = True

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        recalled = await asyncio.gather(*(self.recalled(r, question, context) for r in group))
        return [*group, *(row for row in recalled if row is not None)]

    async def recalled(self, episode: Response, question: Question, context: Context) -> Response | None:
        """The row of an episode; ``None`` for one of a single turn."""
        if False not in episode.own:
            return None
        last = len(episode.own) - episode.own[::-1].index(False)
        tokens, own = episode.tokens[:last], episode.own[:last]
        heard = (*(episode.context or question.tokens), *unheard(tokens, own))
        done = unheard(tokens, [not mine for mine in own])
        row = await context.sampler.logprobs(heard, done, temperature=episode.temperature)
        [row.verdict] = await context.judge([episode])  # its own text is no answer that anybody could judge
        row.origin, row.context, row.stop_reason = 1, heard, "eos"
        return row


class Verifying:
    """A sampler that draws ``candidates`` for each turn of an episode and keeps the one that makes what was done before
    likeliest.

    .. math:: b^* = \\mathrm{argmax}_b\\ \\log\\pi(a_{<t} \\mid o_{\\le t}, a_t^{(b)})

    The actions before are judged behind all that the world said and the candidate, as :class:`Recalling` has them learned.
    """

    def __init__(self, sampler: Sampler, candidates: int) -> None:
        self.sampler, self.candidates = sampler, candidates
        self.said: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        """Where the policy's own tokens lie, by episode."""

    async def generate(
        self, tokens: Sequence[int], *, key: tuple[int, ...], temperature: Any = 1.0, **how: Any
    ) -> list[Response]:
        """One continuation, the best of the candidates; ``key`` is that of the episode and the turn."""
        how["n"] = self.candidates
        drawn = await self.sampler.generate(tokens, key=key, temperature=temperature, **how)
        spans = self.said.setdefault(key[:-1], [])
        chosen = drawn[0]
        if spans and len(drawn) > 1:
            own = [any(a <= i < b for a, b in spans) for i in range(len(tokens))]
            heard, done = unheard(tokens, own), unheard(tokens, [not mine for mine in own])
            asked = [self.sampler.logprobs((*heard, *r.tokens), done, temperature=1.0) for r in drawn]
            chosen = drawn[most_agreeing([-sum(row.logp) for row in await asyncio.gather(*asked)])]
        spans.append((len(tokens), len(tokens) + len(chosen.tokens)))
        return [chosen]

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        """As the sampler within."""
        return await self.sampler.logprobs(tokens, written, temperature=temperature)

    def embed(self, ids: Tensor) -> Tensor:
        """As the sampler within."""
        return self.sampler.embed(ids)

    @property
    def vocab(self) -> int:
        """As the sampler within."""
        return self.sampler.vocab


@part
class SelfVerified(Rollout):
    """One episode, in each turn of which the candidate is taken that makes the policy's own earlier actions likeliest
    (:class:`Verifying`).

    The first turn has nothing to be verified by, and neither has a task of one turn: the first candidate is taken. Source:
    Past-Token Prediction, arXiv:2505.09561 (self-verification). Our reading for language models: a likelihood in the place of a
    squared error.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})
    plays: ClassVar[bool] = True

    size: Count = 1
    """Episodes of a prompt."""
    candidates: Count = 4
    """B: candidates for each turn; 1 verifies nothing."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        if context.episodes is None:
            return await context.answers(question, n=self.size, temperature=self.temperature, key=question.key)
        verifying = Verifying(context.sampler, self.candidates)
        return await context.episodes(question, verifying, n=self.size, temperature=self.temperature, key=question.key)


@method(
    parent=grpo,
    arxiv="2505.09561",
    confidence="secondary",
    claim=Claim(
        "Who learns to tell from what came of it what was done remembers it: questions about long histories are answered better.",
        "history",
        (Effect("accuracy", "higher", 0.02),),
        ours={"candidates": 0},
        theirs={"kl-coef": 0.0},
    ),
)
def past_token_prediction(
    past_coef: float = 0.1, candidates: int = 4, low: float | None = 0.2, high: float | None = 0.2, kl_coef: float = 0.0,
    group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""GRPO whose policy also learns to tell its own earlier actions from what the world said, and is verified by it when it
    acts.

    .. math:: L = L_{GRPO} - \frac{w}{\sum|a_{<K}|}\sum_i \log\pi_\theta(a_{i,<K} \mid o_{i,\le K}),\qquad
              b^* = \mathrm{argmax}_b \log\pi_\theta(a_{<t} \mid o_{\le t}, a^{(b)}_t)

    Each episode of several turns is followed by a row in which the policy's own words are cut out of what it reads, and are
    what it has to say (:class:`Recalling`); w = ``past_coef``. Before and after training the held-out tasks are played with
    ``candidates`` for each turn too, of which the one is taken that explains the past best (:class:`SelfVerified`; 0 for none;
    ``accuracy/decode``). With w = 0 and 0 candidates, and where an episode is one turn, it is GRPO. Source: arXiv:2505.09561,
    from a third party's account, for diffusion policies of robots, whose policy regresses past and future actions alike
    (:func:`~policyopt.methods.agents.past_token_prediction.chunk_loss`). Our reading: the form for language models, and both
    numbers; their third idea, to train on embeddings that are kept, has no counterpart here.
    """
    parent = grpo(low, high, kl_coef, group_size=group_size)
    verified = SelfVerified(candidates=candidates) if candidates else None
    if not past_coef:
        return parent.replace(decode=verified)
    return parent.replace(
        source=Recalling(size=group_size),
        advantage=BySource(inner=require(parent.advantage), rows=FromProgram()),
        aggregate=OwnTokens(inner=parent.aggregate),
        regularizers=(*parent.regularizers, Likelihood(coef=past_coef, rows=FromProgram(main=False), mean="token")),
        decode=verified,
    )
