"""Where responses end beside the model's own end tokens: at texts and at tokens that a run names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from policyopt.errors import UserError, nearest


class Stops:
    """Texts that end a response. They are looked for in the text, so it does not matter which tokens spell them."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self.texts, self._tokenizer = tuple(texts), tokenizer
        # A token holds at least one byte, so that so many tokens hold the whole of a text that ends in the last one.
        self._reach = max(len(text.encode()) for text in texts) + 1
        self._last = frozenset(i for i, piece in enumerate(_pieces(tokenizer)) if self._may_end(piece))

    def __call__(self, tokens: Sequence[int]) -> bool:
        """Whether a text ends in the last of some tokens."""
        if not tokens or tokens[-1] not in self._last:
            return False
        text = self._tokenizer.decode(list(tokens[-self._reach :]), skip_special_tokens=False)
        return any(stop in text for stop in self.texts)

    def _may_end(self, piece: str) -> bool:
        """Whether a text may end inside a token of this text; one of broken bytes may hold anything."""
        return "\ufffd" in piece or any(
            stop in piece or any(stop.endswith(piece[:n]) for n in range(1, min(len(piece), len(stop)) + 1))
            for stop in self.texts
        )


def _pieces(tokenizer: Any) -> list[str]:
    """The text of each token as it stands inside a text, by id."""
    ids = list(range(len(tokenizer)))
    pieces = tokenizer.batch_decode([[i] for i in ids], skip_special_tokens=False)
    spaced = (str(token or "").startswith("▁") for token in tokenizer.convert_ids_to_tokens(ids))
    # Alone, such a token is the first of a text, which loses its space.
    return [f" {piece}" if space and not piece.startswith(" ") else piece for piece, space in zip(pieces, spaced)]


def stop_ids(tokenizer: Any, named: Iterable[str]) -> list[int]:
    """Ids of tokens that are named by their text or their id.

    Raises :class:`~policyopt.errors.UserError` for what is no token.
    """
    vocabulary, found = tokenizer.get_vocab(), []
    for name in named:
        ids = [int(name)] if name.isdecimal() and int(name) < len(tokenizer) else []
        ids = ids or ([vocabulary[name]] if name in vocabulary else [])
        ids = ids or tokenizer.encode(name, add_special_tokens=False, split_special_tokens=False)
        if (name.isdecimal() and int(name) >= len(tokenizer)) or len(ids) != 1:
            raise UserError(
                f"--stop-token {name}: the tokenizer has no such token; {nearest(name, list(vocabulary))}; "
                "a text of several tokens is named by --stop"
            )
        found.append(int(ids[0]))
    return found
