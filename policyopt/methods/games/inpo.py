"""INPO."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.games.online_dpo import online_dpo
from policyopt.part import Fraction, part
from policyopt.parts import RowScore, Score, SquareTo, WinRate
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response

# Who meets whom ------------------------------------------------------------------------------------------------------

Duel = Callable[[int, int], Awaitable[float]]
"""The probability that the first of two is better."""


@dataclass(frozen=True)
class Bout:
    """What came of a tournament."""

    winner: int
    loser: int
    comparisons: int
    keep: bool
    """Whether the winner beats the loser."""


async def tournament(n: int, duel: Duel) -> Bout:
    r"""The best and the worst of ``n``, by duels in the order of their numbers: all in the first round; then winners among
    themselves, of whom the better one goes on, and losers among themselves, of whom the worse one does; at last one against the
    other.

    Of a tie the first wins. An even K takes :math:`K/2 + 2(K/2 - 1) + 1` duels, 11 of 8, where all pairs are 28; the odd one out goes on.
    Raises ``ValueError`` for fewer than two. Source: INPO, arXiv:2407.00617, section 4. Our reading: the loser of a duel of losers goes on, as
    the bracket's aim asks for.
    """
    if n < 2:
        raise ValueError(f"a tournament of {n}: take at least 2")
    asked = 0

    async def meet(these: Sequence[int]) -> list[tuple[int, int]]:
        """The winner and the loser of each duel of neighbours."""
        nonlocal asked
        pairs = list(zip(these[::2], these[1::2], strict=False))
        asked += len(pairs)
        said = await asyncio.gather(*(duel(*pair) for pair in pairs))
        return [pair if p >= 0.5 else pair[::-1] for pair, p in zip(pairs, said, strict=True)]

    async def last(these: list[int], side: int) -> int:
        """Who is left of some when of each duel one goes on: the winner (0) or the loser (1)."""
        while len(these) > 1:
            these = [pair[side] for pair in await meet(these)] + these[len(these) // 2 * 2 :]
        return these[0]

    first, odd = await meet(range(n)), [n - 1] if n % 2 else []
    winner, loser = await asyncio.gather(*(last([*(pair[side] for pair in first), *odd], side) for side in (0, 1)))
    [(better, _)] = await meet([winner, loser]) if winner != loser else [(winner, loser)]
    return Bout(winner, loser, asked, keep=winner != loser and better == winner)


@part
class Tournament(Group):
    """The best and the worst of ``drawn`` responses of the policy, by a :func:`tournament` whose duels the judge decides; where the worst beats
    the best, the best alone.

    A response that the judge gives no reward loses its duel. The log counts duels, and prompts without a pair. Source: INPO,
    arXiv:2407.00617.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    size: Literal[2] = 2
    """Responses to one prompt that are trained on."""
    drawn: Annotated[int, Field(ge=2, multiple_of=2)] = 8
    """How many are drawn, an even number."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        drawn = await context.sampler.generate(
            question.tokens, n=self.drawn, max_tokens=question.budget, temperature=self.temperature, key=question.key
        )

        async def duel(i: int, j: int) -> float:
            p = (await context.compare([drawn[i], drawn[j]]))[0][1]
            lost = drawn[i].verdict
            return p if p == p else float(lost is not None and lost.rewarded)

        found = await tournament(self.drawn, duel)
        context.count(duels=found.comparisons, undecided=not found.keep)
        return [drawn[found.winner], drawn[found.loser]] if found.keep else [drawn[found.winner]]


# Two anchors ---------------------------------------------------------------------------------------------------------


@part
class BetweenAnchors(Score):
    r"""The log-likelihood of a response against a geometric mixture of the reference and the policy that wrote it.

    .. math:: s = \sum_t\log\pi_\theta - c\log\pi_{ref} - (1-c)\log\pi_{old}

    Source: INPO, arXiv:2407.00617.
    """

    share: Fraction = 1 / 3
    """c, the weight of the reference."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})

    def __call__(self, batch: Batch) -> Tensor:
        fixed, last = (RowScore(against=role)(batch) for role in ("reference", "old"))
        return self.share * fixed + (1 - self.share) * last


@method(
    parent=online_dpo,
    arxiv="2407.00617",
    confidence="paper",
    claim=Claim(
        "Where preferences run in a circle, self-play comes to a policy that is hard to beat; a reward fitted to them leads to one answer "
        "that another one beats.",
        "cyclic",
        (Effect("exploitability", "lower", 0.1),),
        against="grpo",
        ours={"eta": 1.0},  # for answers of ten tokens: 0.002 asks for 250 nats in every step
        theirs={"kl-coef": 0.0},
    ),
)
def inpo(
    eta: float = 0.002,
    tau_over_eta: float = 1 / 3,
    pairs: Literal["tournament", "best-worst"] = "tournament",
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Iterative Nash Policy Optimization: the policy plays against itself, and a square loss on its own pairs makes the step of mirror
    descent.

    .. math:: L = \mathrm{mean}_{pairs}\Big(h_w - h_l - \frac{1}{2\eta}\Big)^2,\qquad
              h = \sum_t\log\pi_\theta - \tfrac\tau\eta\log\pi_{ref} - \big(1-\tfrac\tau\eta\big)\log\pi_t

    The minimum is :math:`\pi_{t+1} \propto e^{P(y\succ\pi_t)/\eta}\pi_{ref}^{\tau/\eta}\pi_t^{1-\tau/\eta}`: better against pi_t, and held to the
    reference by tau. The iterates come to the policy that nothing beats by more than the KL that it costs, whatever the
    preferences, also where these run in a circle; no response's win rate need be estimated. Of ``group_size`` responses a
    ``tournament`` finds the pair (8 take 11 comparisons), or the ``best-worst`` by win rate are it. A judge that compares says who wins; of
    any other one the higher score does. ``tau_over_eta`` 1 is IPO against the reference, 0 against pi_t alone; at the first step, where
    pi_t is the reference, it changes nothing. Going beyond the target is pulled back.

    A round is a step here: its batch is drawn by pi_t and used for ``minibatches`` updates, in which pi_t stays what it was. Source:
    arXiv:2407.00617 (K 8, 3 rounds of 20,000 prompts); eta 0.002 and tau/eta 1/3 from a reproduction (COMAL), the authors' own are not
    known. Our reading: token sums; many small rounds in the place of three large ones.
    """
    meets = Tournament(drawn=group_size) if pairs == "tournament" else Group(size=group_size)
    return (
        online_dpo()
        .replace(source=meets, shape=(WinRate(),), update=Update(minibatches=minibatches))
        .set("surrogate.score", BetweenAnchors(share=tau_over_eta))
        .set("surrogate.link", SquareTo(target=1 / (2 * eta)))
    )
