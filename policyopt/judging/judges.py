"""The judges: functions that say what a response is worth. They run in worker processes.

=================  =====================================================================================================
``math``           the answer is mathematically equal (math-verify): ``1/2`` and ``0.5``, ``x+1`` and ``1+x``
``exact``          the answer is the same text, white space aside; option ``ignore_case``
``number``         the last number of the answer is equal; option ``tolerance`` (relative or absolute, 0 means exact)
``regex``          the row's answer is a pattern that is found in the response; or option ``pattern``: with a group,
                   what the group of the last match holds is the answer; without one, any match is right
``choice``         the letter is the same; option ``letters`` (default ``ABCDE``)
``reasoning-gym``  the scoring of that library; the tasks that come from it choose this judge themselves
``tagged``         what another judge says (options ``judge``, ``options``), but ``formatted`` means one block of the
                   option ``tag``, then one of ``<answer>``; prior prompts ask for it
``diverse``        what another judge says (options ``judge``, ``options``), and how varied the text is, as its part
                   ``diversity``; tasks written ``diverse:TASK`` have it
``module:name``    a Python function ``f(prompt, response, answer)``; so is ``path/to/file.py:name``
=================  =====================================================================================================

The answer of a response is what stands after its last mark (:mod:`policyopt.judging.answers`), and ``formatted`` says
whether there is one. Without a mark, ``math``, ``number`` and ``choice`` look for the last answer in the whole
response, and ``exact`` compares all of it.

A Python function gets ``prompt`` (the text, or the list of messages where it is more than one user message), the text
of the response and the reference answer. It returns a score as number or bool (``correct`` means at least 1), or a
dict with ``score`` and, where wanted, ``correct``, ``formatted``, ``reason`` and ``parts`` (a number for each of
several judges or aspects, by name; recipes with constraints or a weighted sum read them). Under the name of a column
that a judge fills (``consistency``, ``step_reward``, or one of your own) a number, or a list, goes into that column; the
function says so with ``@policyopt.judge(columns=(...,))``.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import inspect
import logging
import math
import numbers
import re
import reprlib
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict
from policyopt.judging.answers import find_answer, in_blocks, last_match
from policyopt.judging.diversity import diversity, mean_diversity, sentences

Judge = Callable[[Example, str], Verdict]


def short(text: str, limit: int = 80) -> str:
    """``text`` in quotes, cut in the middle where it is long."""
    half = limit // 2
    return repr(text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}")


def judged(correct: bool, formatted: bool, given: str | None, answer: str) -> Verdict:
    """A verdict of right (1) or wrong (0), with the reason in words."""
    if given is None:
        reason = "no answer found"
    else:
        reason = f"{short(given)} is right" if correct else f"{short(given)} is wrong, {short(answer)} is right"
    return Verdict(float(correct), correct, formatted, reason)


# Text


def _exact(ignore_case: bool = False) -> Judge:
    def plain(text: str) -> str:
        text = " ".join(text.split())
        return text.casefold() if ignore_case else text

    def judge(example: Example, response: str) -> Verdict:
        marked = find_answer(response)
        given = response.strip() if marked is None else marked
        return judged(plain(given) == plain(example.answer), marked is not None, given, example.answer)

    return judge


def _regex(pattern: str | None = None) -> Judge:
    compiled = None if pattern is None else re.compile(pattern)

    def judge(example: Example, response: str) -> Verdict:
        marked = find_answer(response) is not None
        if compiled is None:
            found = re.search(example.answer, response)
            return judged(found is not None, marked, found[0] if found else None, example.answer)
        last = last_match(compiled, response)
        if last is None:
            return Verdict(0.0, False, False, f"no match for {short(compiled.pattern)}")
        if compiled.groups == 0:
            return Verdict(1.0, True, True, f"{short(last[0])} matches")
        given = (last[1] or "").strip()
        return judged(given == example.answer.strip(), True, given, example.answer)

    return judge


# Numbers

# A sign counts unless something stands right before it: the last number of "12-3" is 3
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d{1,4})?(?:/\d+)?",
    re.ASCII | re.IGNORECASE,
)
_LONGEST = 1000


def parse_number(text: str) -> Fraction | Decimal | None:
    """The last number in ``text``, exactly; ``None`` without one. Reads ``1,234.5``, ``-3``, ``1e-5`` and ``3/4``."""
    last = last_match(_NUMBER, text.replace("\u2212", "-"))
    if last is None or len(last[0]) > _LONGEST:
        return None
    top, _, bottom = last[0].replace(",", "").partition("/")
    value = Decimal(top)
    if not bottom:
        return value
    return Fraction(value) / int(bottom) if int(bottom) else None


def _float(value: Fraction | Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _number(tolerance: float = 0.0) -> Judge:
    def equal(a: Fraction | Decimal, b: Fraction | Decimal) -> bool:
        if tolerance == 0:
            return a == b if type(a) is type(b) else Fraction(a) == Fraction(b)
        x, y = _float(a), _float(b)
        return math.isfinite(x) and math.isfinite(y) and math.isclose(x, y, rel_tol=tolerance, abs_tol=tolerance)

    def judge(example: Example, response: str) -> Verdict:
        marked, wanted = find_answer(response), parse_number(example.answer)
        if wanted is None:
            raise ValueError(f"the reference answer {short(example.answer)} holds no number")
        given = parse_number(response if marked is None else marked)
        if given is None:
            return judged(False, marked is not None, None, example.answer)
        return judged(equal(given, wanted), marked is not None, str(given), example.answer)

    return judge


# Multiple choice


def _choice(letters: str = "ABCDE") -> Judge:
    one = f"[{letters}]"
    marked_choice = re.compile(rf"(?<!\w)({one})(?!\w)")
    phrase = re.compile(rf"(?i:answer|choice|option)(?i:\s+is)?\s*:?\s*[(*\s]*({one})(?!\w)")
    # A letter as an answer is written: in brackets, before a bracket or a stop, or alone on its line
    loose = re.compile(rf"\(({one})\)|(?<!\w)({one})(?=[).:]|\s*$)", re.MULTILINE)

    def judge(example: Example, response: str) -> Verdict:
        marked = find_answer(response)
        given = None
        if marked is not None:
            first = marked_choice.search(marked)
            given = first[1] if first else None
        else:
            found = last_match(phrase, response) or last_match(loose, response)
            given = next(letter for letter in found.groups() if letter) if found else None
        return judged(given == choice_letter(example.answer), marked is not None, given, example.answer)

    return judge


def choice_letter(answer: str) -> str:
    """The letter of a reference answer such as ``B``, ``(B)`` or ``B.``."""
    return answer.strip().strip("().: ").upper()


# Mathematics


def _math() -> Judge:
    import math_verify

    # It warns that no time limit is set: the worker process has one
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    def parse(text: str) -> list[Any]:
        return list(math_verify.parse(text, parsing_timeout=None))

    def read(text: str) -> list[Any]:
        bare = "$" not in text and r"\boxed" not in text and r"\(" not in text and r"\[" not in text
        return parse(rf"\boxed{{{text}}}" if bare else text)

    wanted = functools.lru_cache(maxsize=1024)(read)

    def judge(example: Example, response: str) -> Verdict:
        reference, marked = wanted(example.answer), find_answer(response)
        if not reference:
            raise ValueError(f"math-verify cannot read the reference answer {short(example.answer)}")
        found = read(marked) if marked is not None else parse(response)
        if not found:
            return judged(False, marked is not None, marked, example.answer)
        correct = bool(math_verify.verify(reference, found, timeout_seconds=None))
        return judged(correct, marked is not None, marked if marked is not None else str(found[-1]), example.answer)

    return judge


# Python functions


def prompt_of(example: Example) -> str | list[dict[str, str]]:
    """The prompt as a judge's function gets it: text where it is one user message, else the list of messages."""
    if len(example.prompt) == 1 and example.prompt[0]["role"] == "user":
        return example.prompt[0]["content"]
    return [dict(message) for message in example.prompt]


