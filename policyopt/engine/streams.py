"""Random numbers that depend on a key and a position alone: the same whatever else is in flight, on every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def stream_key(key: Iterable[int]) -> int:
    """A 64-bit key from numbers such as (seed, step, prompt, sample)."""
    data = ",".join(str(int(k)) for k in key).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def uniforms(keys: np.ndarray, position: np.ndarray | int) -> np.ndarray:
    """One uniform number in [0, 1) for each 64-bit key at a position: splitmix64, so it depends on nothing else."""
    with np.errstate(over="ignore"):
        x = keys + (np.asarray(position, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
