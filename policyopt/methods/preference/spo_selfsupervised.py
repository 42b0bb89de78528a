"""SPO, the self-supervised one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.items import Verdict
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Whole, part
from policyopt.parts import AllPairs, FromProgram, Likelihood, RowSelector
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.given import PreferencePairs
from policyopt.sources.program import Context, Question, Response

# Key phrases ---------------------------------------------------------------------------------------------------------

STOP_WORDS = frozenset(
    [
        "a",
        "about",
        "above",
        "after",
        "again",
        "all",
        "also",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "because",
        "been",
        "before",
        "being",
        "below",
        "between",
        "both",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "doing",
        "down",
        "during",
        "each",
        "else",
        "ever",
        "few",
        "for",
        "from",
        "further",
        "had",
        "has",
        "have",
        "having",
        "he",
        "her",
        "here",
        "hers",
        "him",
        "his",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "just",
        "me",
        "more",
        "most",
        "my",
        "no",
        "nor",
        "not",
        "now",
        "of",
        "off",
        "on",
        "once",
        "one",
        "only",
        "or",
        "other",
        "our",
        "out",
        "over",
        "own",
        "same",
        "shall",
        "she",
        "should",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "through",
        "to",
        "too",
        "under",
        "until",
        "up",
        "very",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "whom",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)
"""Words that end a phrase and are never part of one."""
WORD = re.compile(r"\w+(?:['’-]\w+)*")


@dataclass(frozen=True)
class Phrase:
    """A place of a text that says something."""

    words: tuple[str, ...]
    """In lower case."""
    start: int
    end: int


def phrases(text: str) -> list[Phrase]:
    """The phrases of a text by place: as many words in a row as there are, with nothing but space between and no stop word."""
    found: list[list[re.Match[str]]] = [[]]
    for match in WORD.finditer(text):
        last = found[-1]
        if (last and text[last[-1].end() : match.start()].strip(" \t")) or (
            last and "\n" in text[last[-1].end() : match.start()]
        ):
            found.append([])
        if match[0].lower() in STOP_WORDS:
            found.append([])
        else:
            found[-1].append(match)
    return [Phrase(tuple(m[0].lower() for m in run), run[0].start(), run[-1].end()) for run in found if run]


def ranked(found: Sequence[Phrase]) -> list[tuple[str, ...]]:
    r"""The different phrases, the highest RAKE score first, then by place: the sum over its words of degree over frequency.

    The degree of a word is how many words the phrases have in which it stands, itself included.
    """
    frequency, degree = Counter[str](), Counter[str]()
    for phrase in found:
        for word in phrase.words:
            frequency[word] += 1
            degree[word] += len(phrase.words)
    different = dict.fromkeys(phrase.words for phrase in found)
    return sorted(different, key=lambda words: -sum(degree[w] / frequency[w] for w in words))


def without(text: str, found: Sequence[Phrase], gone: Collection[tuple[str, ...]]) -> str:
    """A text without some of its phrases, wherever they stand."""
    kept, place = [], 0
    for phrase in found:
        if phrase.words in gone:
            kept.append(text[place : phrase.start])
            place = phrase.end
    return "".join(kept) + text[place:]


def variants(text: str, levels: int) -> list[str]:
    r"""The text at each degree d of 0 to ``levels`` - 1: without the first :math:`\lceil d\,n/(K-1)\rceil` of its n phrases in order of score. Each
    one is a sub-sequence of the one before; none where there is no phrase."""
    found = phrases(text)
    order = ranked(found)
    if not order:
        return []
    counts = [math.ceil(d * len(order) / (levels - 1)) for d in range(levels)]
    return [without(text, found, set(order[:n])) for n in counts]


# Rows and loss -------------------------------------------------------------------------------------------------------


@part
class WithDegrees(PreferencePairs):
    r"""Pairs, and for each side the text at every degree to which its content is gone, with the degree behind it.

    The variants of the chosen text have ``origin`` 1, those of the rejected one ``origin`` 2. Only the degree is learned, a number written after
    ``question``; the variant is read. A text without a key phrase has no variants. Source: SPO, arXiv:2409.17791. Our
    reading: the model writes the degree, in the place of a head of its own.
    """

    levels: Annotated[int, Field(ge=2)] = 3
    """K, how many degrees there are."""
    question: str = "\nmissing: "
    """What stands between a variant and its degree."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        rows = await super().draw(question, context)
        for origin, row in enumerate(rows[:2], 1):
            text = row.tokens[: len(row.tokens) - row.finished]
            rows = [*rows, *self.graded(context.decode(text), origin, question.budget, context)]
        return rows

    def graded(self, text: str, origin: int, budget: int, context: Context) -> list[Response]:
        """The variants of a text as rows."""
        found = []
        for degree, variant in enumerate(variants(text, self.levels)):
            told = (*context.encode(self.question),)
            label = (*context.encode(str(degree)), *context.end)
            room = budget - len(told) - len(label)
            if room < 0:
                context.count(degrees_cut=1)
                continue
            read = [*context.encode(variant)[:room], *told]
            nothing = [0.0] * (len(read) + len(label))
            own = [False] * len(read) + [True] * len(label)
            said = Verdict(0.0, False, True, f"degree {degree}")
            found.append(
                Response(
                    [*read, *label], nothing, list(nothing), "eos", own=own, origin=origin,
                    temperature=self.temperature, verdict=said,
                )
            )  # fmt: skip
        return found


@part
class OfOrigin(RowSelector):
    """The rows of one origin."""

    origin: Whole = 1
    """Which one."""

    def __call__(self, batch: Batch) -> Tensor:
        origin = batch.group * 0 if batch.origin is None else batch.origin
        return origin == self.origin


@method(
    parent=dpo,
    arxiv="2409.17791",
    code="lijian16/SPO",
    confidence="abstract",
    claim=Claim(
        "Who can tell how much of a text's content is gone learns more from a preference for the whole one.",
        "pairs",
        (Effect("pairs/accuracy", "higher", 0.01),),
        both={"steps": 10},
    ),
)
def spo_selfsupervised(beta: float = 0.1, gamma: float = 0.1, levels: int = 3) -> Recipe:
    r"""Self-supervised Preference Optimization: beside DPO the model learns to tell how much of the content of a text is gone.

    .. math:: L = L_{DPO} + \gamma\,(L_{deg}^w + L_{deg}^l),\qquad L_{deg}^s = \mathrm{mean}_{d}\,CE(u_d, d)

    Of each side of a pair there are K = ``levels`` variants: at degree d the first ceil(d n/(K-1)) of its n key phrases, in the
    order of their RAKE scores, are taken out. u are what the model says of the degree of a variant. With gamma 0 it is DPO, and
    the pairs do not feel the variants but by shared weights. Any recipe on pairs can have the two losses
    (:class:`~policyopt.parts.Likelihood` of rows of origin 1 and 2, with the source ``WithDegrees``).

    Source: arXiv:2409.17791, from its abstract and a review; the authors' repository is empty. Our reading, as the head, K and
    gamma are not known: the model's own output layer is the head, and the degree a number that it writes after the variant; K is
    3 and gamma 0.1; stop words are those of English; variants stay out of the pairs.
    """
    return (
        dpo(beta)
        .replace(
            source=WithDegrees(levels=levels),
            regularizers=(
                Likelihood(coef=gamma, rows=OfOrigin(origin=1), mean="response", label="chosen"),
                Likelihood(coef=gamma, rows=OfOrigin(origin=2), mean="response", label="rejected"),
            ),
        )
        .set("surrogate.choose", AllPairs(rows=FromProgram()))
    )
