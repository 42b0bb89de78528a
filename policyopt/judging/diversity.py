"""How varied a text is: eight numbers of its sentences (MultiRole-R1, arXiv:2507.20187)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

TYPES = ("declarative", "interrogative", "exclamatory", "fragment")
"""Kinds of sentences, by how they end; a fragment has no end."""
FUNCTION_WORDS = (
    "the", "a", "an", "of", "in", "on", "to", "and", "or", "but", "so", "if", "is", "are", "that", "it",
)  # fmt: skip
LONGEST = 20_000
"""Characters that are looked at."""

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")
_WORD = re.compile(r"\w+|[^\w\s]")
_END = {".": "declarative", "?": "interrogative", "!": "exclamatory"}


def sentences(text: str) -> tuple[list[list[str]], list[str]]:
    """The words of each sentence in lower case, and its kind. A line ends a sentence too; one without a word is none."""
    found = [s.strip() for s in _SENTENCE.findall(text[:LONGEST])]
    split = [(_WORD.findall(s.rstrip(".!?").lower()), _END.get(s[-1:], "fragment")) for s in found]
    return [words for words, _ in split if words], [kind for words, kind in split if words]


def entropy(counts: Sequence[int]) -> float:
    """In nats."""
    total = sum(counts)
    return -sum(n / total * math.log(n / total) for n in counts if n)


def diversity(
    sentences: Sequence[Sequence[str]], types: Sequence[str], function_words: Sequence[str] = FUNCTION_WORDS,
    num_types: int = len(TYPES),
) -> dict[str, float]:  # fmt: skip
    """The eight numbers, natural logarithms: variety of words (``lex``, ``ent``, ``yule``, ``bi``, ``func``), of
    lengths (``len``: population deviation over mean), of kinds (``pat``) and of neighbouring sentences (``adj``).

    All but ``len`` lie in [0, 1]. Our reading: 0 where a text is too short for one of them.
    """
    words = [w for s in sentences for w in s]
    counts, n = Counter(words), len(words)
    if not n:
        return dict.fromkeys(("lex", "ent", "len", "pat", "adj", "yule", "bi", "func"), 0.0)
    lengths = [len(s) for s in sentences]
    mean = n / len(lengths)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in lengths) / len(lengths))
    distances = [1 - len({*a} & {*b}) / len({*a} | {*b}) for a, b in pairwise(sentences)]
    repeats = 1e4 * (sum(r * r for r in counts.values()) - n) / n**2
    pairs = list(pairwise(words))
    functional = [counts[w] for w in set(function_words)]
    return {
        "lex": len(counts) / n,
        "ent": entropy(list(counts.values())) / math.log(len(counts)) if len(counts) > 1 else 0.0,
        "len": deviation / mean,
        "pat": entropy(list(Counter(types).values())) / math.log(num_types) if num_types > 1 else 0.0,
        "adj": sum(distances) / len(distances) if distances else 0.0,
        "yule": 1 / (1 + repeats),
        "bi": len(set(pairs)) / len(pairs) if pairs else 0.0,
        "func": entropy(functional) / math.log(len(functional)) if any(functional) and len(functional) > 1 else 0.0,
    }


def mean_diversity(found: dict[str, float]) -> float:
    """The eight numbers, weighed equally."""
    return sum(found.values()) / len(found)
