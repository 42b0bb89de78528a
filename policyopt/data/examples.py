"""Rows as examples. Each row is checked before anything runs, and one that cannot be used is named with its place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from policyopt.data.chats import chat_of, from_text, kind_of, prompt_of, unicode_of, with_input, with_system
from policyopt.data.columns import GIVEN, Layout, names_of, reach
from policyopt.data.files import Row, unit
from policyopt.data.texts import common_prompt, given_text, labelled, scored, text_of
from policyopt.errors import UserError
from policyopt.items import TEXTS, Example, Message

LONGEST_KEPT = 20_000
"""Characters of a further column that are kept for judges, as JSON."""
MOST_KEPT = 100_000
"""Characters of all further columns of a row together."""

MOST_COLUMNS = 1000
"""Columns of a row."""

_PICTURES = ("image", "images", "video", "videos", "audio", "audios")


def place_of(example: Example) -> str:
    """``"data.jsonl, line 17"``."""
    source, _, number = example.id.rpartition(":")
    return f"{source}, {unit(source)} {number}"


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The columns that hold something in some row.

    Raises :class:`~policyopt.errors.UserError` for a row that is no object, and for too many columns.
    """
    for where, number, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{where} {number}: expected an object with prompt and answer, not {kind_of(row)}")
        if len(row) > MOST_COLUMNS:
            raise UserError(f"{where} {number}: {len(row):,} columns, at most {MOST_COLUMNS:,} are read")
    names = names_of(row for _, _, row in rows)
    if len(names) > 10 * MOST_COLUMNS:
        raise UserError(
            f"{rows[0][0].rpartition(', ')[0]}: {len(names):,} different columns: are its rows of one kind?"
        )
    return names


def example(name: str, row: Row, layout: Layout, source: str = "") -> Example:
    """One row as an example; ``name`` is that of its file, ``source`` what the log calls the part of a mixture.

    Raises :class:`~policyopt.errors.UserError` for a row that cannot be used.
    """
    where, number, values = row
    place = f"{where} {number}"
    found = {t: x for t, c in layout.columns.items() if (x := reach(values, c)) is not None}
    if not layout.asked and (pictures := [p for p in _PICTURES if values.get(p)]):
        raise UserError(f"{place}: {pictures[0]!r} holds something to see or hear, and models here read text alone")
    _whole(place, found, layout, values)
    prompt, texts = _asked(place, found)
    if "input" in found:
        prompt = with_input(f"{place}: {layout.columns['input']}", prompt, found["input"])
    for text in TEXTS:
        if text in found and text not in texts:
            texts[text] = given_text(f"{place}: {text}", found[text], prompt)
    if texts.get("chosen") is not None and texts["chosen"] == texts.get("rejected"):
        raise UserError(
            f"{place}: chosen and rejected are the same text, so that nothing is preferred: take the row out"
        )
    if "system" in found:
        prompt = with_system(f"{place}: {layout.columns['system']}", prompt, found["system"])
    if layout.columns.get("answer") == "tests" and isinstance(found.get("answer"), list):
        found["answer"] = json.dumps(found["answer"])  # judges read the tests of a program from the answer
    answer = _answer(place, found["answer"]) if "answer" in found else ""
    if answer and "messages" in found:
        texts.pop("completion", None)  # what the assistant once said, where responses are judged
    return Example(
        f"{name}:{number}", prompt, answer, _solution(place, found.get("solution")), _further(values, layout),
        **texts, **labelled(place, found, texts.get("completion")), **scored(place, found, prompt), source=source,
    )  # fmt: skip


def _whole(place: str, found: Mapping[str, Any], layout: Layout, values: Mapping[str, Any]) -> None:
    """Refuse a row that lacks what the others have."""
    question = "messages" if "messages" in layout.columns else "prompt"
    implicit = not {"prompt", "messages"} & layout.columns.keys()
    wanted = [] if implicit else [question]
    if "chosen" in found or "rejected" in found:
        wanted += ["chosen", "rejected"]
    elif implicit:
        wanted = ["chosen", "rejected"]
    elif not (GIVEN | {"answer"}) & found.keys() and (question == "prompt" or "answer" in layout.columns):
        wanted += [t for t in ("answer", "completion", "responses", "chosen") if t in layout.columns][:1]
    for target in wanted:
        if target not in found:
            column = layout.columns.get(target, target)
            meant = "" if column == target else f", which is the {target}"
            there = [name for name, x in values.items() if x is not None]
            told = f" (it has {', '.join(name[:60] for name in there[:12])})" if there else ""
            raise UserError(f"{place}: no {column!r}{meant}{told}")


# The question ------------------------------------------------------------------------------------------------------


def _asked(place: str, found: Mapping[str, Any]) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """The prompt of a row, and the texts that come with it where it is a part of a chat."""
    if "prompt" in found:
        return prompt_of(place, found["prompt"]), {}
    if "messages" in found:
        said = chat_of(f"{place}: messages", from_text(found["messages"]))
        if said[-1]["role"] != "assistant":
            return said, {}
        if len(said) == 1:
            raise UserError(f"{place}: messages: the assistant alone speaks, and nothing is asked")
        return said[:-1], {"completion": text_of(f"{place}: messages, message {len(said)}", said[-1]["content"])}
    return common_prompt(place, found)


# What else a row holds -----------------------------------------------------------------------------------------------


def _answer(place: str, answer: Any) -> str:
    if isinstance(answer, str) and answer.strip():
        return unicode_of(f"{place}: answer", answer)
    if isinstance(answer, str):
        raise UserError(f"{place}: answer is empty")
    if isinstance(answer, dict):
        raise UserError(
            f"{place}: answer is an object, expected text or a number: --columns answer=NAME.FIELD reaches into it"
        )
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise UserError(f"{place}: answer is {kind_of(answer)}, expected text or a number")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise UserError(f"{place}: answer is {answer}, expected a finite number")
    return str(answer)


def _solution(place: str, solution: Any) -> str | None:
    if solution is None:
        return None
    if not isinstance(solution, str):
        raise UserError(f"{place}: solution is {kind_of(solution)}, expected text, or no solution at all")
    return unicode_of(f"{place}: solution", solution) if solution.strip() else None


def _further(values: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """The columns of a row that are kept for judges: all but those that an example holds under the same name, and
    chats."""
    own = {c for t, c in layout.columns.items() if t == c and t not in ("solution", "label")} | {
        layout.columns.get("messages")
    }
    kept: dict[str, Any] = {}
    room: float = MOST_KEPT
    for name, value in values.items():
        if value is None or name in own or name == "entry":  # under this name a judge reads what the library has packed
            continue
        size, value = _kept(value)
        if size <= min(room, LONGEST_KEPT):
            kept[name], room = value, room - size
    return kept


_STRICT = json.JSONEncoder(allow_nan=False)


def _kept(value: Any) -> tuple[float, Any]:
    """How many characters a value has as JSON, more than there may be for what is no JSON; and the value, dates and the like as text."""
    if isinstance(value, str):
        return len(value), value
    if isinstance(value, bool | int):
        return 8, value
    try:
        return len(_STRICT.encode(value)), value
    except (ValueError, RecursionError):
        return math.inf, None
    except TypeError:
        pass
    try:
        text = json.dumps(value, default=_as_text, allow_nan=False)
        return len(text), json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return math.inf, None


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError
    return str(value)
