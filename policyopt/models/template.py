"""What a chat template does, found out by rendering it: what ends and marks turns, what it opens, what it reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_SAID = "quartz"
"""A word that no template writes, in the place of a message."""
_OPENED = re.compile(r"[<\[◁](?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|scratchpad)[>\]▷]\s*$", re.IGNORECASE)
_TAG = re.compile(r"</?([A-Za-z][\w-]*)>")


def render(tokenizer: Any, messages: Sequence[Mapping[str, str]], answer: bool, **arguments: Any) -> str:
    """What a template makes of messages, up to where the model answers or without that; nothing where it refuses them or
    there is none."""
    if not tokenizer.chat_template:
        return ""
    try:
        chat: Any = [dict(message) for message in messages]
        return str(tokenizer.apply_chat_template(chat, add_generation_prompt=answer, tokenize=False, **arguments))
    except Exception:  # a template is a program of somebody else, which raises what it likes
        return ""


def _talk(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": _SAID} for role in roles]


def turn_end(tokenizer: Any) -> int | None:
    """The id that the template writes behind what the model has said, where that is a token that was added to the
    vocabulary for it."""
    _, said, after = render(tokenizer, _talk("user", "assistant"), False).rpartition(_SAID)
    ids = tokenizer.encode(after.strip(), add_special_tokens=False) if said and after.strip() else []
    added = special_ids(tokenizer) | {i for i, t in _added(tokenizer).items() if not _TAG.fullmatch(t.content)}
    return int(ids[0]) if ids and ids[0] in added else None


def opened(tokenizer: Any, arguments: Mapping[str, Any]) -> str:
    """The tag of a thought that the template opens at the end of a prompt, ``"<think>\\n"``; nothing where it opens none."""
    found = _OPENED.search(render(tokenizer, _talk("user"), True, **arguments))
    return found[0] if found else ""


def unread(tokenizer: Any, arguments: Mapping[str, Any]) -> list[str]:
    """Arguments that the template never names."""
    written = source(tokenizer)
    return [name for name in arguments if not re.search(rf"\b{re.escape(name)}\b", written)]


def source(tokenizer: Any) -> str:
    """The text of the template, of all of them where there are several; nothing where there is none."""
    template = tokenizer.chat_template or ""
    return "\n".join(template.values()) if isinstance(template, dict) else str(template)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of all special tokens."""
    return frozenset(tokenizer.all_special_ids) | {i for i, token in _added(tokenizer).items() if token.special}


def _added(tokenizer: Any) -> Mapping[int, Any]:
    return getattr(tokenizer, "added_tokens_decoder", {})


def structural_ids(tokenizer: Any, ends: Sequence[int]) -> frozenset[int]:
    """Ids of special tokens that begin, end or pad a text, or mark turns; not those of a pair of tags, ``<x>`` and
    ``</x>``, that a template writes inside a turn."""
    special = special_ids(tokenizer)
    named = [text for text in tokenizer.special_tokens_map.values() if isinstance(text, str)]
    talk = _talk("user", "assistant", "user")
    written = render(tokenizer, [*_talk("system"), *talk], True) or render(tokenizer, talk, True)
    marks = special & {*tokenizer.encode(written, add_special_tokens=False)}
    tags = {i for i in marks if _is_tag(tokenizer, i, special)}
    return special & ({*ends, *tokenizer.convert_tokens_to_ids(named)} | marks - tags)


def _is_tag(tokenizer: Any, token: int, special: frozenset[int]) -> bool:
    """Whether a token opens or closes a tag that another one closes or opens."""
    found = _TAG.fullmatch(tokenizer.convert_ids_to_tokens(token))
    pair = [f"<{found[1]}>", f"</{found[1]}>"] if found else []
    return bool(pair) and special.issuperset(tokenizer.convert_tokens_to_ids(pair))
