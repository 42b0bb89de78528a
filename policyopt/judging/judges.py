"""The judges: functions that say what a response is worth. They run in worker processes.

=================  =====================================================================================================
``math``           the answer is mathematically equal: ``1/2`` and ``0.5``, ``x+1`` and ``1+x`` (math-verify)
``exact``          the answer is the same text, white space aside; option ``ignore_case``
``number``         the answer is a number of the same value; option ``tolerance`` (relative or absolute, 0 means exact)
``regex``          the row's answer is a pattern that is found in the response; or option ``pattern``: with a group,
                   what the group of the last match holds is the answer; without one, any match is right
``choice``         the letter is the same; option ``letters`` (default ``ABCDEFGHIJ``)
``code``           the Python program of the response passes the row's tests, in the sandbox (:mod:`policyopt.judging.programs`)
``verilog``        the Verilog of the response does what the row's reference does, by Icarus and Yosys (:mod:`policyopt.judging.verilog`)
``edits``          a completion of code, by its edit similarity to the reference (:mod:`policyopt.judging.edits`)
``reasoning-gym``  the scoring of that library; the tasks that come from it choose this judge themselves
``tagged``         what another judge says (options ``judge``, ``options``), but ``formatted`` means one block of the
                   option ``tag``, then one of ``<answer>``; prior prompts ask for it
``diverse``        what another judge says (options ``judge``, ``options``), and how varied the text is, as its part
                   ``diversity``; tasks written ``diverse:TASK`` have it
``weighted``       several judges and their weights (option ``judges``); ``--judge NAME=JUDGE:WEIGHT`` makes it
``llm``            a language model behind an OpenAI-compatible endpoint (:mod:`policyopt.judging.llm`)
``module:name``    a Python function ``f(prompt, response, answer)``; so is ``path/to/file.py:name``
=================  =====================================================================================================

The answer of a response is what stands behind its last mark, thoughts left out (:mod:`policyopt.judging.answers`); the option
``think`` of the first five, and of those that read code, says what a thought looks like. ``formatted`` says whether there is a mark. Without one, ``math``,
``number`` and ``choice`` look for the last answer in the response, and ``exact`` compares all of it. What can be read in two
ways is wrong (``docs/judges.md``).

A Python function takes ``prompt`` (the text, or the list of messages where it is more than one user message), the text
of the ``response``, the reference ``answer``, and columns of the data row by name; other signatures that are understood
stand in :mod:`policyopt.judging.signatures`. It returns a score as number or bool (``correct`` means at least 1), ``None``
where it does not apply to the row, which then has no reward, as where the judge fails (``docs/judges.md``), or a dict with
``score`` and, where wanted, ``correct``, ``formatted``, ``reason`` and ``parts`` (a number for each of several aspects, by
name; recipes with constraints or a weighted sum read them). Under the name of a column that a judge fills
(``consistency``, ``step_reward``, or one of your own) a number, or a list, goes into that column; the function says so
with ``@policyopt.judge(columns=(...,))``. An async function is awaited, several calls at a time.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from policyopt import sandbox
from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict
from policyopt.judging.answers import in_blocks
from policyopt.judging.calls import ALONE, around
from policyopt.judging.diversity import diversity, mean_diversity, sentences
from policyopt.judging.functions import check_function, columns_of, compares, function_judge, split_name
from policyopt.judging.given import is_given
from policyopt.judging.kinds import (
    Judge,
    choice_judge,
    exact_judge,
    math_judge,
    number_judge,
    regex_judge,
    short,
)
from policyopt.judging.letters import LETTERS, reference_letter
from policyopt.judging.mathematics import value_of
from policyopt.judging.names import Written, spec_of
from policyopt.judging.program_tests import read_tests
from policyopt.judging.several import weighted_judge


def _reasoning_gym(**options: Any) -> Judge:
    from policyopt.judging.reasoning_judge import library_judge

    return library_judge(**options)


def _later(name: str) -> Callable[..., Judge]:
    """A judge whose module is loaded where it is asked for."""
    return lambda **options: _maker(name)(**options)


def _tagged(tag: str = "think", judge: str = "exact", options: Mapping[str, Any] | None = None) -> Judge:
    def in_order(example: Example, response: str, verdict: Verdict) -> Verdict:
        return dataclasses.replace(verdict, formatted=in_blocks(response, tag))

    return around(make_judge(JudgeSpec(judge, options or {})), in_order)


def _diverse(judge: str = "exact", options: Mapping[str, Any] | None = None) -> Judge:
    def varied(example: Example, response: str, verdict: Verdict) -> Verdict:
        found = mean_diversity(diversity(*sentences(response)))
        return dataclasses.replace(verdict, parts={**verdict.parts, "accuracy": verdict.score, "diversity": found})

    inner = make_judge(JudgeSpec(judge, options or {}))
    return around(inner, varied, "component[accuracy]", "component[diversity]")


def _weighted(judges: Mapping[str, Mapping[str, Any]]) -> Judge:
    return weighted_judge(judges, lambda judge, options: make_judge(JudgeSpec(judge, options)))


_WRAPPERS = ("tagged", "diverse", "weighted")
"""Judges that ask others first."""


def inner_judges(spec: JudgeSpec) -> dict[str, JudgeSpec]:
    """The judges that a judge asks, by the names that it has for them; empty where it asks none."""
    if spec.name == "weighted":
        judges = spec.options.get("judges") or {}
        return {name: JudgeSpec(one["judge"], one.get("options") or {}) for name, one in judges.items()}
    if spec.name in _WRAPPERS:
        return {"": JudgeSpec(spec.options.get("judge", "exact"), spec.options.get("options") or {})}
    return {}


def judge_names(spec: JudgeSpec) -> list[str]:
    """The judges that say something of a response, by name: those that a judge asks, or itself."""
    inner = inner_judges(spec)
    return [name for one in inner.values() for name in judge_names(one)] if inner else [spec.name]


def judge_name(spec: JudgeSpec) -> str:
    """What a judge is called where people read it: its name, and those of the judges that it asks; of several, theirs."""
    inner = inner_judges(spec)
    if spec.name == "weighted":
        return ", ".join(f"{name}={judge_name(one)}" for name, one in inner.items())
    asked = map(judge_name, inner.values())
    return f"{spec.name} of {', '.join(asked)}" if inner else str(spec.name)  # plain text, whatever carries the name


_TOOLS = {"code": (), "verilog": ("iverilog", "vvp", "yosys")}
"""Judges that run programs in the sandbox, and what has to be installed for them."""


def is_built_in(name: str) -> bool:
    """Whether a judge comes with the library."""
    return name in _JUDGES


_ELSEWHERE = {
    "llm": "policyopt.judging.llm:llm_judge",
    "code": "policyopt.judging.programs:code_judge",
    "verilog": "policyopt.judging.verilog:verilog_judge",
    "edits": "policyopt.judging.edits:edits_judge",
}
"""Judges whose modules no other one needs, with their functions."""

_JUDGES: dict[str, Callable[..., Judge]] = {
    "math": math_judge,
    "exact": exact_judge,
    "number": number_judge,
    "regex": regex_judge,
    "choice": choice_judge,
    "code": _later("code"),
    "verilog": _later("verilog"),
    "edits": _later("edits"),
    "reasoning-gym": _reasoning_gym,
    "tagged": _tagged,
    "diverse": _diverse,
    "weighted": _weighted,
    "llm": _later("llm"),
}


def make_judge(spec: JudgeSpec) -> Judge:
    """The judge itself. Runs in the worker process: a Python function's file is loaded here."""
    if spec.name in _JUDGES:
        return _JUDGES[spec.name](**spec.options)
    return function_judge(spec.name, spec.options)


