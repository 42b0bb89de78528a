"""The embedded model's tokenizer: one token for each printable character, and a chat template."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, END = "<|pad|>", "<|unknown|>", "<|end|>"
ROLES = ("system", "user", "assistant")

ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))
"""The characters that have a token: newline and printable ASCII."""

CHAT_TURN = "<|{role}|>{content}" + END
"""A message as the template writes it."""
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
