"""Text and tokens: what a run needs of a tokenizer, without the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from policyopt.errors import UserError
from policyopt.models.offsets import offsets
from policyopt.models.prompting import USUAL, Prompting
from policyopt.models.stops import Stops
from policyopt.models.talk import between, reopened, tells_of_tools, told_further, with_tools
from policyopt.models.template import opened, special_ids, structural_ids, unread


@dataclass(frozen=True)
class Text:
    """The words of a model: from text to ids and back."""

    tokenizer: Any
    """Of transformers, or one that behaves as those do."""
    eos: tuple[int, ...]
    """Ids that end a response; the first is what ends a turn."""
    prompting: Prompting = USUAL
    """How prompts are written, where responses end, and what of them is read."""

    def led(self, messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
        """Chat messages behind the system prompt of the run, where there is one and they bring none."""
        system = self.prompting.system
        if system is None or not messages or any(m["role"] in ("system", "developer") for m in messages):
            return list(messages)
        return [{"role": "system", "content": system}, *messages]

    def prompt(self, messages: Sequence[Mapping[str, str]], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """Ids of the context after which the model answers chat messages, behind the system prompt of the run where they
        bring none. Of ``tools`` the template tells, or, where it knows of none, a system message, or the first message where it
        takes no system message either.

        Raises :class:`~policyopt.errors.UserError` where the chat template refuses them.
        """
        messages = self.led(messages)
        arguments = dict(self.prompting.template_args)
        if tools and tells_of_tools(self.tokenizer):
            arguments["tools"] = list(tools)
        elif tools:
            with suppress(UserError):
                return tuple(encode_prompt(self.tokenizer, with_tools(messages, tools), **arguments))
            messages = with_tools(messages, tools, "user")  # a template that takes no system message
        return tuple(encode_prompt(self.tokenizer, messages, **arguments))

    def opening(
        self,
        messages: Sequence[Mapping[str, str]],
        said: Sequence[Mapping[str, str]],
        tools: Sequence[Mapping[str, Any]],
    ) -> tuple[int, ...]:
        """Ids of the context in which an episode begins: chat messages, what an environment said when it was reset, and the
        tools that there are, as the template tells of them."""
        talk = list(messages)
        for message in said:
            talk = told_further(talk, message)
        return self.prompt(talk or [{"role": "user", "content": ""}], tools)

    def reopened(
        self, messages: Sequence[Mapping[str, str]], words: str, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[int, ...]:
        """Ids of the context in which an episode goes on behind chat messages and ``words``, in the place of all that was said since.
        What spells a special token in the words stays text."""
        return reopened(self, messages, words, tools)

    def following(
        self, messages: Sequence[Mapping[str, str]], last: int, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[int, ...]:
        """Ids that stand between a turn of the model, whose last token was ``last``, and its next one, where others said
        ``messages`` meanwhile. What spells a special token in these stays text."""
        return between(self, messages, last, tools)

    def whole(self, tokens: Sequence[int]) -> str:
        """The text of some tokens with all special ones, those that end a turn left out: what calls of tools are looked for in."""
        return str(self.tokenizer.decode([t for t in tokens if t not in self.eos], skip_special_tokens=False))

    def say_unread(self, say: Callable[[str], None]) -> None:
        """Say which arguments the chat template never reads, where there are any."""
        if names := unread(self.tokenizer, self.prompting.template_args):
            say(f"--prompting.template {' '.join(names)}: the model's chat template never reads it")

    @cached_property
    def stops(self) -> Stops | None:
        """The texts that end a response, where there are any."""
        return Stops(self.tokenizer, self.prompting.stop) if self.prompting.stop else None

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
        """The text of a response, without special tokens that are not to be read."""
        return self.decode_all([tokens])[0]

    def decode_all(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of responses, without special tokens that are not to be read."""
        read = [[t for t in row if t not in self._unread] for row in rows]
        return list(self.tokenizer.batch_decode(read, skip_special_tokens=False)) if read else []

    def responses(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of responses as judges read them: behind the tag of a thought that the chat template has opened."""
        return [self._opened + text for text in self.decode_all(rows)]

    def told(self, responses: Sequence[Any]) -> list[str]:
        """The texts of responses as people read them: what others said in an episode stands on lines of its own, behind ``>``."""
        return [
            self._parted(r) if r.own and r.columns.get("turn_end") else self.responses([r.tokens])[0] for r in responses
        ]

    def _parted(self, response: Any) -> str:
        runs: list[tuple[bool, list[int]]] = []
        for token, own in zip(response.tokens, response.own, strict=True):
            if not runs or runs[-1][0] != own:
                runs.append((own, []))
            runs[-1][1].append(token)
        said = ((own, self.decode(ids).strip("\n")) for own, ids in runs)
        return "\n".join(text if own else "> " + text.replace("\n", "\n> ") for own, text in said)

    @cached_property
    def _opened(self) -> str:
        tag = opened(self.tokenizer, self.prompting.template_args)
        return "" if self._unread.intersection(self.encode(tag)) else tag  # what closes it would not be read either

    @cached_property
    def _unread(self) -> frozenset[int]:
        """Ids of the special tokens that are no part of a response's text."""
        if self.prompting.special == "tags":
            return structural_ids(self.tokenizer, self.eos)
        return special_ids(self.tokenizer) if self.prompting.special == "none" else frozenset()

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token by itself, special tokens included."""
        return [self.tokenizer.decode([t]) for t in tokens]

    def located(self, tokens: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """The text of a response as judges read it (:meth:`responses`), and where that of each token begins and ends in it; nothing
        of it belongs to special tokens that are not to be read."""
        read = [i for i, t in enumerate(tokens) if t not in self._unread]
        text, places = offsets(
            [tokens[i] for i in read],
            lambda rows: self.tokenizer.batch_decode([list(row) for row in rows], skip_special_tokens=False),
        )
        shift, found = len(self._opened), [(0, 0)] * len(tokens)
        for i, (start, end) in zip(read, places, strict=True):
            found[i] = (start + shift, end + shift)
        return self._opened + text, found

    @cached_property
    def line_breaks(self) -> frozenset[int]:
        """Ids of the tokens that have a line break in their text."""
        return frozenset(i for i in range(len(self.tokenizer)) if "\n" in self.tokenizer.decode([i]))

    @cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """Ids by token: two models read the same tokens where theirs are equal."""
        return dict(self.tokenizer.get_vocab())


def encode_prompt(tokenizer: Any, messages: Sequence[Mapping[str, str]], **arguments: Any) -> list[int]:
    """Ids of the context after which the model answers ``messages``.

    With the tokenizer's chat template and its ``arguments`` where it has one; otherwise the contents as plain text, a
    blank line between them.
    Raises :class:`~policyopt.errors.UserError` when there is nothing to encode or the template refuses the messages.
    """
    if not messages:
        raise UserError("a prompt without messages: at least one of the user is needed")
    if tokenizer.chat_template:
        try:
            chat: Any = [dict(message) for message in messages]
            return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False, **arguments))
        except Exception as error:  # a template is a program of somebody else, which raises what it likes
            raise UserError(f"the chat template of the tokenizer refuses the prompt: {error}") from error
    ids: list[int] = list(tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"])
    # Some tokenizers close every text with an end token, after which nothing could be continued.
    ids = ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
    if not ids:
        raise UserError("an empty prompt: the tokenizer has no chat template, so the text alone must hold a token")
    return ids