MOST_PARTS = 64
"""Numbers that a verdict may hold beside its score."""


class BadResult(Exception):
    """A judge's function returned something that is no verdict."""


def finite(value: object) -> float:
    """A number or bool (NumPy's and torch's scalars too) as a finite float."""
    item = getattr(value, "item", None)
    if callable(item):
        value = item()
    if not isinstance(value, numbers.Real):
        raise BadResult(f"returned {reprlib.repr(value)}, expected a number, a bool or a dict with a score")
    score = float(value)
    if not math.isfinite(score):
        raise BadResult(f"returned the score {score}, expected a finite number")
    return score


def read_result(result: object) -> Verdict:
    """What a judge's function returned, as a verdict. Raises :class:`BadResult` for what is none."""
    if not isinstance(result, Mapping):
        score = finite(result)
        return Verdict(score, score >= 1, False, f"score {score:g}")
    unknown = set(result) - {"score", "correct", "formatted", "reason", "parts"}
    if "score" not in result or unknown:
        raise BadResult(
            f"returned a dict with keys {sorted(map(str, result))}, "
            "expected score and, where wanted, correct, formatted, reason, parts"
        )
    score, parts = finite(result["score"]), result.get("parts", {})
    if not isinstance(parts, Mapping) or len(parts) > MOST_PARTS:
        raise BadResult(f"returned parts {reprlib.repr(parts)}, expected at most {MOST_PARTS} numbers by name")
    return Verdict(
        score,
        bool(result.get("correct", score >= 1)),
        bool(result.get("formatted", False)),
        str(result.get("reason", f"score {score:g}")),
        parts={str(name): _part(x) for name, x in parts.items()},
    )


