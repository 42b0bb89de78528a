"""Rules that say where a tree grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from policyopt.parts.base import Count, Finite, Fraction, NonNegative, part
from policyopt.parts.semantic import semantic_divergence
from policyopt.rollout.base import Response, Sampler
from policyopt.rollout.embed import Embedder, InputEmbeddings
from policyopt.rollout.tree import Branching, Fork, Growth


def repeats(tokens: Sequence[int], length: int, times: int) -> bool:
    """Whether the last ``length`` tokens have been written ``times`` times in all."""
    last, n = tuple(tokens[-length:]), len(tokens) - length + 1
    return n >= times and sum(tuple(tokens[i : i + length]) == last for i in range(n)) >= times


@part
class Segments(Branching):
    r"""Segments of equal length: paths fork while leaves are missing, and start again from older segments when none is
    left to fork.

    The root has a random number of children in [``first_low``, ``first_high``]; then every open path has ``fan_out`` of
    them until there are as many paths as leaves were asked for. Where all paths have ended before, random ones are cut
    and go on from there. A path that repeats itself ends. Source: TreePO, arXiv:2508.17445, and the authors' code
    (multimodal-art-projection/TreePO). Our reading: a path that repeats itself is a leaf, cut short; only an end token
    finishes a response.
    """

    depth: Count = 14
    """Most segments of a path."""
    segment: Count | None = None
    """Tokens of a segment; None shares the budget out over ``depth``."""
    fan_out: Count = 2
    """Children of an open path."""
    first_low: Count = 2
    """Fewest children of the root."""
    first_high: Count = 8
    """Most children of the root."""
    repeat_length: Count = 32
    """Tokens of a piece of text that counts as a repetition."""
    repeat_times: Annotated[int, Field(ge=2)] = 8
    """How often it has to be there for the path to end."""
    restart: Literal["random", "least-likely", "block"] = "random"
    """Where a path is cut: at the end of a random segment or at the root; before the least likely of its tokens; or
    before a block of tokens, drawn with the softmax of their mean log-probabilities."""
    block: Count | None = None
    """Tokens of such a block; None for a quarter of a segment."""

    def __post_init__(self) -> None:
        if self.first_low > self.first_high:
            raise ValueError(f"first_low is {self.first_low}, above first_high, which is {self.first_high}")

    def __call__(self, tree: Growth, size: int) -> list[Fork]:
        length = self.segment or math.ceil(tree.budget / self.depth)
        if tree.rounds == 0:
            return [Fork(0, 0, min(size, tree.random.randint(self.first_low, self.first_high)), length)]
        for i in tree.open():
            tree.rows[i].stopped = repeats(tree.rows[i].tokens, self.repeat_length, self.repeat_times)
        active = [i for i in tree.open() if math.ceil(len(tree.rows[i].tokens) / length) < self.depth]
        spare = size - len(tree.rows)
        if not active:
            return [self._restart(tree, length) for _ in range(spare)]
        forks = []
        for i in active:
            more = min(self.fan_out - 1, spare)
            spare -= more
            forks.append(Fork(i, len(tree.rows[i].tokens), 1 + more, length))
        return forks

    def _restart(self, tree: Growth, length: int) -> Fork:
        row = tree.random.randrange(len(tree.rows))
        if self.restart == "random":
            return Fork(row, tree.random.choice([0, *(end for _, end in tree.way(row)[:-1])]), 1, length)
        logp = tree.rows[row].logp
        if self.restart == "least-likely":
            return Fork(row, logp.index(min(logp)), 1, length)
        size = self.block or max(1, length // 4)
        blocks = range(0, len(logp), size)
        weights = [math.exp(fmean(logp[begin : begin + size])) for begin in blocks]
        return Fork(row, tree.random.choices(blocks, weights)[0], 1, length)


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
        found = []
        for jump, draws in zip(jumps, uniform, strict=True):
            wanted = sum(u <= self.probability(jump) for u in draws)
            found.append(min(wanted, slots))
            slots -= found[-1]
        return found


@part
class SemanticBranching(Branching):
    r"""One response after the other: from scratch, or from the place where the policy was torn between tokens that mean
    different things.

    .. math:: SE_k = H_k\,SD_k,\qquad SD_k = -\sum_{v \ne u} p_v p_u \cos(e_v, e_u)

    H is the entropy of the next token, SD runs over the ``candidates`` likeliest. With probability ``explore`` a
    response starts from the prompt, else it leaves an earlier one before the token at which SE is largest in all of
    them. Source: ROSE, arXiv:2601.05053, and the authors' code (ZiqiZhao1/ROSE-rl). With cosines that are mostly
    positive SE is largest where the policy is nearly sure; ``min_entropy`` is our guard against that.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"top alternatives", "sampling entropy"})

    explore: Fraction = 0.5
    """Probability of a response from scratch."""
    candidates: Annotated[int, Field(ge=2)] = 20
    """K: likeliest tokens that are compared."""
    min_entropy: NonNegative = 0.0
    """Places of less entropy, in nats, are not branched at."""
    embedder: Embedder = InputEmbeddings()
    """What tokens mean."""

    @property
    def top(self) -> int:
        return self.candidates

    def mark(self, piece: Response, sampler: Sampler) -> list[float]:
        """SE of each token of a response; minus infinity where it is too sure."""
        ids = torch.tensor([ids for ids, _ in piece.top])
        p = torch.tensor([logp for _, logp in piece.top], dtype=torch.float64).exp()
        entropy = torch.tensor(piece.entropy, dtype=torch.float64)
        found = entropy * semantic_divergence(p, self.embedder(ids, sampler).double())
        return torch.where(entropy < self.min_entropy, -math.inf, found).tolist()

    def __call__(self, tree: Growth, size: int) -> list[Fork]:
        if len(tree.rows) >= size and tree.rounds:
            return []
        places = [(mark, -i, -k) for i, marks in enumerate(tree.marks) for k, mark in enumerate(marks)]
        best = max(places, default=(-math.inf, 0, 0))
        if tree.rounds == 0 or tree.random.random() < self.explore or best[0] == -math.inf:
            return [Fork(0, 0)]
        return [Fork(-best[1], -best[2])]
