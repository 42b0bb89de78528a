"""How a run writes its prompts, where responses end, and what of them is read. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

SET_BY_US = frozenset({
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "max_length", "padding",
    "return_assistant_tokens_mask", "return_dict", "return_tensors", "tokenize", "tokenizer_kwargs", "truncation",
})  # fmt: skip
"""What is said to the tokenizer beside the arguments of its template."""


def _content(text: Any) -> Any:
    """The text itself, or that of the file that ``@FILE`` or the name of a file names."""
    if not isinstance(text, str) or not text.strip() or "\n" in text:
        return text
    path = Path(text.removeprefix("@")).expanduser()
    try:
        if text.startswith("@") or path.is_file():
            return path.read_text("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not UTF-8 text") from None
    except OSError as error:
        if text.startswith("@"):
            raise ValueError(f"the file {path} cannot be read ({error.strerror}): give @FILE, or the text") from None
    return text


def _several(given: Any) -> Any:
    return (given,) if isinstance(given, str | int) else given


def _written(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise ValueError("an empty system prompt: leave it out")
    return text


def _named(arguments: dict[str, Any]) -> dict[str, Any]:
    for name in sorted(SET_BY_US & arguments.keys()):
        raise ValueError(f"{name} is no argument of a template, it belongs to the tokenizer: leave it out")
    return arguments


Token = Annotated[str, BeforeValidator(str), Field(min_length=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Prompting:
    """How prompts are written, where responses end, and what of them is read."""

    system: Annotated[str | None, BeforeValidator(_content), AfterValidator(_written)] = None
    """System prompt of every conversation that brings none: text, or @FILE; unset: none."""
    template_args: Annotated[dict[str, Any], AfterValidator(_named)] = dataclasses.field(
        default_factory=dict, metadata={"option": "template"}
    )
    """Arguments of the chat template, NAME=VALUE; what reads as JSON is: enable_thinking=false. May be repeated."""
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_several)] = dataclasses.field(
        default=(), metadata={"repeated": ("--stop",)}
    )
    """A text that ends a response, which keeps it. May be repeated."""
    stop_tokens: Annotated[tuple[Token, ...], BeforeValidator(_several)] = dataclasses.field(
        default=(), metadata={"repeated": ("--stop-token",)}
    )
    """A token that ends a response beside the model's own end tokens: its text or its id. May be repeated."""
    special: Literal["tags", "all", "none"] = "tags"
    """Which special tokens judges and programs see in a response: tags, those that neither end or pad a text nor mark a
    turn (``<answer>`` where it is one token); all; or none."""


USUAL = Prompting()
"""As the model has it."""
