"""Programs that look at what they have drawn for a prompt before they draw more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from policyopt.parts.base import Count, Finite, part
from policyopt.rollout.base import Prompt, Response, Rollout, Sampler
from policyopt.rollout.group import Group


@part
class MoreForHard(Group):
    r"""A group, and further responses to prompts of which less than half were answered.

    .. math:: \Delta = \Big\lceil \frac{h\,A^* - N S(a)}{S(a)} \Big\rceil \le N_{max} - N

    N = ``size`` responses are drawn first; a is their accuracy (0 counts as 1/(2N)). S(a) is the sum of absolute
    advantages per response, 2a(1-a) for centred rewards or 2 sqrt(a(1-a)) for scaled ones, and A* = N S(1/2) its peak.
    h is 1 to bring all hard prompts to the peak, or 2(1-a) to bring the hardest beyond it. Source: DARS,
    arXiv:2508.13755, and the authors' code (yangzhch6/DARS).
    """

    most: Count = 32
    """N_max: most responses to a prompt."""
    target: Literal["equal", "hardness"] = "equal"
    """h: equal treatment (ET) or weighted by hardness (HW)."""
    scaled: bool = False
    """The advantage divides by the group's standard deviation."""

    def __post_init__(self) -> None:
        if self.most < self.size:
            raise ValueError(f"most is {self.most}, fewer than the {self.size} responses (size) that come first")

    def extra(self, accuracy: float) -> int:
        """How many responses are drawn in the second stage, given the accuracy of the first."""
        if accuracy >= 0.5:
            return 0
        a = accuracy or 1 / (2 * self.size)
        spread = 2 * math.sqrt(a * (1 - a)) if self.scaled else 2 * a * (1 - a)
        peak = self.size if self.scaled else self.size / 2
        hardness = 1.0 if self.target == "equal" else 2 * (1 - a)
        return min(math.ceil((hardness * peak - self.size * spread) / spread), self.most - self.size)

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        first = await super().draw(prompt, sampler)
        verdicts = await prompt.score(first)
        extra = self.extra(sum(v.correct for v in verdicts) / len(verdicts))
        if extra == 0:
            return first
        key = (*prompt.key, 1)
        second = await sampler.generate(
            prompt.tokens, n=extra, max_tokens=prompt.budget, temperature=self.temperature, key=key
        )
        return [*second, *first]


@part
class UntilMixed(Rollout):
    """Responses in rounds until a prompt has shown enough, then a balanced choice of ``size`` of them.

    The others are not trained on, but count in the mean reward of all that was drawn, which the batch has as
    ``baseline_reward``. Source: Reinforce-Ada, arXiv:2510.04996, and the authors' code (RLHFlow/Reinforce-Ada).
    """

    provides: ClassVar[frozenset[str]] = frozenset({"baseline_reward"})

    size: Count = 4
    """n: responses to one prompt that are trained on."""
    round_size: Count = 8
    """M: responses of one round."""
    max_rounds: Count = 4
    """N: most rounds."""
    threshold: Finite = 0.7
    """A response whose score is above it is a success."""
    stop: Literal["balanced", "positive"] = "balanced"
    """Enough is half of n successes and half of n failures, or one success."""

    def __post_init__(self) -> None:
        if self.round_size < self.size:
            raise ValueError(
                f"round_size is {self.round_size}, fewer than the {self.size} responses that are kept (size)"
            )

    def enough(self, success: Sequence[bool]) -> bool:
        """Whether a prompt with these outcomes is done."""
        good, half = sum(success), self.size // 2
        return good >= 1 if self.stop == "positive" else good >= half and len(success) - good >= self.size - half

    def choose(self, success: Sequence[bool]) -> list[int]:
        """Which responses are trained on: successes, then failures, in the order in which they came. Where one side
        has too few, the other fills up."""
        good = [i for i, s in enumerate(success) if s]
        bad = [i for i, s in enumerate(success) if not s]
        few = max(min(self.size // 2, len(good)), self.size - len(bad))
        return good[:few] + bad[: self.size - few]

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        drawn: list[Response] = []
        success: list[bool] = []
        for i in range(self.max_rounds):
            fresh = await sampler.generate(
                prompt.tokens, n=self.round_size, max_tokens=prompt.budget, temperature=self.temperature,
                key=(*prompt.key, i),
            )  # fmt: skip
            drawn += fresh
            success += [v.score > self.threshold for v in await prompt.score(fresh)]
            if self.enough(success):
                break
        kept = self.choose(success)
        rest = [r for i, r in enumerate(drawn) if i not in kept]
        for response in rest:
            response.role = "pool"
        return [*(drawn[i] for i in kept), *rest]
