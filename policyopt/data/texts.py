"""Texts to learn from, as a row brings them: completions, pairs, labels, several responses with scores."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from policyopt.data.chats import chat_of, from_text, kind_of, message_of, unicode_of
from policyopt.data.columns import GIVEN, Layout, reach
from policyopt.data.files import Row
from policyopt.errors import UserError
from policyopt.items import Message

_LABELS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_SCORES = ("score", "overall_score")
"""Where an object that holds a response may have its score."""


def given_text(place: str, text: Any, prompt: tuple[Message, ...]) -> str:
    """A text to learn from; of chat messages, what the assistant says after those of the prompt."""
    text = from_text(text)
    if isinstance(text, list):
        said = tuple(message_of(f"{place}, message {i}", message) for i, message in enumerate(text, 1))
        if not said or said[-1]["role"] != "assistant":
            raise UserError(f"{place}: expected one message of the assistant (what comes before belongs into prompt)")
        # Who wrote the prompt as text wrote its last message
        begun = said[:-1] in ((), prompt) or [m["content"] for m in said[:-1]] == [m["content"] for m in prompt]
        if not begun:
            raise UserError(
                f"{place}: the messages before its last one are not those of prompt: expected the same, or one message of the "
                "assistant alone"
            )
        text = said[-1]["content"]
    if not isinstance(text, str):
        raise UserError(f"{place} is {kind_of(text)}, expected text or a list with one message of the assistant")
    return text_of(place, text)


def text_of(place: str, text: str) -> str:
    """A text to learn from. Raises :class:`~policyopt.errors.UserError` for an empty one, and for what is no Unicode."""
    if not text.strip():
        raise UserError(f"{place} is empty")
    return unicode_of(place, text)


# Pairs ---------------------------------------------------------------------------------------------------------------


def common_prompt(place: str, found: Mapping[str, Any]) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """A pair of chats: what they have in common is the prompt. Returns it, and their last messages by side."""
    sides = {name: from_text(found[name]) for name in ("chosen", "rejected")}
    for name, chat in sides.items():
        if not isinstance(chat, list):
            raise UserError(
                f"{place}: no 'prompt', and {name} is {kind_of(chat)}: expected a prompt, or whole chats in chosen and rejected"
            )
    chosen, rejected = (chat_of(f"{place}: {name}", chat) for name, chat in sides.items())
    if chosen == rejected:
        raise UserError(
            f"{place}: chosen and rejected are the same chat, so that nothing is preferred: take the row out"
        )
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    ends = {len(chosen), len(rejected)} == {same + 1} and chosen[-1]["role"] == rejected[-1]["role"] == "assistant"
    if not (same and ends):
        raise UserError(
            f"{place}: chosen and rejected have {same} messages in common, of {len(chosen)} and {len(rejected)}: expected one or "
            "more, which are the prompt, and then one message of the assistant in each"
        )
    texts = {name: text_of(f"{place}: {name}", chat[-1]["content"]) for name, chat in
             (("chosen", chosen), ("rejected", rejected))}  # fmt: skip
    return chosen[:same], texts


def need_one_kind(rows: Sequence[Row], layout: Layout) -> None:
    """Refuse texts to learn from, and prompts before them, that are chat messages in one row of a file and text in another: a chat
    template would stand around some of them alone.

    Raises :class:`~policyopt.errors.UserError` with the first two rows that differ.
    """
    if not GIVEN & layout.columns.keys():
        return
    kinds = ("text", "chat messages")
    targets = ("prompt", "completion", "chosen", "rejected")
    columns = {t: layout.columns[t] for t in targets if t in layout.columns}
    first: dict[str, tuple[bool, str]] = {}
    for where, number, values in rows:
        for target, column in columns.items():
            value = reach(values, column)
            if value is None:
                continue
            chat, place = isinstance(from_text(value), list), f"{where} {number}"
            before, there = first.setdefault(target, (chat, place))
            if chat != before:
                raise UserError(
                    f"{place}: {column} is {kinds[chat]}, and {kinds[before]} in {there}: write it alike in all rows of a file"
                )


# Judged texts --------------------------------------------------------------------------------------------------------


def labelled(place: str, found: Mapping[str, Any], completion: str | None) -> dict[str, Any]:
    """A completion that somebody called good or bad, and which of the two; nothing where there is no label."""
    label = found.get("label")
    if label is None:
        return {}
    if completion is None:
        raise UserError(f"{place}: a label, and no text that it is about")
    said = _LABELS.get(str(label).strip().lower()) if isinstance(label, bool | int | float | str) else None
    if said is None:
        raise UserError(
            f"{place}: label is {str(label)[:60]!r}, expected true or false, 1 or 0 (--columns label=COLUMN takes another column)"
        )
    return {"labelled": completion, "label": said}


def scored(place: str, found: Mapping[str, Any], prompt: tuple[Message, ...]) -> dict[str, Any]:
    """Several responses and their scores; nothing where there are none.

    Scores stand in a list of their own, or in the objects that the responses are (UltraFeedback's ``completions``).
    """
    if "responses" not in found:
        return {}
    responses, scores = (
        _list(f"{place}: {name}", found[name]) if name in found else None for name in ("responses", "scores")
    )
    assert responses is not None
    if scores is None:
        scores = [_inside(f"{place}: responses, {i}", entry) for i, entry in enumerate(responses, 1)]
    if len(responses) < 2:
        raise UserError(
            f"{place}: responses has {len(responses)}, expected two or more, of which some are better than others"
        )
    if len(scores) != len(responses):
        raise UserError(f"{place}: {len(responses)} responses and {len(scores)} scores: expected a score for each")
    texts = [x.get("response", x.get("text")) if isinstance(x, Mapping) else x for x in responses]
    return {
        "responses": tuple(given_text(f"{place}: responses, {i}", text, prompt) for i, text in enumerate(texts, 1)),
        "scores": tuple(_score(f"{place}: scores, {i}", x) for i, x in enumerate(scores, 1)),
    }


def _list(place: str, value: Any) -> list[Any]:
    """A list, also one that a table holds as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            pass
    if not isinstance(value, list):
        raise UserError(f"{place} is {kind_of(value)}, expected a list")
    return value


def _inside(place: str, entry: Any) -> Any:
    score = next((entry[name] for name in _SCORES if name in entry), None) if isinstance(entry, Mapping) else None
    if score is None:
        raise UserError(
            f"{place}: no score: expected a column 'scores' with a number for each, or a 'score' in each response"
        )
    return score


def _score(place: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{place} is {value if isinstance(value, float) else kind_of(value)}, expected a finite number")
    return float(value)
