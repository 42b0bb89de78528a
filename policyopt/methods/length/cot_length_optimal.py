"""The best length of a chain of thought."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policyopt.errors import UserError
from policyopt.judging.answers import THINK, find_answer
from policyopt.part import Count, part
from policyopt.registry import tool
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response

# How long it should be -----------------------------------------------------------------------------------------------


def accuracy(steps: float, difficulty: float, capability: float, noise: float, alpha: float = 1.0) -> float:
    r"""How often a chain of N steps ends right, :math:`A(N) = \alpha\big[(1 - T/(NM))(1 - \sigma)\big]^N`; 0 where a step is more than can be done, :math:`N \le T/M`."""
    error = difficulty / (steps * capability) if steps > 0 else 1.0
    return alpha * ((1 - error) * (1 - noise)) ** steps if error < 1 else 0.0


def branch(noise: float) -> float:
    r""":math:`Z = W_{-1}(-(1 - \sigma)/e)`, below -1: the lower branch of Lambert's W."""
    from scipy.special import lambertw  # here, because it is slow to import

    return float(lambertw(-(1 - noise) / math.e, -1).real)


# A vote among the lengths that agree ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vote:
    """What came of a vote."""

    answer: Any
    """The winner; ``None`` where nobody has an answer."""
    kept: tuple[int, ...]
    """The bins that voted, rising."""
    entropy: Mapping[int, float]
    """That of the answers in each bin, in nats."""


def vote(lengths: Sequence[int], answers: Sequence[Any], *, width: int = 2, bins: int = 3, least: int = 1) -> Vote:
    r"""A majority vote among the solutions whose lengths agree most.

    .. math:: b_k = \lfloor(l_k - 1)/D\rfloor,\qquad H_b = -\sum_a p_b(a)\log p_b(a)

    The ``bins`` bins of ``width`` D with the lowest entropy vote together; bins of fewer than ``least`` solutions do not, unless all are. Solutions whose answer is ``None`` are
    left out. Their order changes nothing: of equal bins the shorter ones vote, of equal answers the one that stands in the shortest bin wins, then the first by
    its text. Source: arXiv:2502.07266; the ties are our reading.
    """
    cast = [(length, answer) for length, answer in zip(lengths, answers, strict=True) if answer is not None]
    found: dict[int, list[Any]] = defaultdict(list)
    for length, answer in cast:
        found[(length - 1) // width].append(answer)
    entropy = {b: _entropy(found[b]) for b in sorted(found)}
    large = [b for b in entropy if len(found[b]) >= least] or [*entropy]
    kept = sorted(sorted(large, key=lambda b: (round(entropy[b], 12), b))[:bins])
    counts = Counter(answer for b in kept for answer in found[b])
    first = {a: next(b for b in kept if a in found[b]) for a in counts}
    winner = min(counts, key=lambda a: (-counts[a], first[a], str(a)), default=None)
    return Vote(winner, tuple(kept), entropy)


def _entropy(answers: Sequence[Any]) -> float:
    shares = [n / len(answers) for n in Counter(answers).values()]
    return -sum(p * math.log(p) for p in shares) + 0.0


@part
class LengthFilteredVote(Group):
    """Several responses to each question, of which one with the answer that wins the :func:`vote` comes first.

    A response is as long as it has lines, the last one being its answer; where none has an answer they stay in their order. Source: arXiv:2502.07266, which counts steps of
    reasoning; that a line is a step is our reading, and so is the width of a bin.
    """

    size: Count = 16
    """Responses that vote."""
    width: Count = 2
    """D, lines in a bin."""
    bins: Count = 3
    """K, bins that vote."""
    smallest: Count = 1
    """Bins of fewer responses do not vote."""
    think: str = THINK
    """The tag of a thought, in which no answer stands."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        texts = [context.decode(r.tokens[: len(r.tokens) - r.finished]) for r in group]
        answers = [find_answer(text, think=self.think) for text in texts]
        steps = [max(1, sum(bool(line.strip()) for line in text.split("\n"))) for text in texts]
        winner = vote(steps, answers, width=self.width, bins=self.bins, least=self.smallest).answer
        return [r for _, r in sorted(zip(answers, group, strict=True), key=lambda pair: pair[0] != winner)]


@tool(
    arxiv="2502.07266",
    code="PKU-ML/CoT-Length",
    confidence="secondary",
    use="python: from policyopt.methods.length.cot_length_optimal import cot_length_optimal; cot_length_optimal(2.0, 5.0, 0.01)",
)
def cot_length_optimal(difficulty: float, capability: float, noise: float) -> float:
    r"""The number of steps at which a chain of thought is right most often, and a vote among the lengths that agree.

    .. math:: N^* = \frac{T\,Z}{M\,(Z + 1)},\qquad Z = W_{-1}\big(-(1 - \sigma)/e\big),\qquad A(N) = \alpha\Big[\Big(1 - \frac{T}{NM}\Big)(1 - \sigma)\Big]^N

    More steps make each one easier and add up more errors, so accuracy (:func:`~policyopt.methods.length.cot_length_optimal.accuracy`) rises up to N* and then falls. N* grows with the ``difficulty`` T of the task, in units of what a step does, and falls
    with the ``capability`` M of the model and with the ``noise`` sigma of a step; without noise there is none. Where a policy is trained on such a task, this is where its length should end.

    At inference :func:`~policyopt.methods.length.cot_length_optimal.vote` leaves a majority vote to the lengths whose answers agree most. A recipe with :class:`~policyopt.methods.length.cot_length_optimal.LengthFilteredVote` as its
    ``decode`` answers held-out questions so (``accuracy/decode``).

    Raises :class:`~policyopt.errors.UserError` for a difficulty or a capability that is not above 0, and a noise outside (0, 1). Source: arXiv:2502.07266, theorem for E = T/(NM), from third parties' accounts;
    K 3 is the paper's, D 2 recalled. Its sigma(T) = T/C is one choice of the noise.
    """
    if difficulty <= 0 or capability <= 0 or not 0 < noise < 1:
        raise UserError(
            f"cot-length-optimal: difficulty {difficulty:g}, capability {capability:g} and noise {noise:g}: the first two have to be "
            "above 0, the noise between 0 and 1"
        )
    z = branch(noise)
    return difficulty * z / (capability * (z + 1))
