"""Where the text of each token begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no character yet."""
PENDING = 16
"""Tokens that a character is spread over at most; a longer run of broken bytes is taken as it is."""


def offsets(
    tokens: Sequence[int], decode: Callable[[Sequence[Sequence[int]]], list[str]]
) -> tuple[str, list[tuple[int, int]]]:
    """The text of tokens, and where that of each token begins and ends in it, in characters.

    Tokens that share a character, as those of byte-level vocabularies do, all have the whole of it. Where the texts of tokens alone are not what
    they are together (the first word loses its blank in some vocabularies), each is decoded behind those before it.
    """
    if not tokens:
        return "", []
    kinds = sorted({*tokens})
    alone = dict(zip(kinds, decode([[kind] for kind in kinds]), strict=True))
    pieces, (text,) = [alone[token] for token in tokens], decode([tokens])
    if BROKEN not in text and "".join(pieces) == text:
        return text, _ends(pieces, range(1, len(tokens) + 1))
    groups: list[str] = []
    after: list[int] = []
    before = start = 0
    for end in range(1, len(tokens) + 1):
        known, longer = decode([tokens[before:start], tokens[before:end]])
        unfinished = longer.endswith(BROKEN) or len(longer) <= len(known)
        if unfinished and end - start < PENDING and end < len(tokens):
            continue
        groups.append(longer[len(known) :])
        after.append(end)
        before, start = start, end
    return "".join(groups), _ends(groups, after)


def _ends(pieces: Sequence[str], after: Sequence[int]) -> list[tuple[int, int]]:
    """Where the text of each token begins and ends, where the tokens up to number ``after[k]`` have the texts ``pieces[:k + 1]``."""
    found: list[tuple[int, int]] = []
    start = 0
    for piece, end in zip(pieces, after, strict=True):
        found += [(start, start + len(piece))] * (end - len(found))
        start += len(piece)
    return found