def _part(value: object) -> float | list[float]:
    """A number, or a list of numbers for a column that takes one."""
    return [finite(x) for x in value] if isinstance(value, list | tuple) else finite(value)


def _split(name: str) -> tuple[str, str] | None:
    """File or module, and function; ``None`` where ``name`` is not an import path."""
    home, colon, function = name.rpartition(":")
    return (home, function) if colon and home and function.isidentifier() else None


def _function(name: str, options: Mapping[str, Any]) -> Judge:
    home, function = _split(name) or ("", "")
    if home.endswith(".py"):
        path = Path(home).resolve()
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(f"judge_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(home)
    call = getattr(module, function)
    inspect.signature(call).bind("prompt", "response", "answer", **options)

    def judge(example: Example, response: str) -> Verdict:
        return read_result(call(prompt_of(example), response, example.answer, **options))

    return _fills(judge, *getattr(call, "columns", ()))


def _fills(judge: Judge, *columns: str) -> Judge:
    """The judge, which fills these columns beside what every judge says."""
    judge.columns = columns  # type: ignore[attr-defined]
    return judge


def import_path() -> list[str]:
    """Where modules of judges are looked for: where this process looks, and in the current folder."""
    here = str(Path.cwd())
    return list(dict.fromkeys([*(entry or here for entry in sys.path), here]))


def _find_source(home: str, name: str) -> Path | None:
    """The source file of a module or of a ``.py`` path, without running any of it; ``None`` for a compiled module."""
    if home.endswith(".py"):
        if not Path(home).is_file():
            raise UserError(f"judge {name!r}: there is no file {home}")
        return Path(home)
    search: Any = import_path()
    parts = home.split(".")
    for i in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), search)
        if spec is None:
            missing = ".".join(parts[: i + 1])
            raise UserError(f"judge {name!r}: no module {missing!r} in the current folder or the installed packages")
        search = spec.submodule_search_locations or []
    assert spec is not None
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _check_function(name: str, home: str, function: str, options: Mapping[str, Any]) -> None:
    """Refuse a missing file or function, or a wrong signature, by reading the source: nothing is run."""
    source = _find_source(home, name)
    if source is None:
        return
    try:
        tree = ast.parse(source.read_bytes(), str(source))
    except SyntaxError as error:
        raise UserError(f"judge {name!r}: {source}, line {error.lineno}: {error.msg}") from None
    found: ast.stmt | None = None
    names: list[str] = []
    for node in tree.body:
        bound: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound = [node.name]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound = [(alias.asname or alias.name).split(".")[0] for alias in node.names]
        elif isinstance(node, ast.Assign):
            bound = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            bound = [node.target.id]
        elif not isinstance(node, ast.Expr | ast.Pass):
            bound = [child.name for child in ast.walk(node) if isinstance(child, ast.FunctionDef)]
        names += bound
        if function in bound:
            found = node
    if found is None:
        close = ", ".join(difflib.get_close_matches(function, names, n=3, cutoff=0.5))
        raise UserError(f"judge {name!r}: {source} defines no {function!r}" + (f"; nearest: {close}" if close else ""))
    if isinstance(found, ast.AsyncFunctionDef):
        raise UserError(
            f"judge {name!r}: {source}, line {found.lineno}: {function} is async, expected a plain function"
        )
    if isinstance(found, ast.FunctionDef) and _as_written(found) and not _takes_three(found.args, set(options)):
        call = ", ".join(["prompt", "response", "answer", *(f"{option}=..." for option in options)])
        raise UserError(
            f"judge {name!r}: {source}, line {found.lineno}: {function}({ast.unparse(found.args)}) "
            f"cannot be called as {function}({call})"
        )


def _as_written(function: ast.FunctionDef) -> bool:
    """Whether a function is called as it stands: without decorators, or with ``@judge(...)``, which changes nothing."""
    names = [ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in function.decorator_list]
    return set(names) <= {"judge"}


