"""Which column of a dataset is which: found by the names of its columns, or told by ``--columns``.

==============================================  ==============================================================
columns                                         read as
==============================================  ==============================================================
``prompt``, ``answer`` (``solution``)           a question and its reference answer (and a worked solution)
``question``, ``answer``                        the same; ``problem`` and ``query`` are questions too
``problem``, ``solution`` (``answer``)          the solution is worked out; without an answer it is read for one
``prompt``, ``tests`` (``solution``)            the tests of a program, which judge ``code`` runs
``messages``, ``ground_truth``                  chat messages, up to the last turn of the assistant
``prompt``, ``reward_model.ground_truth``       verl's; ``data_source`` and ``extra_info`` are kept for judges
``prompt``, ``completion``                      a text to learn from; ``output`` and ``response`` are completions too
``instruction`` (``input``), ``output``         the input stands after the instruction
``messages``                                    the last turn of the assistant is the completion
``prompt``, ``chosen``, ``rejected``            a pair of texts, or of chats that begin with the prompt
``chosen``, ``rejected``                        a pair of chats; what they have in common is the prompt
``prompt``, ``chosen``, ``rejected``,           a third text beside the pair
``completion``
``prompt``, ``completion``, ``label``           a text that somebody called good or bad: true or false, 1 or 0
``prompt``, ``responses``, ``scores``           several texts and a number for each; ``completions`` are responses too
``system`` beside a question                    the message of the system, before the others; ``system_prompt`` too
==============================================  ==============================================================

A column that has the very name of what is read is it. Where several others could be, none is taken. Numbers beside a
text (``chosen_score``, ``rejected_score``, ``margin``) are kept by name, for sources and parts that name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policyopt.errors import UserError, nearest

TARGETS = (
    "system", "prompt", "messages", "input", "answer", "solution", "completion", "chosen", "rejected", "label", "responses",
    "scores",
)  # fmt: skip
"""What a column can be."""
GIVEN = frozenset({"completion", "chosen", "rejected", "responses"})
"""Texts to learn from."""
BESIDE = {"label": ("completion", "messages"), "scores": ("responses",)}
"""What means something only beside one of some others."""

_PROMPTS = ("question", "problem", "query", "instruction")
_ANSWERS = ("ground_truth", "reward_model.ground_truth", "final_answer")
_COMPLETIONS = ("output", "response")
_SEVERAL = ("responses", "completions")
_MESSAGES = ("messages", "conversations")
_INPUTS = ("input", "context")
_IN_THE_QUESTION = ("choices", "options", "context", "passage")
"""Columns without which a question is only a part of itself."""
_SHOWN = 12


@dataclass(frozen=True)
class Layout:
    """The column for each thing that is read of a row."""

    columns: Mapping[str, str]
    """By what it is; a name with dots reaches into an object."""
    asked: bool = False
    """Somebody has told it."""

    def said(self) -> str:
        """``"question -> prompt, answer"``: the names of columns, and what they are where that is something else."""
        return ", ".join(c if t == c else f"{c} -> {t}" for t, c in self.columns.items())


def parse_columns(text: str | None) -> dict[str, str]:
    """``"prompt=question,answer=gold"`` as a mapping.

    Raises :class:`~policyopt.errors.UserError` for what cannot be read, and for what no column can be.
    """
    found: dict[str, str] = {}
    for piece in text.split(",") if text else ():
        target, equals, column = (x.strip() for x in piece.partition("="))
        if not (target and equals and column):
            raise UserError(f"--columns {text}: expected NAME=COLUMN, not {piece!r}: prompt=question,answer=gold")
        if target not in TARGETS:
            raise UserError(f"--columns {text}: a column cannot be {target!r}; {nearest(target, TARGETS)}")
        if target in found:
            raise UserError(f"--columns {text}: {target} stands there twice")
        found[target] = column
    if {"prompt", "messages"} <= found.keys():
        raise UserError(f"--columns {text}: prompt and messages both hold the question: leave one of them out")
    return found


def written(columns: Any) -> Any:
    """A mapping of columns as text; anything else as it is."""
    return ",".join(f"{k}={v}" for k, v in columns.items()) if isinstance(columns, Mapping) else columns


def reach(row: Mapping[str, Any], column: str) -> Any:
    """What a row has in a column; dots reach into objects, and into lists by number. ``None`` where nothing is."""
    if column in row:
        return row[column]
    value: Any = row
    for name in column.split("."):
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def names_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns that hold something in some row, and the names within those that are objects (``"extra_info.index"``)."""
    found: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            if value is None:
                continue
            if name not in found:
                found[name] = None
            if isinstance(value, Mapping):
                found.update(dict.fromkeys(f"{name}.{inner}" for inner, x in value.items() if x is not None))
    return list(found)


def listed(names: Sequence[str]) -> str:
    """The columns of a file, in words."""
    shown = [name[:60] for name in names if "." not in name or name.split(".")[0] not in names]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")


