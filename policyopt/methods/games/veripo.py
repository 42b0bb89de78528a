"""VerIPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, Curriculum, Fraction, Level, Surrogate, Unit, Wrapper, part
from policyopt.parts import FromProgram, LastAccuracy, Logistic, Pairs, PairSelector, PPOClip, Reset
from policyopt.parts.pairing.pairs import first_best
from policyopt.parts.select.rows import main_rows, over_rows
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response

# The verifier --------------------------------------------------------------------------------------------------------

REASONS = ("accuracy", "consistency", "repetition")
"""What a response is rejected for, the first that it fails."""


def verified(
    group: Tensor, length: Tensor, correct: Tensor, consistent: Tensor, repetitive: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of rollouts, [P] each: the longest clean one of a prompt (right, consistent, without repetition; the first of equal ones), each one
    that is not clean, and the number of its reason. From columns [N]; the last three are boolean."""
    fails = torch.stack([~correct, ~consistent, repetitive], 1)
    clean = ~fails.any(1)
    best = first_best(length.double(), group, clean)
    worse = (~clean & torch.isin(group, group[best])).nonzero()[:, 0]
    place = (group[worse][:, None] == group[best]).long().argmax(1) if len(best) else worse
    return best[place], worse, fails[worse].long().argmax(1)


def repetition(tokens: Sequence[int], n: int) -> float:
    """The share of the pieces of ``n`` tokens of a text that were there before; 0 for a shorter text."""
    pieces = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(pieces)) / len(pieces) if pieces else 0.0


def consistent(verdict: Verdict) -> bool:
    """Whether a judge lets the answer follow from the thinking; so too where it does not say."""
    said = verdict.parts.get("consistency", 0.0)
    return isinstance(said, int | float) and said >= 0


@part
class VerifiedPairs(PairSelector):
    """The longest clean response to a prompt against each one that is wrong, contradicts itself, or repeats itself; none where no response is
    clean.

    A response contradicts itself where a judge says so (``consistency`` below 0). It repeats itself where more than ``most`` of its
    pieces of ``piece`` tokens were there before. Source: VerIPO, arXiv:2505.19000. Our reading: the two numbers.
    """

    piece: Count = 16
    """Tokens of a piece."""
    most: Fraction = 0.3
    """Largest share of pieces that a clean response repeats."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        mask, right = batch.mask.bool(), batch.correct > 0.5
        texts = [row[own].tolist() for row, own in zip(batch.tokens, mask, strict=True)]
        consistent = torch.ones_like(right) if batch.consistency is None else batch.consistency >= 0
        repeats = torch.tensor([repetition(text, self.piece) > self.most for text in texts], device=right.device)
        better, worse, _ = verified(batch.group, mask.sum(1), right, consistent, repeats.bool())
        return better, worse


# The two phases ------------------------------------------------------------------------------------------------------


@part
class VerifiedGroup(Group):
    """A group, which comes back at the next step (``origin`` 1), with nothing drawn, where the verifier finds pairs in it.

    What comes back takes the place of new prompts; ``back`` says of how many groups this holds. Source: VerIPO, arXiv:2505.19000. Our reading: the phases of the paper, each of a
    whole data set, alternate prompt by prompt.
    """

    choose: VerifiedPairs = VerifiedPairs()
    """The verifier."""
    back: Fraction = 0.5
    """Share of the prompts of a step, evenly spread over it, whose groups may come back; 1 makes steps of either kind in turns."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        if question.earlier:
            for response in question.earlier:
                response.origin, response.later = 1, False
            return list(question.earlier)
        group = await super().draw(question, context)
        number = question.key[-1]
        its_turn = int((number + 1) * self.back) > int(number * self.back)
        back = its_turn and self.teaches(group, await context.judge(group))
        for response in group:
            response.later = back
        return group

    def teaches(self, group: Sequence[Response], verdicts: Sequence[Verdict]) -> bool:
        """Whether there are pairs in a group."""
        clean = [
            v.correct and consistent(v) and repetition(r.tokens, self.choose.piece) <= self.choose.most
            for r, v in zip(group, verdicts, strict=True)
            if v.rewarded
        ]
        return any(clean) and not all(clean)


