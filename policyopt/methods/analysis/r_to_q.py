"""From r to Q*."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.part import Count, Positive, Probe, RoleName, Shape, Statistic, part
from policyopt.parts import SoftValue
from policyopt.registry import study
from policyopt.rows import Batch, masked
from policyopt.schema import member
from policyopt.sources.program import Context, Question, Response, Rollout

# Values and rewards --------------------------------------------------------------------------------------------------


@part
class TokenCredit(Shape):
    r"""The reward of each token that a model holds inside which was trained by DPO.

    .. math:: c_t = \beta\log\frac{\pi(y_t)}{\pi_{ref}(y_t)},\qquad r_t = c_t + V(s_t) - V(s_{t+1}),\qquad
              \sum_t r_t = V(s_1) + \sum_t c_t

    c is the credit; r is the reward for which the logits are the optimal soft Q (V is 0 after the end). They differ by potential
    shaping, so they have the same optimal policy, and V drops out of any comparison of responses to one prompt. Either
    comes on top of the token rewards that are there. Source: arXiv:2404.12358.
    """

    of: Literal["policy"] | RoleName = "teacher"
    """Whose credit: a model in a role, or the policy as it sampled."""
    beta: Positive = 0.1
    """beta, that of the model's training."""
    potential: bool = False
    """r in the place of c."""

    @property
    def needs(self) -> frozenset[str]:
        """The reference, and the model where it is not the policy."""
        return frozenset({"ref_logp"}) | (frozenset() if self.of == "policy" else {member("logp_of", self.of)})

    @property
    def fixed(self) -> tuple[Statistic, ...]:
        return (SoftValue(beta=self.beta, of=self.of),) if self.potential else ()

    def credit(self, batch: Batch) -> Tensor:
        """c, [N, T]."""
        logp = batch.old_logp if self.of == "policy" else batch.logp_of(self.of)
        return masked(self.beta * (logp - batch.ref_logp), batch.mask)

    def __call__(self, batch: Batch) -> Batch:
        found = self.credit(batch)
        for statistic in self.fixed:
            value = masked(batch.fixed(statistic), batch.mask)
            found = found + value - torch.nn.functional.pad(value[:, 1:], (0, 1))
        return batch.replace(token_reward=found if batch.token_reward is None else batch.token_reward + found)


@part
class ImplicitOrder(Probe):
    r"""Whether the policy's implicit rewards :math:`\beta\log(\pi/\pi_{ref})` of its own responses order them as their rewards do.

    Over all pairs of an evaluation's responses to a prompt with unequal rewards: ``implicit/accuracy``, the share of pairs whose better
    response has the higher implicit reward (a half for equal ones); ``implicit/better`` and ``implicit/worse``, the mean implicit
    reward of either side. No numbers where all rewards are equal. Source: arXiv:2404.12358, from what it says of DPO's rewards.
    """

    beta: Positive = 0.1
    """beta."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})

    def samples(self, reward: Tensor, log_ratio: Tensor) -> dict[str, float]:
        implicit = self.beta * log_ratio.double()
        prompt, better, worse = (reward[:, :, None] > reward[:, None, :]).nonzero(as_tuple=True)
        if not len(prompt):
            return {}
        high, low = implicit[prompt, better], implicit[prompt, worse]
        return {
            "implicit/accuracy": float(((high - low).sign() + 1).mean() / 2),
            "implicit/better": float(high.mean()),
            "implicit/worse": float(low.mean()),
        }


# Search --------------------------------------------------------------------------------------------------------------


@part
class BeamSearch(Rollout):
    r"""The likeliest response that a beam of ``width`` beginnings finds, by :math:`\sum_t\log\pi(y_t)`; for the slot ``decode``.

    In every step each open beginning is gone on with by its ``width`` likeliest tokens, and the ``width`` likeliest of what there is
    then, whole responses among it, are kept; it ends when all of these are whole. Width 1 is greedy. For a policy trained by
    DPO this is a search for the largest Q; very wide beams find what the model merely overrates. Source: arXiv:2404.12358,
    section 5.2. Our reading: no length normalisation, as sums are what adds up to Q.
    """

    size: Count = 1
    """Responses that are returned, the likeliest first."""
    width: Count = 5
    """Beginnings that are kept."""

    asks: ClassVar[frozenset[str]] = frozenset({"top alternatives"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        kept = [Response([], [], [], temperature=self.temperature)]
        for _ in range(question.budget):
            open_ = [r for r in kept if not r.finished]
            if not open_:
                break
            grown = await asyncio.gather(*(self._grown(question, context, r) for r in open_))
            every = [r for r in kept if r.finished] + [r for responses in grown for r in responses]
            kept = sorted(every, key=lambda r: -sum(r.logp))[: self.width]
        return kept[: self.size]

    async def _grown(self, question: Question, context: Context, start: Response) -> list[Response]:
        """A beginning with each of its likeliest next tokens."""
        [piece] = await context.sampler.generate(
            (*question.tokens, *start.tokens), n=1, max_tokens=1, temperature=0.0, key=question.key, top=self.width, keep=True
        )  # fmt: skip
        [(ids, logps)] = piece.top
        end = piece.tokens if piece.finished else context.end
        return [
            dataclasses.replace(
                start,
                tokens=[*start.tokens, token],
                logp=[*start.logp, logp],
                entropy=[*start.entropy, *piece.entropy],
                versions=[*start.versions, *piece.versions],
                stop_reason="eos" if token in (*context.end, *end) else "length",
            )
            for token, logp in zip(ids[: self.width], logps, strict=False)
        ]


@study(
    arxiv="2404.12358", confidence="recalled", use="policyopt train dpo --task pairs:chain_sum --beta 0.1 --with r-to-q"
)
def r_to_q(beta: float = 0.1) -> tuple[Probe, ...]:
    r"""A policy trained by DPO is a Q-function: it says what each token is worth, and its likeliest response is its best.

    .. math:: \pi(a|s) = e^{(Q(s,a) - V(s))/\beta},\qquad Q(s_t,a_t) = r(s_t,a_t) + \beta\log\pi_{ref}(a_t|s_t) + V(s_{t+1}),\qquad
              \sum_t r_t = V(s_1) + \sum_t\beta\log\frac{\pi}{\pi_{ref}}(a_t|s_t)

    Two responses to one prompt share V(s_1), so the preference between them is DPO's. What follows is here as parts, for any
    recipe: :class:`~policyopt.methods.analysis.r_to_q.TokenCredit` among the shapes gives a token the credit that a DPO model
    (``--teacher PATH``) holds, and :class:`~policyopt.methods.analysis.r_to_q.BeamSearch` in the slot ``decode`` answers held-out
    questions by a search over likelihoods. The study measures at evaluations whether implicit rewards order the policy's
    own responses as the judge does. That the chosen texts become less likely while the margin grows is no fault under it:
    the mean implicit reward of responses of the reference starts at 0 and tends to :math:`-\beta\,KL(\pi_{ref}\|\pi)`.

    ``beta`` is that of the training. Source: arXiv:2404.12358, from general knowledge of it; how wide the paper's beams are is not
    known ("few").
    """
    return (ImplicitOrder(beta=beta),)
