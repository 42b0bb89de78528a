"""The embedded model's tokenizer: one token for each printable character, and a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from policyopt.errors import UserError

PAD, UNKNOWN, END = "<|pad|>", "<|unknown|>", "<|end|>"
ROLES = ("system", "user", "assistant")

ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))
"""The characters that have a token: newline and printable ASCII."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}" + END + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer(max_length: int = 1024) -> PreTrainedTokenizerFast:
    """A character-level tokenizer whose ``decode`` gives back exactly what ``encode`` read.

    The end of a turn is the end-of-sequence token; there is no beginning-of-sequence token. A character outside
    :data:`ALPHABET` becomes the unknown token. Saves as ``tokenizer.json`` and reloads through ``AutoTokenizer``.
    """
    special = [PAD, UNKNOWN, END, *(f"<|{role}|>" for role in ROLES)]
    vocabulary = {token: i for i, token in enumerate([*special, *ALPHABET])}
    # A byte-pair model without merges is a character model, and needs no pre-tokenizer that could lose a space.
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=special[3:],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int]:
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
