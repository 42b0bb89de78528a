"""What the contenders of a comparison wrote: the same question answered by each, and the weight that each gave to every token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policyopt.comparing.results import Comparison
from policyopt.training.charts import number
from policyopt.training.report import readable

QUESTIONS = 5
"""How many questions are shown."""
MAX_TEXT = 3_000
"""Characters of one text that the page holds."""
MAX_BYTES = 500_000
"""Of all answers in the page together."""
MAX_TOKENS = 800
"""Coloured tokens of one response."""

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Answered:
    """A question, and by contender what it answered."""

    seed: int
    prompt: str
    answer: str
    by: Mapping[str, dict[str, Any]]

    @property
    def right(self) -> int:
        """How many answered right."""
        return sum(s["correct"] for s in self.by.values())


def answered(c: Comparison) -> list[Answered]:
    """The held-out questions on which the contenders differ most after training: first in who is right, then in length.

    All are of one seed, the one that most contenders have.
    """
    by_seed = {
        seed: {
            name: {s["id"]: s for s in run.samples if s.get("phase") == "after" and s.get("id")}
            for name in c.contenders
            if (run := c.runs.get((name, seed)))
        }
        for seed in c.seeds
    }
    if not by_seed:
        return []
    seed, found = max(by_seed.items(), key=lambda item: sum(map(bool, item[1].values())))
    questions: dict[Any, dict[str, Sample]] = {}
    for name, samples in found.items():
        for id, s in samples.items():
            questions.setdefault(id, {})[name] = s
    shared = sorted((q for q in questions.values() if len(q) > 1), key=_apart, reverse=True)
    told: list[Answered] = []
    size = 0
    for question in shared[:QUESTIONS]:
        by = {name: readable(s, MAX_TEXT) for name, s in question.items()}
        size += sum(len(str(s)) for s in by.values())
        if told and size > MAX_BYTES:
            break
        first = next(iter(by.values()))
        told.append(Answered(seed, first["prompt"], first["answer"], by))
    return told


def _apart(question: Mapping[str, Sample]) -> tuple[int, int, float]:
    """How much the answers to a question differ: in verdict, in number, in length."""
    right = sum(bool(s.get("correct")) for s in question.values())
    lengths = [n for s in question.values() if (n := number(s.get("length"))) is not None]
    spread = float(np.std(lengths) / max(1.0, np.mean(lengths))) if lengths else 0.0
    return min(right, len(question) - right), len(question), spread


def weighed(c: Comparison) -> list[dict[str, Any]]:
    """For each contender a response that it was trained on and made likelier, and one that it made less likely, with the weight of every
    token. They are those that most contenders have drawn: at the first step they mostly draw the same."""
    found: dict[str, list[tuple[Any, Sample]]] = {}
    for name in c.contenders:
        for seed in c.seeds:
            run = c.runs.get((name, seed))
            for s in run.samples if run else ():
                if s.get("phase") == "train" and _has_weights(s):
                    key = (seed, s.get("step"), str(s.get("id")), str(s.get("response")))
                    found.setdefault(name, []).append((key, s))
    responses: dict[str, list[dict[str, Any]]] = {name: [] for name in found}
    for up in (True, False):
        signed = {name: [x for x in kept if _up(x[1]) == up] for name, kept in found.items()}
        text = _commonest(key for kept in signed.values() for key in dict.fromkeys(key for key, _ in kept))
        for name, kept in signed.items():
            if kept:
                responses[name].append(_coloured(next((s for key, s in kept if key == text), kept[0][1])))
    return [{"contender": name, "responses": shown} for name, shown in responses.items()]


def _up(s: Sample) -> bool:
    """Whether a step made a response likelier on the whole."""
    return sum(number(w) or 0.0 for w in s["weights"]) > 0


def _commonest(keys: Iterable[Any]) -> Any:
    """The key that comes most often, the first of them."""
    counts: dict[Any, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return max(counts, key=lambda key: counts[key], default=None)


def _has_weights(s: Sample) -> bool:
    pieces, weights = s.get("pieces"), s.get("weights")
    return isinstance(pieces, list) and isinstance(weights, list) and len(pieces) == len(weights) and any(weights)


def _coloured(s: Sample) -> dict[str, Any]:
    cut: dict[str, Sequence[Any]] = {key: s[key][:MAX_TOKENS] for key in ("pieces", "weights")}
    left = len(s["pieces"]) - MAX_TOKENS
    return readable({**s, **cut}, MAX_TEXT) | {"left": max(0, left)}
