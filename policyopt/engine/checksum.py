"""A checksum of weights that is the same wherever they lie, and that a GPU computes as fast as it reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_AT_ONCE = 1 << 22
"""Elements that are widened to 64 bits at once."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def checksum(tensors: Mapping[str, Tensor]) -> str:
    r"""32 hexadecimal digits over names, dtypes, shapes and every bit of some tensors.

    Of each tensor it takes :math:`\sum_i (2i + 1)\, b_i \bmod 2^{64}` over the bits :math:`b_i` of its elements, read as
    integers. The factors are odd, so that no change of a single element leaves the sum as it was; and sums of integers are
    the same in any order, on any device.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)} {_sum(x.detach())}\n".encode())
    return digest.hexdigest()


def _sum(x: Tensor) -> int:
    flat, total = x.contiguous().reshape(-1).view(_BITS[x.element_size()]), 0
    for start in range(0, len(flat), _AT_ONCE):
        bits = flat[start : start + _AT_ONCE].long()
        place = torch.arange(start, start + len(bits), device=x.device)
        total += int((bits * (2 * place + 1)).sum())  # 64-bit integers wrap around
    return total & (2**64 - 1)
