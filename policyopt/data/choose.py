"""The judge that fits the answers of a dataset, chosen over all of its rows, or refused where none is safe."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec
from policyopt.judging.answers import MARK, answer_line, marked_answer
from policyopt.judging.judges import is_built_in, judge_name, judge_names
from policyopt.judging.kinds import short
from policyopt.judging.letters import LETTERS, has_options, reference_letter
from policyopt.judging.mathematics import numbers_in, value_of
from policyopt.judging.values import KNOWN_UNITS

GIVEN = "given by --judge"
"""Why a judge was taken that nobody had to choose."""

Place = Callable[[Example], str]
"""Where a row stands, in words."""

_NAMES = {"letter": "a letter of its options", "number": "a number", "formula": "a formula", "list": "a list of numbers", "text": "text", "tests": "tests of a program"}  # fmt: skip
_WORKED = re.compile(rf"^[ \t]*{MARK}|\\boxed\s*\{{", re.MULTILINE)


def choose(examples: Sequence[Example], source: str, place: Place) -> tuple[JudgeSpec, str]:
    """The judge for the answers of all rows, and why.

    ``choice`` where every answer is a letter that its prompt lists as an option, ``code`` where every answer is tests of a program, ``number`` where every answer is one number,
    ``math`` where they are formulas, ``exact`` where they are texts, dates, or lists of numbers (whose order then counts).

    Raises:
        UserError: The answers are of several kinds, so that no judge reads all of them rightly.
    """
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(_kind(example), example)
    kinds, n = first.keys(), len(examples)
    if kinds == {"letter"}:
        return JudgeSpec("choice"), f"all {n} answers are letters of options in their prompts"
    if kinds == {"tests"}:
        return JudgeSpec("code"), f"all {n} answers are tests of programs"
    if kinds == {"number"}:
        return JudgeSpec("number"), f"all {n} answers are numbers"
    if "formula" in kinds and kinds <= {"formula", "number", "list"}:
        return JudgeSpec("math"), f"the {n} answers are formulas{' and numbers' if len(kinds) > 1 else ''}"
    if kinds == {"list"}:
        return JudgeSpec("exact"), f"all {n} answers are lists of numbers, whose order may count"
    if all(_letter(example) for example in examples):
        return JudgeSpec("exact"), f"the {n} answers are letters, but {place(first['text'])} lists no options A) B)"
    if kinds == {"text"}:
        return JudgeSpec("exact"), f"the {n} answers are text"
    (one, a), (other, b) = list(first.items())[:2]
    raise UserError(
        f"{source}: no judge fits all answers: {place(a)} has {_NAMES[one]} ({short(a.answer, 40)}), {place(b)} has "
        f"{_NAMES[other]} ({short(b.answer, 40)}). Say which one to take: --judge exact compares the text, "
        "--judge my_judge.py:score is a function of yours"
    )


def _kind(example: Example) -> str:
    answer = example.answer.strip()
    if (answer.startswith("[") and '"expected"' in answer) or answer.startswith('["assert '):
        return "tests"
    if letter := _letter(example):
        prompt = "\n".join(message["content"] for message in example.prompt)
        return "letter" if has_options(prompt, "".join(sorted({"A", "B", letter}))) else "text"
    if (value := value_of(answer)) is not None:
        return "number" if value.unit in KNOWN_UNITS else "text"
    if (numbers := numbers_in(answer)) is not None and numbers > 1:
        return "list"
    return "formula" if re.search(r"[\\$^]", answer) else "text"


def _letter(example: Example) -> str:
    """The letter that an answer is; empty where it is more than one."""
    letter = reference_letter(example.answer)
    return letter if len(letter) == 1 and letter in LETTERS and len(example.answer.strip()) <= 3 else ""


def read_worked(examples: list[Example], judge: JudgeSpec | None, place: Place) -> list[Example]:
    """Rows whose answer is a worked solution (GSM8K's end with ``#### 42``), with what its last mark says as the answer and the
    whole as the solution, where they bring no other. Functions of the user's get the answers as they stand, where no built-in
    judge is beside them.

    Raises:
        UserError: Some rows have an answer line and others have none.
    """
    asked = set() if judge is None else set(judge_names(judge))
    if asked == {"regex"} or not any(_WORKED.search(example.answer) for example in examples):
        return examples
    function = bool(asked) and not any(map(is_built_in, asked))
    found = []
    for example in examples:
        answer = marked_answer(example.answer) if _WORKED.search(example.answer) else None
        if answer is None and not function:
            raise UserError(
                f"{place(example)}: answer is {short(example.answer, 40)}, without an answer line ({MARK} 42) as other rows have "
                "one: give every row a worked solution that ends with its answer, or the answer alone"
            )
        if answer is not None:
            alone = example.answer.strip() in (answer, answer_line(answer), rf"\boxed{{{answer}}}")
            solution = example.solution or (None if alone else example.answer)
            kept = example.answer if function else answer
            example = dataclasses.replace(example, answer=kept, solution=solution)
        found.append(example)
    return found


def judge_words(judge: JudgeSpec | None, reason: str) -> str:
    """A judge and why it was taken, in words."""
    if judge is None:
        return "none"
    name = judge_name(judge)
    return f"{name} ({reason})" if reason else name
