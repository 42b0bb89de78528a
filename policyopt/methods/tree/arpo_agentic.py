"""ARPO (agentic)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Count, Finite, Fraction, Unit, part
from policyopt.parts import Normalise
from policyopt.parts.advantage.tree import lineage, node_means, on_tokens
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean
from policyopt.sources.draw import Branching, Fork, Growth, Tree
from policyopt.sources.program import Response, Sampler


@part
class SharedAdvantage(Advantage):
    r"""Tokens that several responses share have the mean of what these are credited with.

    .. math:: A_{i,t} = \frac1d \sum_{j \ni node(i,t)} A_j

    A_j is the response's own advantage, d the number of responses that pass the node. Source: ARPO, arXiv:2507.19849
    (the hard form).
    """

    own: Normalise = Normalise()
    """The advantage of a response by itself, the same on all of its tokens."""

    unit: ClassVar[Unit] = "batch"

    def __post_init__(self) -> None:
        if self.own.gamma is not None:
            raise ValueError("own.gamma is set, but what is shared is one number for each response: set it to None")

    @property
    def needs(self) -> frozenset[str]:
        return self.own.needs

    @property
    def min_group(self) -> int:
        return self.own.min_group

    def __call__(self, batch: Batch) -> Tensor:
        row = masked_mean(self.own(batch), batch.mask, dim=-1)
        return on_tokens(node_means(row, lineage(batch)[:, 1:]), batch)


@part
class EntropyJump(Branching):
    r"""Paths fork where the policy has become less sure than it was when it began.

    .. math:: \Delta H = H_t - H_{init},\qquad P = \mathrm{clip}(\alpha + \beta\,\Delta H, 0, 1)

    H is the mean entropy, over the logarithm of the vocabulary, of the first ``probe`` tokens of a step; H_init that of
    the first step. At the end of each step an open path may fork ``beam - 1`` times, each with probability P, while
    leaves are missing, path after path. Then all paths run to their end; where they end before, further ones start from
    the prompt. Source: ARPO, arXiv:2507.19849, and the authors' code (dongguanting/ARPO), where a step ends with the
    result of a tool. Our reading: without tools a step is ``segment`` tokens.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"sampling entropy"})

    initial: Count = 8
    """N: paths from the prompt."""
    alpha: Fraction = 0.5
    """Probability of a fork where the entropy has not changed."""
    beta: Finite = 0.2
    """How far the probability follows the entropy."""
    beam: Count = 2
    """Most paths that one becomes at the end of a step."""
    segment: Count = 32
    """Tokens of a step."""
    probe: Count = 20
    """Tokens of a step that the entropy is measured on."""

    returns: ClassVar[bool] = False

    def mark(self, piece: Response, sampler: Sampler) -> list[float]:
        return [h / math.log(sampler.vocab) for h in piece.entropy]

    def __call__(self, tree: Growth, size: int) -> list[Fork]:
        if tree.rounds == 0:
            return [Fork(0, 0, min(self.initial, size), self.segment if self.initial < size else None)]
        active, slots = tree.open(), size - len(tree.rows)
        if not active:
            return [Fork(0, 0, slots)] if slots else []
        tips = [len(tree.rows[i].tokens) for i in active]
        if not slots:
            return [Fork(i, tip) for i, tip in zip(active, tips, strict=True)]
        draws = [[tree.random.random() for _ in range(self.beam - 1)] for _ in active]
        more = self.forks([self.jump(tree, i) for i in active], draws, slots)
        return [Fork(i, tip, 1 + m, self.segment) for i, tip, m in zip(active, tips, more, strict=True)]

    def jump(self, tree: Growth, row: int) -> float:
        """Delta H of a path at its end."""
        begin = tree.way(row)[-2][1] if len(tree.way(row)) > 1 else 0
        now, start = tree.marks[row][begin : begin + self.probe], tree.marks[row][: min(self.probe, self.segment)]
        return sum(now) / len(now) - sum(start) / len(start)

    def probability(self, jump: float) -> float:
        """P of a fork."""
        return min(max(self.alpha + self.beta * jump, 0.0), 1.0)

    def forks(self, jumps: Sequence[float], uniform: Sequence[Sequence[float]], slots: int) -> list[int]:
        """How many forks each path makes, in order, given random numbers in [0, 1) and how many leaves are missing."""
        forks = []
        for jump, draws in zip(jumps, uniform, strict=True):
            wanted = sum(u <= self.probability(jump) for u in draws)
            forks.append(min(wanted, slots))
            slots -= forks[-1]
        return forks


@method(
    parent=grpo,
    arxiv="2507.19849",
    code="dongguanting/ARPO",
    confidence="code",
    claim=Claim(
        "Branching where a tool's result has made the policy unsure does better than whole trajectories, with "
        "half of the calls.",
        beyond="It is about what comes back from tools, and how many calls it saves; tasks of the embedded model have "
        "none.",
    ),
)
def arpo_agentic(
    credit: Literal["soft", "hard"] = "soft",
    alpha: float = 0.5,
    beta: float = 0.2,
    beam: int = 2,
    initial: int = 8,
    segment: int = 32,
    probe: int = 20,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    epochs: int = 1,
    group_size: int = 16,
) -> Recipe:
    r"""Agentic Reinforced Policy Optimization: part of the responses branch off where the policy has become unsure.

    .. math:: P = \mathrm{clip}(\alpha + \beta\,(H_t - H_{init}), 0, 1),\qquad A_i = \frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon},\qquad
              \text{hard: } A_{i,t} = \frac1d\sum_{j \ni node(i,t)} A_j

    M = ``group_size`` responses, ``initial`` of them from the prompt; the others fork with probability P at the end of a
    step, or start from the prompt where too few did. Every response is a row with its whole path, so a shared token
    counts once for each of them: with its own advantage (``soft``: the sum is the mean, as their ratios are equal), or
    with the mean of those that share it (``hard``). Without tools a step is ``segment`` tokens, and the bonus for using
    several tools does not exist; the reward is the judge's. Source: arXiv:2507.19849; defaults from the authors' code.
    Our reading: entropies over the logarithm of the vocabulary; a random threshold, as in the code.
    """
    branching = EntropyJump(initial=initial, alpha=alpha, beta=beta, beam=beam, segment=segment, probe=probe)
    recipe = grpo(low, high, kl_coef, epochs=epochs).replace(source=Tree(size=group_size, branching=branching))
    return recipe if credit == "soft" else recipe.replace(advantage=SharedAdvantage())