def deterministic(spec: JudgeSpec) -> bool:
    """Whether a judge says the same of the same response every time: a built-in one that is computed, whatever it asks first."""
    return spec.name in _JUDGES and spec.name != "llm" and all(map(deterministic, inner_judges(spec).values()))


def check_judge(spec: JudgeSpec) -> None:
    """Refuse a judge that cannot work, before anything runs and without running any of the user's code.

    Raises:
        UserError: An unknown name (with the nearest ones), an unknown or ill-typed option, a file or module that does
            not exist, a function that is not in it or does not take ``(prompt, response, answer)``.
    """
    name, options = spec.name, spec.options
    if name not in _JUDGES:
        if split_name(name) is None and not is_given(name):
            close = difflib.get_close_matches(name, _JUDGES, n=3, cutoff=0.5)
            nearest = f"; nearest: {', '.join(close)}" if close else ""
            raise UserError(
                f"no judge is called {name!r}{nearest}. A judge is one of {', '.join(_JUDGES)}, "
                "or a Python function as package.module:name or path/to/file.py:name"
            )
        check_function(name, options)
        return
    if name == "reasoning-gym":
        return
    known = inspect.signature(_maker(name)).parameters
    if name == "llm":
        from policyopt.judging.llm import check_llm

        check_llm(options)
        return
    for option, value in options.items():
        if option not in known:
            raise UserError(f"judge {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}")
        if name not in _WRAPPERS:
            _check_option(name, option, value)
    if name in _TOOLS:
        sandbox.need(*_TOOLS[name])
    for inner in inner_judges(spec).values():
        check_judge(inner)
        if compares(inner.name, inner.options):
            raise UserError(f"judge {name!r} asks {inner.name!r}, which compares responses: {ALONE}")


