"""How far apart the meanings of likely tokens are."""

from __future__ import annotations

import torch
from torch import Tensor


def semantic_divergence(p: Tensor, vectors: Tensor) -> Tensor:
    r""":math:`SD = -\sum_{v \ne u} p_v p_u \cos(e_v, e_u)`, [...], of tokens with probabilities ``p`` [..., K] and
    vectors [..., K, E].

    Positive where likely tokens point away from each other. Source: ROSE, arXiv:2601.05053; the probabilities are not
    renormalised, and a token is not compared with itself, as in the authors' code.
    """
    direction = torch.nn.functional.normalize(vectors, dim=-1)
    weighted = p[..., None] * direction
    together = weighted.sum(-2).square().sum(-1)
    return weighted.square().sum((-2, -1)) - together
