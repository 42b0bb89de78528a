"""Text and tokens: what a run needs of a tokenizer, without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from policyopt.errors import UserError


@dataclass(frozen=True)
class Text:
    """The words of a model: from text to ids and back."""

    tokenizer: Any
    """Of transformers, or one that behaves as those do."""
    eos: tuple[int, ...]
    """Ids that end a response."""

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Ids of the context after which the model answers chat messages.

        Raises :class:`~policyopt.errors.UserError` where the chat template refuses them.
        """
        return tuple(encode_prompt(self.tokenizer, messages))

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a text, no special tokens added; what spells one becomes one."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def literal(self, text: str) -> tuple[int, ...]:
        """Ids of a text of somebody else: what spells a special token stays text."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def solution(self, text: str | None) -> tuple[int, ...]:
        """Ids of a worked solution with an end token; none of ``None``."""
        return () if text is None else (*self.encode(text), self.eos[0])

    def given(self, text: str) -> tuple[int, ...]:
        """Ids of a text to learn from, with an end token; what spells a special token in it stays text."""
        return (*self.literal(text), self.eos[0])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a response, without special tokens."""
        return self.decode_all([tokens])[0]

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of responses, without special tokens."""
        return list(self.tokenizer.batch_decode([list(r) for r in rows], skip_special_tokens=True))

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token by itself, special tokens included."""
        return [self.tokenizer.decode([t]) for t in tokens]

    @cached_property
    def line_breaks(self) -> frozenset[int]:
        """Ids of the tokens that have a line break in their text."""
        return frozenset(i for i in range(len(self.tokenizer)) if "\n" in self.tokenizer.decode([i]))

    @cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """Ids by token: two models read the same tokens where theirs are equal."""
        return dict(self.tokenizer.get_vocab())


def encode_prompt(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Ids of the context after which the model answers ``messages``.

    With the tokenizer's chat template where it has one; otherwise the contents as plain text, a blank line between
    them.
    Raises :class:`~policyopt.errors.UserError` when there is nothing to encode or the template refuses the messages.
    """
    if not messages:
        raise UserError("a prompt without messages: at least one of the user is needed")
    if tokenizer.chat_template:
        try:
            chat: Any = [dict(message) for message in messages]
            return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))
        except TemplateError as error:
            raise UserError(f"the chat template of the tokenizer refuses the prompt: {error}") from error
    ids: list[int] = list(tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"])
    # Some tokenizers close every text with an end token, after which nothing could be continued.
    ids = ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
    if not ids:
        raise UserError("an empty prompt: the tokenizer has no chat template, so the text alone must hold a token")
    return ids
