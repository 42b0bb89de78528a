"""DHPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.ratio.gspo import gspo
from policyopt.part import UNITS, Fraction, Level, Surrogate, Unit, part
from policyopt.parts import PPOClip, SequenceRatioPerToken, TokenRatio
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked


@part
class HybridClip(Surrogate):
    r"""A mixture of two clipped surrogates: one of the token's ratio, one of its response's.

    .. math:: w_{i,t}\,\ell_{token}(r_{i,t}) + (1 - w_{i,t})\,\ell_{sequence}(s_{i,t}),\qquad
              w_{i,t} = \text{const}\quad\text{or}\quad H_{i,t} / \max_{t'} H_{i,t'}

    s is the sequence ratio with the gradient of each token (GSPO-token), H the entropy that the token was drawn with.
    A token is silent only where both branches clip it. Source: DHPO, arXiv:2601.05607, from its abstract. Our reading:
    each branch takes its own minimum before they are mixed; high entropy goes to the token branch.
    """

    token: PPOClip = PPOClip(low=0.2, high=0.28)
    """The token branch."""
    sequence: PPOClip = PPOClip(low=3e-4, high=4e-4)
    """The sequence branch."""
    mix: Literal["average", "entropy"] = "average"
    """w: the constant ``weight``, or from the entropy of the token."""
    weight: Fraction = 0.5
    """The weight of the token branch where it is constant."""
    entropy_norm: Literal["response", "batch"] = "response"
    """Whose largest entropy has the weight 1."""
    entropy_to: Literal["token", "sequence"] = "token"
    """The branch that uncertain tokens go to."""

    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    @property
    def needs(self) -> frozenset[str]:
        """What the branches read."""
        return self.token.needs | self.sequence.needs

    @property
    def asks(self) -> frozenset[str]:
        """The entropy that tokens were drawn with, where it decides."""
        return frozenset({"sampling entropy"} if self.mix == "entropy" else ())

    @property
    def unit(self) -> Unit:
        """The batch where its largest entropy is the measure, else the row, or what the branches take."""
        own: Unit = "batch" if (self.mix, self.entropy_norm) == ("entropy", "batch") else "row"
        return max(own, self.token.unit, self.sequence.unit, key=UNITS.index)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        w = self.token_weight(batch)
        return w * self.token(log_ratio, batch) + (1 - w) * self.sequence(SequenceRatioPerToken()(batch), batch)

    def token_weight(self, batch: Batch) -> Tensor:
        """w, [N, T]."""
        if self.mix == "average":
            return torch.full_like(batch.mask, self.weight)
        entropy = masked(batch.sampled_entropy, batch.mask)
        top = entropy.amax(-1, keepdim=True)
        if self.entropy_norm == "batch" and len(top):
            top = top.max()
        share = entropy / torch.where(top > 0, top, 1)
        return share if self.entropy_to == "token" else 1 - share

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        branches = {"token": (self.token, log_ratio), "sequence": (self.sequence, SequenceRatioPerToken()(batch))}
        found = {name: branch.metrics(x, batch) for name, (branch, x) in branches.items()}
        return {f"{key}/{name}": x for name, metrics in found.items() for key, x in metrics.items()}


@method(
    parent=gspo,
    arxiv="2601.05607",
    confidence="abstract",
    claim=Claim(
        "Each token's loss a mixture of GRPO's and GSPO's does better than the ratio of whole responses alone.",
        "stale",
        (Effect("accuracy", "higher", 0.02),),
        both={"minibatches": 1},
    ),
)
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
