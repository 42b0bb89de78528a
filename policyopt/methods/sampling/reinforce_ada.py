"""Reinforce-Ada."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.part import Count, Finite, part
from policyopt.parts import Correctness, EntropyBonus, RolloutBaseline, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.sources.program import Context, Question, Response, Rollout


@part
class UntilMixed(Rollout):
    """Responses in rounds until a prompt has shown enough, then a balanced choice of ``size`` of them.

    The others are not trained on, but count in the mean reward of all that was drawn, which the batch has as
    ``baseline_reward``. Source: Reinforce-Ada, arXiv:2510.04996, and the authors' code (RLHFlow/Reinforce-Ada).
    """

    provides: ClassVar[frozenset[str]] = frozenset({"baseline_reward"})
    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    size: Count = 4
    """n: responses to one prompt that are trained on."""
    round_size: Count = 8
    """M: responses of one round."""
    max_rounds: Count = 4
    """N: most rounds."""
    threshold: Finite = 0.7
    """A response whose score is above it is a success."""
    exit: Literal["balanced", "positive"] = "balanced"
    """Enough is half of n successes and half of n failures, or n responses with a success among them."""

    def __post_init__(self) -> None:
        most = self.round_size * self.max_rounds
        if most < self.size:
            raise ValueError(
                f"round_size is {self.round_size} and max_rounds {self.max_rounds}: {most} responses at most, fewer than the "
                f"{self.size} that are kept (size)"
            )

    def enough(self, success: Sequence[bool]) -> bool:
        """Whether a prompt with these outcomes is done."""
        good, half = sum(success), self.size // 2
        if self.exit == "positive":
            return good >= 1 and len(success) >= self.size
        return good >= half and len(success) - good >= self.size - half

    def choose(self, success: Sequence[bool]) -> list[int]:
        """Which responses are trained on: successes, then failures, in the order in which they came. Where one side
        has too few, the other fills up."""
        good = [i for i, s in enumerate(success) if s]
        bad = [i for i, s in enumerate(success) if not s]
        few = max(min(self.size // 2, len(good)), self.size - len(bad))
        return good[:few] + bad[: self.size - few]

    async def draw(self, question: Question, context: Context) -> list[Response]:
        drawn: list[Response] = []
        success: list[bool] = []
        unrewarded: list[Response] = []
        for i in range(self.max_rounds):
            fresh = await context.sampler.generate(
                question.tokens, n=self.round_size, max_tokens=question.budget, temperature=self.temperature,
                key=(*question.key, i),
            )  # fmt: skip
            for response, verdict in zip(fresh, await context.judge(fresh), strict=True):
                if verdict.rewarded:
                    drawn.append(response)
                    success.append(verdict.score > self.threshold)
                else:
                    unrewarded.append(response)
            if self.enough(success):
                break
        kept = self.choose(success)
        rest = [*(r for i, r in enumerate(drawn) if i not in kept), *unrewarded]
        for response in rest:
            response.use = "pool"
        return [*(drawn[i] for i in kept), *rest]


@method(
    parent=dr_grpo,
    arxiv="2510.04996",
    code="RLHFlow/Reinforce-Ada",
    confidence="code",
    claim=Claim(
        "Drawing until a prompt has shown both outcomes saves groups without a signal, and as many steps lead further.",
        "mixed-difficulty",
        (Effect("signal/groups", "higher", 0.1), Effect("accuracy", "higher", 0.01)),
        against="grpo",
        ours={"group-size": 8},
        theirs={"kl-coef": 0.0},
    ),
)
def reinforce_ada(
    exit: Literal["balanced", "positive"] = "balanced",
    round_size: int = 8,
    max_rounds: int = 4,
    threshold: float = 0.7,
    low: float | None = 0.2,
    high: float | None = 0.28,
    entropy_coef: float = 0.0,
    minibatches: int = 1,
    group_size: int = 4,
) -> Recipe:
    r"""Draw in rounds until a prompt has shown both outcomes, train on a balanced few, take the baseline from all.

    .. math:: A_i = 1[r_i > \theta] - \bar r,\qquad \bar r = \frac{\#\{j \in S : r_j > \theta\}}{|S|}

    S is all that was drawn for the prompt, at most ``max_rounds`` times ``round_size`` responses; n = ``group_size``
    are trained on, half of them successes where there are as many. ``balanced`` stops at n/2 of each outcome,
    ``positive`` at one success among n or more. A round may be smaller than n. PPO's clip with a token-mean, no KL. Prompts without both outcomes stay in, as in the
    authors' code. Source: arXiv:2510.04996; defaults from the authors' script (the paper adds an entropy bonus of 1e-4,
    and 4 mini-batches). Our reading: the reward itself is made 0 or 1 by the threshold.
    """
    return dr_grpo(low, high).replace(
        source=UntilMixed(
            size=group_size, round_size=round_size, max_rounds=max_rounds, threshold=threshold, exit=exit
        ),
        shape=(Correctness(right=1.0, wrong=0.0, threshold=threshold),),
        advantage=RolloutBaseline(clip=None),
        aggregate=TokenMean(),
        regularizers=(EntropyBonus(coef=entropy_coef),) if entropy_coef else (),
        update=Update(minibatches=minibatches),
    )
