"""SRPO."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim
from policyopt.data.words import refinement
from policyopt.methods.preference.ipo import ipo
from policyopt.part import Count, Fraction, Positive, Unit, part
from policyopt.parts import Contrast, RowScore, Score
from policyopt.parts.pairing.pairs import row_credit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.given import PreferencePairs
from policyopt.sources.program import Context, Question, Response, Rollout

BETTER = "Give a better answer."
"""What the refiner is asked."""
REFINED = (("chosen", "rejected"), ("rejected", "chosen"), ("chosen", "chosen"), ("rejected", "rejected"))
"""What is written and what it was to improve on, by ``origin``, from 1."""

# Where the rows come from ----------------------------------------------------------------------------------------------


def asked_to_improve(question: Question, context: Context, text: list[int], request: str) -> tuple[int, ...] | None:
    """The prompt in which the policy is to improve on a text; None where it has no room for an answer."""
    return context.asked(refinement(question.text, context.decode(text), request, "").rstrip())


@part
class WithRefinements(PreferencePairs):
    """The pair of each prompt, and both texts again as what a refiner might write that was given either of them: four rows of
    the same group, of ``origin`` 1 to 4 (:data:`REFINED`), each behind the question, the text to improve on, and the request.

    Where the context has no room for them the pair stands alone, and is counted.
    """

    size: Literal[6] = 6  # type: ignore[assignment]
    """Rows for one prompt."""
    request: str = BETTER
    """What the refiner is asked, after the question and the text."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        pair = await super().draw(question, context)
        texts = dict(zip(("chosen", "rejected"), pair, strict=True))
        rows = []
        for origin, (side, given) in enumerate(REFINED, 1):
            asked = asked_to_improve(question, context, texts[given].tokens, self.request)
            if asked is None:
                context.count(pairs_without_room=1)
                return pair
            row = self.row(question, context, side, 1.0 if side == "chosen" else 0.0)
            row.origin, row.context, row.columns["chosen"] = origin, asked, texts[side].columns["chosen"]
            rows.append(row)
        return [*pair, *rows]


@part
class Revisions(Rollout):
    """An answer, and then again and again what the policy writes when it is asked to improve on its last one. The last is
    returned; it is an earlier one where the context has no room for another."""

    size: Literal[1] = 1
    """Responses to one prompt."""
    revisions: Count = 5
    """How often it is revised."""
    request: str = BETTER
    """What the policy is asked, after the question and its answer."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        prompt: tuple[int, ...] | None = question.tokens
        answer: list[Response] = []
        for turn in range(1 + self.revisions):
            if prompt is None:
                break
            answer = await context.sampler.generate(
                prompt, n=1, max_tokens=question.budget, temperature=self.temperature, key=(*question.key, turn)
            )
            prompt = asked_to_improve(question, context, answer[0].tokens, self.request)
        return answer


# The loss --------------------------------------------------------------------------------------------------------------


@part
class SelfImproving(Contrast):
    r"""Squared errors of a generator and of a refiner that are one model, on the six rows of each pair.

    .. math:: L_g = \Big[\tfrac\beta2\big((a_{w|l} + b_w) - (a_{l|w} + b_l)\big) - d\Big]^2,\quad
              L_r = \tfrac12\Big[\big[\beta(a_{w|l} - a_{l|l}) - d\big]^2 + \big[\beta(a_{l|w} - a_{w|w}) + d\big]^2\Big],\quad
              L = (1-\alpha)L_g + \alpha L_r

    b are the scores of both texts behind the prompt, :math:`a_{y|z}` of the text y behind the request to improve on z; :math:`d = p - \frac12`, with p
    the probability that w is preferred: half of 1 plus what its advantage exceeds that of l by. The mean is over pairs that have all six
    rows. Source: SRPO, arXiv:2406.01660. Our reading: the constants, from the conditions of the optimum.
    """

    score: Score = RowScore(against="reference")
    """The number that stands for a row."""
    beta: Positive = 0.1
    """The strength of both KLs."""
    alpha: Fraction = 0.5
    """How much of the loss is the refiner's alone."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """The sides of the pairs, and what the score reads."""
        return super().needs | {"chosen"}

    def sixes(self, batch: Batch) -> Tensor:
        """The rows of each whole pair, [P, 6]: chosen, rejected, then those of the origins 1 to 4."""
        origin = torch.zeros_like(batch.group) if batch.origin is None else batch.origin.to(batch.group)
        kind = torch.where(origin == 0, (batch.chosen < 0.5).to(origin), origin + 1)
        _, place = batch.group.unique(return_inverse=True)
        table = torch.full((len(batch.mask), 6), -1, device=batch.mask.device)
        table[place, kind] = torch.arange(len(batch.mask), device=batch.mask.device)
        return table[(table >= 0).all(1)]

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each pair [P], and its rows [P, 6]."""
        rows = self.sixes(batch)
        b_w, b_l, w_l, l_w, w_w, l_l = (self.beta * self.score(batch)[rows]).unbind(1)
        credit = row_credit(batch)[rows]
        d = (credit[:, 0] - credit[:, 1]) / 2
        generator = (((w_l + b_w) - (l_w + b_l)) / 2 - d) ** 2
        refiner = ((w_l - l_l - d) ** 2 + (l_w - w_w + d) ** 2) / 2
        return (1 - self.alpha) * generator + self.alpha * refiner, rows

    def rows(self, batch: Batch) -> Tensor:
        loss, rows = self.losses(batch)
        shared = torch.zeros_like(batch.mask[:, 0]).index_add(0, rows.flatten(), (loss / 6).repeat_interleave(6))
        return shared * (len(batch.mask) / max(1, len(rows)))


@method(
    parent=ipo,
    arxiv="2406.01660",
    confidence="recalled",
    claim=Claim(
        "Five revisions of its own answers win far more often than what DPO answers, on texts unlike those of the training too.",
        beyond="It takes a model that can rewrite what it is shown; the embedded one knows prompts of its task alone.",
    ),
)
def srpo(beta: float = 0.1, alpha: float = 0.5, revisions: int = 0) -> Recipe:
    r"""Self-Improving Robust Preference Optimization: one model learns to answer, and to improve on an answer that it is shown.

    .. math:: L = (1-\alpha)\Big[\tfrac\beta2\big((a_{w|l} + b_w) - (a_{l|w} + b_l)\big) - d\Big]^2
              + \tfrac\alpha2\Big[\big[\beta(a_{w|l} - a_{l|l}) - d\big]^2 + \big[\beta(a_{l|w} - a_{w|w}) + d\big]^2\Big]

    .. math:: b_y = \log\frac{\pi_\theta(y|x)}{\pi_{ref}(y|x)},\qquad a_{y|z} = \log\frac{\pi_\theta(y|z,x)}{\pi_{ref}(y|z,x)},\qquad d = p(w\succ l) - \tfrac12

    The refiner improves on what the generator leaves to improve, and both are held to the reference: a game whose solution is that of a square loss, which
    does not depend on who wrote the texts. Each pair is six rows (:class:`WithRefinements`). alpha 1 trains the refiner alone. The held-out
    questions are also answered by ``revisions`` rounds of :class:`Revisions`, where it is above 0; the paper has 5. From general knowledge of the paper:
    alpha and beta are ours. Our reading: the constants, which follow from the conditions of the optimum; the words of the request.
    """
    return ipo().replace(
        source=WithRefinements(),
        surrogate=SelfImproving(beta=beta, alpha=alpha),
        decode=Revisions(revisions=revisions) if revisions else None,
    )
