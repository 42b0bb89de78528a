"""RSO: how its responses are chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def accepted_with(rewards: Sequence[float], beta: float) -> list[float]:
    r"""The probability with which each candidate is accepted in a pass, :math:`e^{(r_i - \max_j r_j)/\beta}`, from the rewards of those
    that are left. Source: RSO, arXiv:2309.06657, algorithm 1."""
    most = max(rewards, default=0.0)
    return [math.exp((r - most) / beta) for r in rewards]


def rejection_sample(
    rewards: Sequence[float], beta: float, wanted: int, uniform: Callable[[int, int], float]
) -> tuple[list[int], int]:
    r"""Which candidates are kept so that they follow :math:`\pi_{sft}(y)\,e^{r(y)/\beta}`, in the order in which they were accepted, and the
    number of passes.

    ``rewards`` [M] are of candidates that were drawn from the first policy, ``uniform(pass, i)`` is a number in [0, 1) for candidate i in
    a pass, counted from 0. In each pass those that are left are accepted with the probability of :func:`accepted_with`, one after the
    other, until there are ``wanted`` or nothing is left. The best of a pass is always accepted, so it ends. Large ``beta``
    (in units of the reward) keeps the first ones, small keeps the best.

    Source: RSO, arXiv:2309.06657, algorithm 1 (beta 0.5, 8 of 64). Our reading: it stops inside a pass. Raises ``ValueError`` where
    beta is not positive or a reward is not finite.
    """
    if not beta > 0 or not all(map(math.isfinite, rewards)):
        raise ValueError(f"rejection sampling takes a beta above 0 and finite rewards, got {beta} and {list(rewards)}")
    left, found, passes = list(range(len(rewards))), list[int](), 0
    while left and len(found) < wanted:
        chance = accepted_with([rewards[i] for i in left], beta)
        taken = [i for i, p in zip(left, chance, strict=True) if uniform(passes, i) < p][: wanted - len(found)]
        found += taken
        left = [i for i in left if i not in taken]
        passes += 1
    return found, passes
