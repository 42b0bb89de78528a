"""DHPO."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.ratio.gspo import gspo
from policyopt.parts import HybridClip, PPOClip, TokenRatio
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=gspo, arxiv="2601.05607", confidence="abstract")
def dhpo(
    mix: Literal["average", "entropy"] = "average",
    token_weight: float = 0.5,
    token_clip_low: float | None = 0.2,
    token_clip_high: float | None = 0.28,
    seq_clip_low: float | None = 3e-4,
    seq_clip_high: float | None = 4e-4,
    entropy_norm: Literal["response", "batch"] = "response",
    entropy_to: Literal["token", "sequence"] = "token",
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Dynamic Hybrid Policy Optimization: each token's loss is a mixture of GRPO's and GSPO's, each with a clip of its
    own.

    .. math:: L = \frac1N\sum_i\frac1{|y_i|}\sum_t\big(w_{i,t}\,\ell_{tok}(r_{i,t}, A_i) + (1-w_{i,t})\,\ell_{seq}(s_i, A_i)\big),\qquad
              \ell(\rho, A) = \max(-\rho A, -\mathrm{clip}(\rho)A)

    w is ``token_weight`` (``mix="average"``) or the entropy of the token over the largest of its response
    (``mix="entropy"``), without gradient. w = 1 is GRPO, w = 0 is GSPO-token: s_i has the gradient of each token.

    Known from the abstract and a reading note. Our reading: each branch takes its minimum before they are mixed; the
    entropy is the one that the token was drawn with; ``entropy_to`` and ``entropy_norm`` are the open choices. Default
    bounds are those of DAPO and GSPO, the paper's are not known to us.
    """
    return gspo(minibatches=minibatches, group_size=group_size).replace(
        ratio=TokenRatio(),
        surrogate=HybridClip(
            token=PPOClip(low=token_clip_low, high=token_clip_high),
            sequence=PPOClip(low=seq_clip_low, high=seq_clip_high),
            mix=mix,
            weight=token_weight,
            entropy_norm=entropy_norm,
            entropy_to=entropy_to,
        ),
    )
