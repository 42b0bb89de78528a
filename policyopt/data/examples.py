"""Rows as examples. Each row is checked before anything runs, and one that cannot be used is named with its place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from policyopt.data.columns import GIVEN, Layout, names_of, reach
from policyopt.data.files import Row, unit
from policyopt.errors import UserError
from policyopt.items import TEXTS, Example, Message, user

LONGEST_KEPT = 20_000
"""Characters of a further column that are kept for judges, as JSON."""
MOST_KEPT = 100_000
"""Characters of all further columns of a row together."""

MOST_COLUMNS = 1000
"""Columns of a row."""

_ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {"human": "user", "gpt": "assistant"}
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
            raise UserError(f"{where} {number}: expected an object with prompt and answer, not {_kind(row)}")
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
        prompt = _with_input(f"{place}: {layout.columns['input']}", prompt, found["input"])
    for text in TEXTS:
        if text in found and text not in texts:
            texts[text] = _given(f"{place}: {text}", found[text], prompt)
    if "system" in found:
        prompt = _with_system(f"{place}: {layout.columns['system']}", prompt, found["system"])
    answer = _answer(place, found["answer"]) if "answer" in found else ""
    if answer and "messages" in found:
        texts.pop("completion", None)  # what the assistant once said, where responses are judged
    return Example(
        f"{name}:{number}", prompt, answer, _solution(place, found.get("solution")), _further(values, layout),
        **texts, source=source,
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
        wanted.append(next(t for t in ("answer", "completion", "chosen") if t in layout.columns or t == "chosen"))
    for target in wanted:
        if target not in found:
            column = layout.columns.get(target, target)
            meant = "" if column == target else f", which is the {target}"
            there = [name for name, x in values.items() if x is not None]
            told = f" (it has {', '.join(name[:60] for name in there[:12])})" if there else ""
            raise UserError(f"{place}: no {column!r}{meant}{told}")


# The question --------------------------------------------------------------------------------------------------------


def _asked(place: str, found: Mapping[str, Any]) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """The prompt of a row, and the texts that come with it where it is a part of a chat."""
    if "prompt" in found:
        return _prompt(place, found["prompt"]), {}
    if "messages" in found:
        said = _chat(f"{place}: messages", _from_text(found["messages"]))
        if said[-1]["role"] != "assistant":
            return said, {}
        if len(said) == 1:
            raise UserError(f"{place}: messages: the assistant alone speaks, and nothing is asked")
        return said[:-1], {"completion": _words(f"{place}: messages, message {len(said)}", said[-1]["content"])}
    return _common(place, found)


def _common(place: str, found: Mapping[str, Any]) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """A pair of chats: what they have in common is the prompt."""
    sides = {name: _from_text(found[name]) for name in ("chosen", "rejected")}
    for name, chat in sides.items():
        if not isinstance(chat, list):
            raise UserError(
                f"{place}: no 'prompt', and {name} is {_kind(chat)}: expected a prompt, or whole chats in chosen and rejected"
            )
    chosen, rejected = (_chat(f"{place}: {name}", chat) for name, chat in sides.items())
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    ends = {len(chosen), len(rejected)} == {same + 1} and chosen[-1]["role"] == rejected[-1]["role"] == "assistant"
    if not (same and ends):
        raise UserError(
            f"{place}: chosen and rejected have {same} messages in common: expected one or more, and then one message of the "
            "assistant in each"
        )
    texts = {name: _words(f"{place}: {name}", chat[-1]["content"]) for name, chat in
             (("chosen", chosen), ("rejected", rejected))}  # fmt: skip
    return chosen[:same], texts


def _prompt(place: str, prompt: Any) -> tuple[Message, ...]:
    prompt = _from_text(prompt)
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError(f"{place}: prompt is empty")
        if prompt.lstrip().startswith(("[{'role'", "[{'content'")):
            raise UserError(f"{place}: prompt is chat messages as Python writes them: write them as JSON")
        return user(_unicode(f"{place}: prompt", prompt))
    if not isinstance(prompt, list):
        raise UserError(f"{place}: prompt is {_kind(prompt)}, expected text or a list of chat messages")
    return _chat(f"{place}: prompt", prompt)


def _from_text(value: Any) -> Any:
    """Chat messages that are written as JSON text; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[{", "[ {", "[\n")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    chat = (
        isinstance(found, list)
        and found
        and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in found)
    )
    return found if chat else value


def _chat(place: str, messages: Any) -> tuple[Message, ...]:
    if not isinstance(messages, list):
        raise UserError(f"{place} is {_kind(messages)}, expected a list of chat messages")
    if not messages:
        raise UserError(f"{place} has no messages")
    return tuple(_message(f"{place}, message {i}", message) for i, message in enumerate(messages, 1))


def _message(place: str, message: Any) -> Message:
    if not isinstance(message, dict):
        raise UserError(f"{place} is {_kind(message)}, expected an object with role and content")
    # Parquet fills fields that only other messages have
    message = {key: value for key, value in message.items() if value is not None}
    if {"from", "value"} <= message.keys() and "role" not in message:
        role = message.pop("from")
        message |= {
            "role": _SHAREGPT.get(role, role) if isinstance(role, str) else role,
            "content": message.pop("value"),
        }
    if set(message) != {"role", "content"}:
        names = ", ".join(key[:60] for key in list(message)[:12])
        raise UserError(f"{place} has {names or 'nothing'}, expected role and content")
    if message["role"] not in _ROLES:
        raise UserError(f"{place}: role is {str(message['role'])[:60]!r}, expected one of {', '.join(_ROLES)}")
    return {"role": message["role"], "content": _unicode(f"{place}: content", _content(place, message["content"]))}


def _content(place: str, content: Any) -> str:
    """The text of a message; of one in parts, what its texts say."""
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        for part in content:
            if (kind := part.get("type")) != "text" or not isinstance(part.get("text"), str):
                raise UserError(
                    f"{place}: content has a part of the type {str(kind)[:60]!r}, and models here read text alone"
                )
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise UserError(f"{place}: content is {_kind(content)}, expected text")
    return content


def _with_input(place: str, prompt: tuple[Message, ...], text: Any) -> tuple[Message, ...]:
    if not isinstance(text, str):
        raise UserError(f"{place} is {_kind(text)}, expected text")
    if not text.strip():
        return prompt
    last = {**prompt[-1], "content": f"{prompt[-1]['content']}\n\n{_unicode(place, text)}"}
    return (*prompt[:-1], last)


def _with_system(place: str, prompt: tuple[Message, ...], text: Any) -> tuple[Message, ...]:
    """The prompt with a message of the system before it, where it has none of its own."""
    if not isinstance(text, str):
        raise UserError(f"{place} is {_kind(text)}, expected text")
    if not text.strip() or prompt[0]["role"] == "system":
        return prompt
    return ({"role": "system", "content": _unicode(place, text)}, *prompt)


# What else a row holds -----------------------------------------------------------------------------------------------


def _unicode(place: str, text: str) -> str:
    """``text`` itself. JSON can hold half of a surrogate pair, which no tokenizer takes, and a null character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: not Unicode text (half a surrogate pair at character {error.start})") from None
    if "\0" in text:
        raise UserError(f"{place}: holds a null character (character {text.index(chr(0))})")
    return text


def _answer(place: str, answer: Any) -> str:
    if isinstance(answer, str) and answer.strip():
        return _unicode(f"{place}: answer", answer)
    if isinstance(answer, str):
        raise UserError(f"{place}: answer is empty")
    if isinstance(answer, dict):
        raise UserError(
            f"{place}: answer is an object, expected text or a number: --columns answer=NAME.FIELD reaches into it"
        )
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise UserError(f"{place}: answer is {_kind(answer)}, expected text or a number")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise UserError(f"{place}: answer is {answer}, expected a finite number")
    return str(answer)


def _solution(place: str, solution: Any) -> str | None:
    if solution is None:
        return None
    if not isinstance(solution, str):
        raise UserError(f"{place}: solution is {_kind(solution)}, expected text, or no solution at all")
    return _unicode(f"{place}: solution", solution) if solution.strip() else None


def _given(place: str, text: Any, prompt: tuple[Message, ...]) -> str:
    """A text to learn from; of chat messages, what the assistant says after those of the prompt."""
    text = _from_text(text)
    if isinstance(text, list):
        said = tuple(_message(f"{place}, message {i}", message) for i, message in enumerate(text, 1))
        # Who wrote the prompt as text wrote its last message
        begun = said[:-1] in ((), prompt) or [m["content"] for m in said[:-1]] == [m["content"] for m in prompt]
        if not said or said[-1]["role"] != "assistant" or not begun:
            raise UserError(f"{place}: expected one message of the assistant (what comes before belongs into prompt)")
        text = said[-1]["content"]
    if not isinstance(text, str):
        raise UserError(f"{place} is {_kind(text)}, expected text or a list with one message of the assistant")
    return _words(place, text)


def _words(place: str, text: str) -> str:
    if not text.strip():
        raise UserError(f"{place} is empty")
    return _unicode(place, text)


def _further(values: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """The columns of a row that are kept for judges: all but those that an example holds under the same name, and
    chats."""
    own = {c for t, c in layout.columns.items() if t == c and t != "solution"} | {layout.columns.get("messages")}
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


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