def find_layout(names: Sequence[str], asked: Mapping[str, str], place: str, acted: bool = False) -> Layout:
    """What the columns of a file are, whose rows need nothing beside a question where they are ``acted`` on in an environment.

    Raises :class:`~policyopt.errors.UserError` where no column holds a prompt, or nothing is there to judge by or to learn
    from, and where several columns could be the same thing, with the option that decides.
    """
    own = {target: target for target in TARGETS if target in names and target != "input"}
    for target, column in asked.items():
        if column not in names and not _reaches(column, names):
            raise UserError(f"--columns {target}={column}: {place} has no such column; {_near(column, names)}")
    found = own | dict(asked)
    _find_scored(found, names, asked, place)
    if "system" not in found and not asked and "system_prompt" in names:
        found["system"] = "system_prompt"
    if asked and {"prompt", "messages"} & asked.keys():
        found.pop("prompt" if "messages" in asked else "messages", None)
    else:
        _find_question(found, names, place)
    if "prompt" in found and found["prompt"] not in ("prompt", *asked.values()):
        _whole_question(found, names, place)
    _find_worth(found, names, place)
    question = {"prompt", "messages"} & found.keys() or {"chosen", "rejected"} <= found.keys()
    if not question:
        raise UserError(
            f"{place}: no column holds the prompt; its columns are {listed(names)}: say which, {_example(found, names)}"
        )
    if not acted and not GIVEN & found.keys() and not {"answer", "messages"} & found.keys():
        raise UserError(
            f"{place}: no column holds an answer or a text to learn from; its columns are {listed(names)}: say which, "
            "--columns answer=COLUMN or --columns completion=COLUMN"
        )
    _find_beside(found, asked)
    return Layout({target: found[target] for target in TARGETS if target in found}, bool(asked))


def _reaches(column: str, names: Sequence[str]) -> bool:
    return any(column.startswith(f"{name}.") for name in names)


def _near(column: str, names: Sequence[str]) -> str:
    return nearest(column, names) if len(names) <= _SHOWN else f"its columns are {listed(names)}"


def _example(found: Mapping[str, str], names: Sequence[str]) -> str:
    free = [name for name in names if name not in found.values()]
    first = free[0] if free else "COLUMN"
    answer = "" if "answer" in found or GIVEN & found.keys() else f",answer={free[1] if len(free) > 1 else 'COLUMN'}"
    return f"--columns prompt={first}{answer}"


def _one(candidates: Sequence[str], names: Sequence[str], target: str, place: str) -> str | None:
    """The one of some columns that is there."""
    there = [name for name in candidates if name in names]
    if len(there) > 1:
        raise UserError(
            f"{place}: {' and '.join(there)} could each be the {target}: say which, "
            + " or ".join(f"--columns {target}={name}" for name in there)
        )
    return there[0] if there else None


def _find_question(found: dict[str, str], names: Sequence[str], place: str) -> None:
    """The column of the prompt; chat messages where there is no other."""
    paired = {"chosen", "rejected"} <= found.keys()
    if "prompt" in found or (paired and not any(name in names for name in _PROMPTS)):
        found.pop("messages", None)
    elif column := _one(_PROMPTS, names, "prompt", place):
        found["prompt"] = column
        found.pop("messages", None)
    elif column := _one(_MESSAGES, names, "messages", place):
        found["messages"] = column


def _whole_question(found: dict[str, str], names: Sequence[str], place: str) -> None:
    """What belongs to a question beside its text."""
    if found["prompt"] == "instruction" and "input" not in found and (column := _one(_INPUTS, names, "input", place)):
        found["input"] = column
    for name in _IN_THE_QUESTION:
        if name in names and name not in found.values():
            both = f"prompt={found['prompt']}"
            raise UserError(
                f"{place}: beside {found['prompt']!r} stands {name!r}, which the model would not see: write a column 'prompt' "
                f"that holds both, or leave it out with --columns {both}"
            )


def _find_scored(found: dict[str, str], names: Sequence[str], asked: Mapping[str, str], place: str) -> None:
    """The column of several responses: taken unasked only where one of scores stands beside it."""
    if "responses" in asked:
        return
    found.pop("responses", None)
    if "scores" in found and (column := _one(_SEVERAL, names, "responses", place)):
        found["responses"] = column


def _find_beside(found: dict[str, str], asked: Mapping[str, str]) -> None:
    """Leave out what means nothing without another column."""
    if "answer" in found and "completion" not in found and "label" not in asked:
        found.pop("label", None)  # of messages with an answer, what the assistant once said is not read
    for target, others in BESIDE.items():
        if target in found and not found.keys() & others:
            if target in asked:
                raise UserError(
                    f"--columns {target}={asked[target]}: no column is the {others[0]}, beside which it stands"
                )
            del found[target]


def _find_worth(found: dict[str, str], names: Sequence[str], place: str) -> None:
    """What responses are judged by, or what is learnt from."""
    if "answer" not in found and (column := _one(_ANSWERS, names, "answer", place)):
        found["answer"] = column
    if "answer" not in found and not GIVEN & found.keys() and "tests" in names:
        found["answer"] = "tests"
    if "answer" not in found and not GIVEN & found.keys():
        if "prompt" in found and (column := _one(_COMPLETIONS, names, "completion", place)):
            found["completion"] = column
        elif "solution" in found and {"prompt", "messages"} & found.keys():
            found["answer"] = found["solution"]