@part
class Corrected(Wrapper, Surrogate):
    """One surrogate on what was drawn for this step, and a contrast of pairs on what came back (``origin`` above 0).

    Each row counts alike. Source: VerIPO, arXiv:2505.19000.
    """

    inner: Surrogate = PPOClip()
    """The surrogate of new rows."""
    pairs: Pairs = Pairs(link=Logistic(beta=0.1), choose=VerifiedPairs())
    """The contrast."""

    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    @property
    def needs(self) -> frozenset[str]:
        """What either reads."""
        return self.inner.needs | self.pairs.needs

    @property
    def levels(self) -> frozenset[Level]:
        """Those of the inner surrogate."""
        return self.inner.levels

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        own = main_rows(batch)[:, None]
        mine = self.inner(masked(log_ratio, own.expand_as(log_ratio)), batch)
        back = over_rows(lambda rows: self.pairs(rows.mask, rows), FromProgram(main=False), batch)
        return torch.where(own, mine, back)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return self.inner.metrics(masked(log_ratio, main_rows(batch)[:, None].expand_as(log_ratio)), batch)


# What is left of the data --------------------------------------------------------------------------------------------


@part
class FewerEasy(Curriculum):
    """Prompts that were answered right every time come that much less often. Source: VerIPO, arXiv:2505.19000, which leaves out 80 % of
    them for good."""

    drop: Fraction = 0.8
    """How much less often."""

    needs: ClassVar[frozenset[str]] = frozenset({"history"})

    def weights(self, memory: Tensor) -> Tensor:
        return torch.where(memory[:, 0] == 1, 1 - self.drop, 1.0)


@method(
    parent=grpo,
    arxiv="2505.19000",
    code="HITsz-TMG/VerIPO",
    confidence="secondary",
    claim=Claim(
        "Pairs that a verifier makes of rollouts correct what GRPO alone leaves, and a step on them draws nothing.",
        "chain_sum",
        (Effect("accuracy", "higher", -0.02), Effect("seconds/step", "lower", 0.02)),
        ours={"kl-coef": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def veripo(
    beta: float = 0.1,
    every: int = 10,
    drop: float = 0.8,
    back: float = 0.5,
    piece: int = 16,
    most_repeated: float = 0.3,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    group_size: int = 8,
) -> Recipe:
    r"""Verifier-guided Iterative Policy Optimization: GRPO searches, a verifier makes pairs of what it wrote, and DPO on these
    corrects it.

    .. math:: L = L_{GRPO}\ \text{(new rows)},\qquad
              -\mathrm{mean}\log\sigma\Big(\beta\log\frac{\pi_\theta}{\pi_{ref}}(y_w) - \beta\log\frac{\pi_\theta}{\pi_{ref}}(y_l)\Big)\ \text{(rows that came back)}

    The preferred response is the longest one that is right, consistent and free of repetition; it stands against each one that is wrong,
    whose reasoning contradicts its answer (by a judge that says so), or that repeats itself. A share ``back`` of the groups, where they have
    such a pair, comes back once, at the next step, and nothing is drawn for them. Prompts that are always answered right come less often, by
    ``drop``. The reference is the policy of the last multiple of ``every`` steps.

    Source: arXiv:2505.19000 and its page, from a third party's account; no training code is published. beta 0.1, 8 rollouts and
    the 80 % are theirs. Our reading: phases alternate prompt by prompt, where the paper has whole phases; the reference is a checkpoint of the
    GRPO phase; what counts as repetition; the data schedule from text to video is the user's.
    """
    choose = VerifiedPairs(piece=piece, most=most_repeated)
    parent = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    return parent.replace(
        source=VerifiedGroup(size=group_size, choose=choose, back=back),
        surrogate=Corrected(inner=require(parent.surrogate), pairs=Pairs(link=Logistic(beta=beta), choose=choose)),
        reference=Reset(every=every),
        memory=LastAccuracy(),
        curriculum=FewerEasy(drop=drop),
    )
