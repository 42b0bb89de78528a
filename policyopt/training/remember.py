"""What a recipe's memory keeps, and of what: of each prompt, or of each role."""

from __future__ import annotations

import math
from collections.abc import MutableMapping

from policyopt.part import Memory
from policyopt.rows import Batch

Kept = MutableMapping[str, list[float]]


def key_of(memory: Memory, prompt: str, source: str, origin: int) -> str:
    """The name under which a memory keeps what it knows of a row: its prompt, or its role."""
    return prompt if memory.of == "prompt" else f"role {origin} {source}"


def recalled(memory: Memory | None, kept: Kept, prompt: str, source: str, origin: int = 0) -> list[float]:
    """What is known of a row, NaN where nothing is; empty without a memory."""
    if memory is None:
        return []
    return kept.get(key_of(memory, prompt, source, origin), [math.nan] * memory.width)


def remember(memory: Memory, batch: Batch, kept: Kept) -> None:
    """Keep what the memory makes of a credited batch."""
    origin = [0] * len(batch) if batch.origin is None else batch.origin.tolist()
    keys = [
        key_of(memory, record["id"], record.get("source", ""), which)
        for record, which in zip(batch.records or (), origin, strict=True)
    ]
    if memory.of == "prompt":
        kept.update(zip(keys, memory(batch).tolist(), strict=True))
        return
    for i, key in enumerate(keys):
        row = batch[i : i + 1]
        known = row.mask.new_tensor([kept.get(key, [math.nan] * memory.width)])
        kept[key] = memory(row.replace(history=known))[0].tolist()
