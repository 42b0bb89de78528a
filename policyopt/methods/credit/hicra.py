"""HICRA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, NonNegative, Span, Unit, Wrapper, part
from policyopt.parts import Normalise, Phrases, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch

GRAMS = (
    "let me check this", "let me check whether", "let me verify this", "let me try another", "let's try another way", "let's consider the case",
    "let's start by", "first we need to", "we first need to", "the next step is", "the key idea is", "the idea is to", "another way to see",
    "an alternative approach is", "alternatively we can try", "wait that is not", "this does not work", "that can't be right",
    "going back to the", "let's go back to", "we want to find", "our goal is to", "what if we try", "think about it this way",
    "we can break this into", "it is enough to", "we consider two cases", "by the same argument",
)  # fmt: skip
"""Words with which a solution plans, checks and turns back: a lexicon of ours for English texts."""


@part
class PlanningCredit(Wrapper, Advantage):
    r"""An advantage, shifted upwards on the tokens of a span: more credit where it is good, less blame where it is bad.

    .. math:: \hat A_{i,t} = A_{i,t} + \alpha\,|A_{i,t}|\;1[t \in S_i]

    :math:`S_i` are the tokens that plan. Its sign never changes for :math:`\alpha \le 1`; with 1 planning in a wrong response is not
    blamed at all. Source: HICRA, arXiv:2509.03646, by a third party's account.
    """

    inner: Advantage = Normalise(centre="group", scale="none")
    """A."""
    span: Span = Phrases(GRAMS)
    """S."""
    alpha: NonNegative = 0.2
    """alpha."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What the inner one reads, and the span."""
        return super().needs | {self.span.column}

    def __call__(self, batch: Batch) -> Tensor:
        advantage = self.inner(batch)
        return advantage + self.alpha * advantage.abs() * batch.span(self.span)


def semantic_entropy(counts: Tensor) -> Tensor:
    r""":math:`-\sum_g f_g \ln f_g` in nats, with :math:`f_g` the share of each gram among all that a batch of responses has; counts [M].
    It grows where plans become more varied, which the entropy of tokens does not show."""
    share = counts / counts.sum().clamp(min=1)
    return -torch.xlogy(share, share).sum()


def strategic_grams(
    solutions: Sequence[str], *, share: float = 0.2, within: float = 1.5, lengths: Sequence[int] = (3, 4, 5),
    cluster: Callable[[Sequence[str]], Sequence[int]] | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Phrases of right solutions that many of them have and none has often: the lexicon of a model and a domain.

    ``cluster`` gives phrases of one meaning one number, as an embedder with a clusterer would; without it each phrase is its own
    meaning. Kept are the ``share`` of meanings that stand in most solutions, of those that stand in a solution that has them at most
    ``within`` times on average. Our reading: the paper's cut is not published.
    """
    texts = [text.casefold().split() for text in solutions]
    grams = [Counter(" ".join(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1)) for words in texts]
    phrases = [*dict.fromkeys(gram for text in grams for gram in text if any(x.isalpha() for x in gram))]
    meaning = dict(zip(phrases, range(len(phrases)) if cluster is None else cluster(phrases), strict=True))
    solved, times = Counter[int](), Counter[int]()
    for text in grams:
        found = Counter[int]()
        for gram in text.keys() & meaning.keys():
            found[meaning[gram]] += text[gram]
        solved.update(found.keys())
        times.update(found)
    rare = sorted(
        (m for m in solved if times[m] <= within * solved[m] and solved[m] > 1), key=lambda m: (-solved[m], m)
    )
    kept = {*rare[: round(share * len(solved))]}
    return tuple(phrase for phrase in phrases if meaning[phrase] in kept)


@method(
    parent=grpo,
    arxiv="2509.03646",
    confidence="secondary",
    claim=Claim(
        "More credit for the words that plan: reasoning gets better, and plans become more varied.",
        beyond="It takes a model that plans in words; the embedded one writes sums.",
    ),
)
def hicra(
    alpha: float = 0.2,
    phrases: tuple[str, ...] = (),
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    group_size: int = 8,
) -> Recipe:
    r"""Hierarchy-aware credit: GRPO with the advantage raised on the words of a response that plan.

    .. math:: \hat A_{i,t} = A_i + \alpha\,|A_i|\;1[t \in S_i],\qquad A_i = R_i - \mathrm{mean}_{group}(R)

    :math:`S_i` are the tokens of strategic grams: phrases of three to five words that many solutions have and each has once or twice, such as
    "let me check this". They are found in the text whatever the capitals, whole words alone. ``phrases`` are the lexicon, those of ``GRAMS`` where none are given; a model and a domain
    of your own deserve one of theirs: :func:`~policyopt.methods.credit.hicra.strategic_grams` makes it of right solutions, and
    :func:`~policyopt.methods.credit.hicra.semantic_entropy` says how varied the plans of a batch are. With alpha 0, or where nothing plans,
    it is GRPO without the division by the spread.

    Source: arXiv:2509.03646, by a third party's account (the authors' repository has no code): alpha 0.2. Our reading: the phrases here, which stand in
    for those of the paper; the mean over all tokens of the batch, a clip of 0.2 and no KL.
    """
    return grpo(low, high, kl_coef, group_size=group_size).replace(
        advantage=PlanningCredit(span=Phrases(phrases or GRAMS), alpha=alpha), aggregate=TokenMean()
    )
