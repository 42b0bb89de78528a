"""EVOLvE."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from policyopt.errors import UserError
from policyopt.registry import tool

History = Literal["raw", "summary", "guide"]


class Advised(NamedTuple):
    """What an optimal learner would say of the arms of a bandit."""

    exploit: tuple[float, ...]
    """Mean reward of each arm so far; 0 of one that was never pulled."""
    bonus: tuple[float, ...]
    """What not knowing an arm well is worth; infinite where it was never pulled."""
    action: int
    """The arm that it pulls next."""


def ucb(pulls: Sequence[int], rewards: Sequence[float], alpha: float = 0.5) -> Advised:
    r"""Upper confidence bounds: :math:`\hat\mu_a + \alpha\sqrt{\log t / n_a}`, of n pulls and sums of rewards of each arm.

    Every arm once first; of equal ones the first. Source: EVOLvE, arXiv:2410.06238 (the released class has alpha inside the
    root).
    """
    total = sum(pulls)
    exploit = tuple(s / n if n else 0.0 for s, n in zip(rewards, pulls, strict=True))
    bonus = tuple(alpha * math.sqrt(math.log(total) / n) if n else math.inf for n in pulls)
    return Advised(exploit, bonus, max(range(len(pulls)), key=lambda a: exploit[a] + bonus[a]))


def regret(actions: Sequence[int], means: Sequence[float]) -> list[float]:
    r"""The pseudo-regret after each action, :math:`\sum_t \mu^* - \mu_{a_t}`, from the true means of the arms."""
    return list(accumulate(max(means) - means[a] for a in actions))


def min_frac(actions: Sequence[int], arms: int) -> float:
    """How evenly all arms were tried: K times the share of the one that was pulled least. 0 where one was never pulled, 1 where
    all were pulled alike."""
    return arms * min(actions.count(a) for a in range(arms)) / len(actions) if actions else 0.0


def opt_frac(actions: Sequence[int], means: Sequence[float]) -> float:
    """How often the best arm was pulled."""
    return actions.count(max(range(len(means)), key=lambda a: means[a])) / len(actions) if actions else 0.0


@dataclass
class Bandit:
    """Arms that pay 1 with a probability each, and what was pulled so far."""

    means: tuple[float, ...]
    actions: list[int]
    rewards: list[float]

    @property
    def pulls(self) -> list[int]:
        """How often each arm was pulled."""
        return [self.actions.count(a) for a in range(len(self.means))]

    @property
    def sums(self) -> list[float]:
        """What each arm has paid."""
        pairs = list(zip(self.actions, self.rewards, strict=True))
        return [sum((r for a, r in pairs if a == arm), 0.0) for arm in range(len(self.means))]

    def told(self, history: History, alpha: float) -> str:
        """The history as the policy reads it: every pull, means and counts, or these with the learner's bonus."""
        if history == "raw":
            pulled = zip(self.actions, self.rewards, strict=True)
            lines = [f"{name(a)} paid {r:g}" for a, r in pulled]
        else:
            pulls, guide = self.pulls, ucb(self.pulls, self.sums, alpha)
            lines = [f"{name(a)}: {n} pulls, mean {guide.exploit[a]:.2f}" for a, n in enumerate(pulls)]
            if history == "guide":
                lines = [f"{line}, bonus {b:.2f}" for line, b in zip(lines, guide.bonus, strict=True)]
        arms = ", ".join(map(name, range(len(self.means))))
        return "\n".join([f"Arms {arms} pay 1 with unlike chances.", *lines, "Which arm do you pull?"])


def name(arm: int) -> str:
    """What an arm is called: A, B, C and so on."""
    return chr(ord("A") + arm)


@tool(
    arxiv="2410.06238",
    code="allenanie/EVOLvE",
    confidence="code",
    use="python: from policyopt.methods.agents.evolve import evolve; rows = evolve(arms=5)",
)
def evolve(
    arms: int = 5, horizon: int = 50, bandits: int = 64, gap: float = 0.2, history: History = "raw",
    alpha: float = 0.5, seed: int = 0,
) -> list[dict[str, str]]:  # fmt: skip
    r"""Write down how an optimal learner explores bandits, for a language model to be fine-tuned on.

    .. math:: L = -E_{(H_t, a_t) \sim UCB}\log\pi(a_t \mid \phi(H_t)),\qquad
              a_t = \mathrm{argmax}_a\ \frac{S_a}{n_a} + \alpha\sqrt{\frac{\log t}{n_a}}

    Each row is a turn of a learner (:func:`ucb`) on one of ``bandits`` bandits of ``arms`` arms: the history of its pulls as a
    ``prompt``, its next arm as the ``completion``. All turns of a learning curve are there, so that who imitates them has to
    tell from the history how much is known by now; that is what sets it apart from imitating somebody who knows the best arm.
    ``history`` tells every pull (raw), counts and means (summary), or the learner's own numbers too (guide), with which the
    largest sum is the answer: put before a model that was never trained, they are the paper's other remedy. Write the rows into
    a file of JSON lines and train with ``policyopt train sft --task rows.jsonl``; ``--task bandit:K`` is a world to measure
    exploration in, where regret (:func:`regret`), evenness (:func:`min_frac`) and the share of best pulls (:func:`opt_frac`)
    are counted. The best arm pays with a probability of 1/2 + ``gap``/2, the others of 1/2 - ``gap``/2.

    Raises :class:`~policyopt.errors.UserError` for fewer than 2 or more than 26 arms, or a gap outside (0, 1]. Source:
    arXiv:2410.06238 and the authors' code (allenanie/EVOLvE): alpha 0.5, gaps 0.2 and 0.5, 5 and 20 arms. Our reading: the
    words of the story. Contextual bandits and the win rates between models are not part of it.
    """
    if not 2 <= arms <= 26:
        raise UserError(f"evolve: arms is {arms}, and there can be 2 to 26 of them (A to Z)")
    if not 0 < gap <= 1:
        raise UserError(f"evolve: gap is {gap:g}; it has to lie above 0 and be at most 1")
    rows = []
    for i in range(bandits):
        chance = random.Random(f"evolve {seed} {i}")
        best = chance.randrange(arms)
        bandit = Bandit(tuple(0.5 + (gap if a == best else -gap) / 2 for a in range(arms)), [], [])
        for _ in range(horizon):
            arm = ucb(bandit.pulls, bandit.sums, alpha).action
            rows.append({"prompt": bandit.told(history, alpha), "completion": name(arm)})
            bandit.actions.append(arm)
            bandit.rewards.append(float(chance.random() < bandit.means[arm]))
    return rows