def typed(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were written as text, as what a judge takes: numbers, true and false, text.

    What the judge cannot take is left as it is, for :func:`check_judge` to refuse.
    """
    from policyopt.judging.options import hints_of, plain, read_option

    if name not in _JUDGES:
        return {option: plain(value) for option, value in options.items()}
    hints = hints_of(_maker(name))
    return {option: read_option(hints[option], x) if option in hints else x for option, x in options.items()}


def _maker(name: str) -> Callable[..., Judge]:
    if name not in _ELSEWHERE:
        return _JUDGES[name]
    module, function = _ELSEWHERE[name].split(":")
    made: Callable[..., Judge] = getattr(importlib.import_module(module), function)
    return made


def judge_spec(
    judge: Written | Mapping[str, Any] | Callable[..., Any] | None, options: Mapping[str, Any] | None
) -> JudgeSpec:
    """The judge that a configuration, a line or a Python call means: one, or several with weights
    (:mod:`policyopt.judging.names`), with their options. Checked.

    Raises :class:`~policyopt.errors.UserError` as :func:`check_judge` does, and for options without a judge.
    """
    spec = spec_of(judge, options, typed)
    check_judge(spec)
    return spec


def row_error(spec: JudgeSpec, example: Example) -> str | None:
    """Why the judge could never judge a response to this row, or ``None``: its answer, or a column that a function asks
    for and the row does not have."""
    for name, inner in inner_judges(spec).items():
        if error := row_error(inner, example):
            return f"{name}: {error}" if name else error
    if spec.name in _JUDGES:
        return answer_error(spec, example.answer)
    missing = [column for column in columns_of(spec.name, spec.options) if column not in example.meta]
    if not missing:
        return None
    has = ", ".join(map(repr, example.meta)) or "none"
    return f"judge {spec.name!r} asks for the column {missing[0]!r}; beside prompt and answer the row has {has}"


def _check_option(name: str, option: str, value: object) -> None:
    detail = ""
    if option in ("ignore_case", "partial", "packages", "timed", "synthesis"):
        good, expected = isinstance(value, bool), "true or false"
    elif option == "tolerance":
        good, expected = isinstance(value, int | float) and not isinstance(value, bool), "a number of at least 0"
        good = good and math.isfinite(value) and value >= 0  # type: ignore[arg-type, operator]
    elif option in ("seconds", "total", "memory_mb", "share", "lines"):
        good, expected = isinstance(value, int | float) and not isinstance(value, bool), "a number above 0"
        good = (good and math.isfinite(value) and value > 0) or (option == "lines" and value is None)  # type: ignore[arg-type, operator]
    elif option == "prints":
        good, expected = isinstance(value, str), "words with commas between them"
    elif option == "letters":
        good, expected = isinstance(value, str) and re.fullmatch("[A-Z]+", value) is not None, "capital letters"
    elif option == "think":
        good, expected = isinstance(value, str) and bool(value.strip()), "a tag, or the marks around a thought"
    else:
        error = pattern_error(value) if isinstance(value, str) else "not a text"
        good, expected, detail = error is None, "a regular expression", f" ({error})"
    if not good:
        raise UserError(f"judge {name!r}: option {option} is {value!r}, expected {expected}{detail}")


def pattern_error(pattern: str) -> str | None:
    """What is wrong with a regular expression, or ``None``."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return None


def answer_error(spec: JudgeSpec, answer: str) -> str | None:
    """Why the judge could never accept a response to a row with this answer, or ``None``."""
    for inner in inner_judges(spec).values():
        if error := answer_error(inner, answer):
            return error
    if spec.name == "number" and value_of(answer) is None:
        return f"judge 'number' needs a number, answer is {short(answer)}"
    if spec.name == "choice":
        letters = spec.options.get("letters", LETTERS)
        letter = reference_letter(answer)
        if len(letter) != 1 or letter not in letters:
            return f"judge 'choice' needs one of the letters {letters}, answer is {short(answer)}"
    if spec.name == "code":
        try:
            read_tests(answer)
        except ValueError as bad:
            return f"judge 'code' needs the tests of a program, answer {bad}"
    if spec.name == "regex" and "pattern" not in spec.options and (error := pattern_error(answer)):
        return f"judge 'regex' needs a regular expression, answer is {short(answer)} ({error})"
    return None
