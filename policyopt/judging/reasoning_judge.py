"""The judge of the tasks from reasoning-gym: the library's own scoring of the answer that a response ends with."""

from __future__ import annotations

import ast
import base64
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from policyopt.items import Example, Verdict
from policyopt.judging.answers import MARK, lines_of, locate
from policyopt.judging.kinds import Judge, judged, short
from policyopt.judging.results import finite

STRICTER: dict[str, Callable[[str, str], bool]] = {
    # The library's scoring lets every number be off by one
    "number_sorting": lambda given, right: given.split() == right.split(),
}
"""Whether a given answer is the right one, for built-in tasks of which the library's scoring lets wrong ones pass."""

# Some scorings of the library run the answer as Python. What a model writes is never run: an answer reaches such a
# scoring only if it is plainly data or arithmetic.


def _arithmetic(answer: str) -> bool:
    """Digits, ``+ - * /`` and brackets, without powers."""
    return re.fullmatch(r"[\d\s+\-*/().]*", answer, re.ASCII) is not None and "**" not in answer and "//" not in answer


_FUNCTION = re.compile("[A-Za-z]|a?(sin|cos|tan)h?|cot|sec|csc|log|ln|exp|sqrt|Abs|pi")


def _algebra(answer: str) -> bool:
    """Arithmetic with powers, single letters and the usual functions."""
    names = re.findall(r"(?<!\w)[^\W\d]\w*", answer)
    return (
        re.fullmatch(r"[\w\s+\-*/^().,]*", answer, re.ASCII) is not None
        and re.search(r"\.\s*[A-Za-z_]|\d[A-Za-z_]", answer) is None
        and all(_FUNCTION.fullmatch(name) for name in names)
    )


def _literal(answer: str) -> bool:
    """Words and numbers, or a Python literal."""
    if re.fullmatch(r"[\w\s]*", answer):
        return True
    try:
        ast.literal_eval(answer)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return True


RUN_BY_LIBRARY: Mapping[str, Callable[[str], bool]] = {
    "binary_matrix": _literal,
    "countdown": _arithmetic,
    "intermediate_integration": _algebra,
    "n_queens": _literal,
    "polynomial_multiplication": _algebra,
    "puzzle24": _arithmetic,
    "simple_integration": _algebra,
    "spiral_matrix": _literal,
    "string_insertion": _literal,
}
"""The datasets whose scoring evaluates the answer, and what an answer to them may be."""


def library_judge(dataset: str, builtin: bool) -> Judge:
    """The judge of one dataset: right or wrong for a built-in task, else the library's score, with partial credit."""
    from reasoning_gym import get_score_answer_fn

    score: Callable[[str, Any], float] = get_score_answer_fn(dataset)
    accepts = STRICTER.get(dataset) if builtin else None
    harmless = RUN_BY_LIBRARY.get(dataset)

    def judge(example: Example, response: str) -> Verdict:
        found = locate(response, lines=lines_of(example.answer))
        if found is None or not found.text:
            return judged(False, False, None, example.answer)
        given, marked = found.text, found.marked
        # What the embedded model has to learn is to stop after its answer line
        after = response.rpartition(f"{MARK} ")[2].strip()
        if builtin and "\n" in after and after.startswith(given):
            return Verdict(0.0, False, False, f"text after the answer: {short(after)}")
        if accepts is not None:
            return judged(accepts(given, example.answer), marked, given, example.answer)
        if harmless is not None and not harmless(given):
            return Verdict(0.0, False, marked, f"{short(given)} is not a plain expression")
        packed = example.meta.get("entry")
        value = finite(score(given, example.meta if packed is None else pickle.loads(base64.b64decode(packed))))
        right = value >= 1
        if builtin or right:
            return judged(right, marked, given, example.answer)
        return replace(judged(False, marked, given, example.answer), score=value)

    return judge
