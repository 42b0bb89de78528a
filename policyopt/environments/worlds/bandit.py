"""The world ``bandit``: arms that pay more or less often, and a few pulls to find out."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds.told import NUMBERS, Told
from policyopt.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ALPHA = 0.5
"""Weight of the bonus of UCB."""
Told_as = Literal["raw", "summary", "guide"]


def ucb(pulls: Sequence[int], wins: Sequence[float], alpha: float = ALPHA) -> list[float]:
    r"""What UCB holds of each arm: :math:`\hat\mu_a + \alpha\sqrt{\log t / n_a}` with :math:`t = \sum_a n_a`; infinite for an arm that
    was never pulled.

    Source: EVOLvE, arXiv:2410.06238, with alpha outside the root as in the paper (its released class has it inside).
    """
    t = sum(pulls)
    return [w / n + alpha * math.sqrt(math.log(t) / n) if n else math.inf for n, w in zip(pulls, wins, strict=True)]


def best(values: Sequence[float]) -> int:
    """The place of the largest; the first of equal ones."""
    return max(range(len(values)), key=lambda i: (values[i], -i))


class Bandit(Told):
    r"""A fixed number of pulls, one a turn: the letter of an arm.

    One arm pays with probability 1/2 + gap/2, the others with 1/2 - gap/2; which one, and what the j-th pull of each arm pays, follow
    from the seed, so that episodes of one seed differ by what was pulled alone. A pull is worth 1/pulls where it pays, so that a return
    is the share of pulls that paid. A text that names no arm pulls none: the turn is spent. ``correct``: in the end no other arm was pulled as
    often as the best.

    ``numbers``, exact: ``regret``, the pseudo-regret :math:`\sum_t (\mu^* - \mu_{a_t})` (:math:`\mu^*` for a turn without a pull);
    at the end ``min_frac``, :math:`K \min_a n_a / t` (how evenly one has explored) and ``opt_frac``, :math:`n_{a^*} / t`, with t the
    number of turns.

    After a pull the policy reads what it paid, 1 or 0, and with ``history="summary"`` how often each arm was pulled and paid, ``a2/3 b0/1``
    (paid/pulled); with "guide" what UCB thinks of each arm, mean and bonus in hundredths, ``a66+38``; with "raw" nothing more. The state is what
    is known of each arm: pulls and pays.

    Source: EVOLvE (BanditBench), arXiv:2410.06238: gap 0.5 is its easy setting, 0.2 its hard one.

    A sound method learns to leave an arm that does not pay, from a start at which two in three episodes stay with the arm that they
    happened to begin with; the mark to reach is UCB, which is what the others show.
    """

    summary: ClassVar[str] = "a bandit of K arms, bandit:K, a pull each turn, with exact regret (an environment)"
    rules: ClassVar[str] = (
        "A slot machine has several arms; one pays more often than the others. Answer with the letter of an arm each time. "
        "You read whether it paid, and how often each arm has paid/was pulled. Win as often as you can."
    )
    option: ClassVar[str] = "arms"
    warm_start: Mapping[str, Any] = {"steps": 500, "examples": 2048, "terse": 0.0, "lessons": 3.0}

    def __init__(
        self, arms: int = 3, pulls: int = 10, gap: float = 0.5, history: Told_as = "summary", explain: bool = False
    ) -> None:
        super().__init__(explain)
        if not 2 <= arms <= len(LETTERS):
            raise UserError(f"bandit: {arms} arms, expected 2 to {len(LETTERS)}")
        if pulls < 1 or not 0 < gap <= 1:
            raise UserError(
                f"bandit: pulls {pulls} and gap {gap:g}, expected pulls from 1 on and a gap above 0, at most 1"
            )
        if history not in ("raw", "summary", "guide"):
            raise UserError(f"bandit: history {history!r}, expected raw, summary or guide")
        self.arms, self.pulls, self.gap, self.history = arms, pulls, gap, history
        self.turns = pulls
        width = {"raw": 0, "summary": 6, "guide": 8}[history]
        self.max_tokens = 32 + pulls * (8 + width * arms)

    def begin(self, chance: random.Random) -> None:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        self.number = chance.randrange(NUMBERS)
        self.best = chance.randrange(self.arms)
        self.means = [0.5 + (self.gap if a == self.best else -self.gap) / 2 for a in range(self.arms)]
        self.table = [[float(chance.random() < mean) for _ in range(self.pulls)] for mean in self.means]
        self.pulled = [0] * self.arms
        self.paid = [0.0] * self.arms
        self.turn = 0

    def question(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"bandit {self.number}: {LETTERS[: self.arms]}, {self.pulls} pulls"

    def answer(self) -> str:
        """The best arm."""
        return LETTERS[self.best]

    def state(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return " ".join(f"{w:g}/{n}" for w, n in zip(self.paid, self.pulled, strict=True))

    def known(self) -> str:
        """What the policy is told of each arm."""
        if self.history == "summary":
            return "".join(f" {x}{w:g}/{n}" for x, w, n in zip(LETTERS, self.paid, self.pulled, strict=False))
        if self.history == "guide":
            return "".join(f" {x}{self.guide(a)}" for a, x in enumerate(LETTERS[: self.arms]))
        return ""

    def guide(self, arm: int) -> str:
        """Mean and bonus of an arm in hundredths."""
        n = self.pulled[arm]
        if not n:
            return "?"
        mean = self.paid[arm] / n
        return f"{100 * mean:.0f}+{100 * (ucb(self.pulled, self.paid)[arm] - mean):.0f}"

    def step(self, action: Action) -> Observation:
        """Pull the arm that is named."""
        name = action.strip().lower()
        arm = LETTERS[: self.arms].find(name) if len(name) == 1 else -1
        top, self.turn = self.means[self.best], self.turn + 1
        if arm < 0:
            said, reward, regret = f"no arm{self.known()}", 0.0, top
        else:
            reward, regret = self.table[arm][self.pulled[arm]], top - self.means[arm]
            self.pulled[arm] += 1
            self.paid[arm] += reward
            said = f"{reward:g}{self.known()}"
        done = self.turn >= self.pulls
        numbers = {"regret": regret} | (self.shares() if done else {})
        return Observation(
            said, reward=reward / self.pulls, done=done, correct=self.found(), state=self.state(), numbers=numbers,
            reason=f"pays {self.state()}, the best is {self.answer()}",
        )  # fmt: skip

    def found(self) -> bool:
        """Whether no other arm was pulled as often as the best."""
        return all(n < self.pulled[self.best] for a, n in enumerate(self.pulled) if a != self.best)

    def shares(self) -> dict[str, float]:
        """How evenly one has explored, and how often one has pulled the best."""
        return {
            "min_frac": self.arms * min(self.pulled) / self.turn,
            "opt_frac": self.pulled[self.best] / self.turn,
        }

    def shown(self, chance: random.Random) -> str:
        """What UCB pulls; in a hurry always the same, any one."""
        if not self.hurried(chance):
            return LETTERS[best(ucb(self.pulled, self.paid))]
        return LETTERS[best(self.pulled)] if self.turn else chance.choice(LETTERS[: self.arms])
