"""Prefix Grouper."""

from __future__ import annotations

from dataclasses import dataclass

from policyopt.registry import guide


@dataclass(frozen=True)
class Cost:
    """What the rows of a group cost when their prompt is passed once, over what they cost as rows alone."""

    attention: float
    """Pairs of tokens that attend."""
    tokens: float
    """Tokens that pass all other layers, and whose activations are kept."""


@guide(
    arxiv="2506.05433", code="johncaged/PrefixGrouper", confidence="code", use="policyopt train grpo --micro-batch 16"
)
def prefix_grouper(prompt: int = 512, length: float = 25.0, group_size: int = 16) -> Cost:
    r"""Train on responses to one long prompt: the prompt passes the model once, for all of them, and nothing else changes.

    .. math:: \frac{\text{attention}}{\text{of rows alone}} = \frac{P^2 + GL(2P + L)}{G(P+L)^2}, \qquad
              \frac{\text{tokens}}{\text{of rows alone}} = \frac{P + GL}{G(P + L)}

    There is nothing to switch on. What rows of a micro-batch have in common at their beginnings, prompts of groups and whole branches of
    trees and dialogues, is packed once (:mod:`policyopt.models.packed`): prompt tokens attend among themselves, each response to the
    prompt and itself, at the positions that it would have alone. The first token of every response is predicted by the same place, the last of the
    prompt. Hidden states and gradients are those of rows that go alone; the gradients that responses send into the prompt add up
    by themselves. It holds for policy, reference, teacher and critic alike, and is left out where a probe at load time finds that a
    model's layers look at other tokens in another way than by attention (convolutions, recurrences). Rows can be packed together only
    within a micro-batch: one that is smaller than a group (``--micro-batch``) passes the prompt again for each piece.

    Calling this guide gives the cost for a prompt of P tokens and G responses of L tokens on average (L alike; unlike ones
    cost a little more attention). Both shares go to 1/G where P is much larger than L.

    Source: arXiv:2506.05433 and the authors' code (johncaged/PrefixGrouper), which groups one prompt with its responses.
    """
    p, total = prompt, group_size * length
    alone = prompt + length
    return Cost((p * p + total * (2 * p + length)) / (group_size * alone**2), (p + total) / (group_size * alone))