def _takes_three(args: ast.arguments, options: set[str]) -> bool:
    """Whether a function with these arguments takes (prompt, response, answer) and the options by name."""
    positional = [a.arg for a in (*args.posonlyargs, *args.args)]
    required = positional[: len(positional) - len(args.defaults)]
    by_name = set(positional[3:]) - {a.arg for a in args.posonlyargs} | {a.arg for a in args.kwonlyargs}
    needed = set(required[3:])
    needed |= {a.arg for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is None}
    enough = len(positional) >= 3 or args.vararg is not None
    return enough and needed <= options and (args.kwarg is not None or options <= by_name)


# By name


def _reasoning_gym(**options: Any) -> Judge:
    from policyopt.judging.reasoning_judge import library_judge

    return library_judge(**options)


def _tagged(tag: str = "think", judge: str = "exact", options: Mapping[str, Any] | None = None) -> Judge:
    inner = make_judge(JudgeSpec(judge, options or {}))

    def judge_blocks(example: Example, response: str) -> Verdict:
        return dataclasses.replace(inner(example, response), formatted=in_blocks(response, tag))

    return _fills(judge_blocks, *getattr(inner, "columns", ()))


def _diverse(judge: str = "exact", options: Mapping[str, Any] | None = None) -> Judge:
    inner = make_judge(JudgeSpec(judge, options or {}))

    def judge_text(example: Example, response: str) -> Verdict:
        verdict = inner(example, response)
        found = mean_diversity(diversity(*sentences(response)))
        return dataclasses.replace(verdict, parts={**verdict.parts, "accuracy": verdict.score, "diversity": found})

    own = ("component[accuracy]", "component[diversity]")
    return _fills(judge_text, *getattr(inner, "columns", ()), *own)


_WRAPPERS = ("tagged", "diverse")
"""Judges that ask another one first."""

_JUDGES: dict[str, Callable[..., Judge]] = {
    "math": _math,
    "exact": _exact,
    "number": _number,
    "regex": _regex,
    "choice": _choice,
    "reasoning-gym": _reasoning_gym,
    "tagged": _tagged,
    "diverse": _diverse,
}


def make_judge(spec: JudgeSpec) -> Judge:
    """The judge itself. Runs in the worker process: a Python function's file is loaded here."""
    if spec.name in _JUDGES:
        return _JUDGES[spec.name](**spec.options)
    return _function(spec.name, spec.options)


def check_judge(spec: JudgeSpec) -> None:
    """Refuse a judge that cannot work, before anything runs and without running any of the user's code.

    Raises:
        UserError: An unknown name (with the nearest ones), an unknown or ill-typed option, a file or module that does
            not exist, a function that is not in it or does not take ``(prompt, response, answer)``.
    """
    name, options = spec.name, spec.options
    if name not in _JUDGES:
        parts = _split(name)
        if parts is None:
            close = difflib.get_close_matches(name, _JUDGES, n=3, cutoff=0.5)
            nearest = f"; nearest: {', '.join(close)}" if close else ""
            raise UserError(
                f"no judge is called {name!r}{nearest}. A judge is one of {', '.join(_JUDGES)}, "
                "or a Python function as package.module:name or path/to/file.py:name"
            )
        _check_function(name, *parts, options)
        return
    if name == "reasoning-gym":
        return
    known = inspect.signature(_JUDGES[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise UserError(f"judge {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}")
        if name not in _WRAPPERS:
            _check_option(name, option, value)
    if name in _WRAPPERS:
        check_judge(JudgeSpec(str(options.get("judge", "exact")), options.get("options") or {}))


def _check_option(name: str, option: str, value: object) -> None:
    detail = ""
    if option == "ignore_case":
        good, expected = isinstance(value, bool), "true or false"
    elif option == "tolerance":
        good, expected = isinstance(value, int | float) and not isinstance(value, bool), "a number of at least 0"
        good = good and math.isfinite(value) and value >= 0  # type: ignore[arg-type, operator]
    elif option == "letters":
        good, expected = isinstance(value, str) and re.fullmatch("[A-Z]+", value) is not None, "capital letters"
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
    if spec.name in _WRAPPERS:
        return answer_error(JudgeSpec(spec.options.get("judge", "exact"), spec.options.get("options") or {}), answer)
    if spec.name == "number" and parse_number(answer) is None:
        return f"judge 'number' needs a number, answer is {short(answer)}"
    if spec.name == "choice":
        letters = spec.options.get("letters", "ABCDE")
        letter = choice_letter(answer)
        if len(letter) != 1 or letter not in letters:
            return f"judge 'choice' needs one of the letters {letters}, answer is {short(answer)}"
    if spec.name == "regex" and "pattern" not in spec.options and (error := pattern_error(answer)):
        return f"judge 'regex' needs a regular expression, answer is {short(answer)} ({error})"
    return None
