"""BM25 over a few documents: a score for each that follows from its words alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[a-z0-9]+")


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return _WORD.findall(text.lower())


class Bm25:
    r"""Scores documents for a query.

    .. math:: s(q, d) = \sum_{w \in q} \log\Bigl(1 + \frac{N - n_w + 1/2}{n_w + 1/2}\Bigr)
              \frac{f_{w,d}}{f_{w,d} + k_1 (1 - b + b\,|d| / \overline{|d|})}

    with f how often a word stands in a document, n in how many documents, N documents, :math:`|d|` words in one. Source: Robertson and
    Zaragoza, The Probabilistic Relevance Framework, 2009, with the inverse document frequency of Lucene, which is never negative;
    :math:`k_1 = 1.5` and :math:`b = 0.75`, the defaults of the package bm25s, whose scores these are.
    """

    def __init__(self, documents: Sequence[str], k1: float = 1.5, b: float = 0.75) -> None:
        self.documents, self.k1, self.b = tuple(documents), k1, b
        self._counts = [Counter(words_of(text)) for text in documents]
        self._lengths = [sum(c.values()) for c in self._counts]
        self._mean = sum(self._lengths) / max(1, len(documents)) or 1.0
        self._with = Counter(word for c in self._counts for word in c)

    def scores(self, query: str) -> list[float]:
        """The score of each document; each word of the query counts as often as it stands there."""
        n, words = len(self.documents), words_of(query)
        weights = [
            (w, math.log(1 + (n - self._with[w] + 0.5) / (self._with[w] + 0.5))) for w in words if w in self._with
        ]
        found = []
        for counts, length in zip(self._counts, self._lengths, strict=True):
            norm = self.k1 * (1 - self.b + self.b * length / self._mean)
            found.append(sum(idf * counts[w] / (counts[w] + norm) for w, idf in weights))
        return found

    def top(self, query: str, k: int) -> list[str]:
        """The documents with the highest scores above 0, at most k; among equals the first."""
        scores = self.scores(query)
        ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
        return [self.documents[i] for i in ranked[:k] if scores[i] > 0]
