"""JSON of a prescribed shape: what there is to judge, and the testbed ``json``. Nothing here imports torch."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from policyopt.items import Example, JudgeSpec, Task, judge, user

LONGEST = 20_000
"""Characters of a response that are parsed; a longer one is no answer."""

_FENCE = re.compile(r"\s*```json\n(.*)\n```\s*", re.DOTALL)

Required = Mapping[str, Any]
"""Keys that have to be there, each with the keys that its own value has to have."""


def parse_json(text: str) -> Any:
    """The value that a text is, strictly. Raises ``ValueError`` for anything else: no NaN, no key twice, no more depth
    or length than a person would read."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands there twice")
        return found

    if len(text) > LONGEST:
        raise ValueError(f"longer than {LONGEST} characters")
    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def share_present(value: Any, required: Required) -> float:
    """The share of the required keys that a value has, those of inner objects among them; 1 where none is required.
    Further keys and the order are of no account."""
    there, wanted = _present(value, required)
    return there / wanted if wanted else 1.0


def _present(value: Any, required: Required) -> tuple[int, int]:
    there = wanted = 0
    for key, inner in required.items():
        has = isinstance(value, dict) and key in value
        below = _present(value[key] if has else None, inner or {})
        there, wanted = there + has + below[0], wanted + 1 + below[1]
    return there, wanted


def token_f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, each as often as it occurs."""
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def length_share(length: float, limit: float) -> float:
    """1 up to the limit, from there falling to 0 at twice the limit."""
    return min(1.0, max(0.0, 2 - length / limit))


def components(
    *, valid: bool, struct: float, fenced: bool, correct: float, length: float, max_length: float
) -> dict[str, float]:
    """The five aspects of a structured answer, each in [0, 1]: what does not parse has neither structure nor content."""
    return {
        "valid": float(valid),
        "struct": struct if valid else 0.0,
        "format": float(fenced),
        "correct": correct if valid else 0.0,
        "length": length_share(length, max_length),
    }


@judge(columns=tuple(f"component[{name}]" for name in ("valid", "struct", "format", "correct", "length")))
def judge_json(
    prompt: str, response: str, answer: str, required: Required | None = None, key: str = "answer",
    max_length: float = 64,
) -> dict[str, Any]:  # fmt: skip
    """Valid JSON in a fence of its own, with the ``required`` keys and the answer under ``key``.

    Returns the components as parts; the score is their mean.
    """
    fence = _FENCE.fullmatch(response) if len(response) <= LONGEST else None
    try:
        value, reason = parse_json(fence[1] if fence else response.strip()), ""
    except ValueError as error:
        value, reason = None, f"no JSON: {str(error)[:80]}"
    given = value.get(key) if isinstance(value, dict) else None
    content = given if isinstance(given, str) else "" if given is None else json.dumps(given)[:LONGEST]
    found = components(
        valid=not reason,
        struct=share_present(value, required or {key: {}}),
        fenced=fence is not None,
        correct=token_f1(content.split(), answer.split()),
        length=len(response),
        max_length=max_length,
    )
    return {
        "score": sum(found.values()) / len(found),
        "correct": found["correct"] == 1,
        "formatted": fence is not None,
        "reason": reason or f"{content[:40]!r} against {answer[:40]!r}",
        "parts": found,
    }


def _example(a: int, b: int) -> Example:
    work, answer = f"{a}+{b}={a + b}", str(a + b)
    text = f"```json\n{json.dumps({'work': work, 'answer': answer}, separators=(',', ':'))}\n```"
    return Example(f"json-{a}+{b}", user(f"json {a}+{b}"), answer, text, hasty=f'{{"answer":{answer}')


def json_task(*, seed: int, heldout: int) -> Task:
    """The testbed ``json``: a sum with its working, as an object in a fence."""
    pairs = [(a, b) for a in range(10, 80) for b in range(10, 80)]
    random.Random("json").shuffle(pairs)
    heldout = min(heldout, len(pairs) // 4)
    held, train = pairs[:heldout], pairs[heldout:]
    random.Random(f"json {seed}").shuffle(train)
    judge = JudgeSpec(f"{__name__}:{judge_json.__name__}", {"required": {"work": {}, "answer": {}}})
    return Task("json", tuple(_example(*p) for p in train), tuple(_example(*p) for p in held), judge, 64)
