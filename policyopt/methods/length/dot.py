"""DOT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from policyopt.claims import Claim, Effect
from policyopt.methods.entropy.kl_cov import kl_cov
from policyopt.methods.group.grpo import grpo
from policyopt.part import NonNegative, part
from policyopt.parts import MixedOutcomes
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Group
from policyopt.sources.draw.search import beginning
from policyopt.sources.program import Context, Question, Response


@part
class OutliersCut(Group):
    r"""A group; where all of its responses are right, those that are far longer than the others are cut and judged again.

    .. math:: T = \mu_L + \alpha\,\sigma_L,\qquad |y_i| - T > m \;\Rightarrow\; y_i \leftarrow y_{i,\le\lfloor T\rfloor}

    Mean and deviation are those of the group's lengths in tokens. What was cut has lost its answer, as a rule, so that a group without a
    gradient has one against rambling; a group with a wrong response, or one without a reward, stays as it is. Of G responses none can lie beyond
    :math:`\sqrt{G-1}` deviations (ddof 0), so alpha 3 takes groups of more than ten. The log has the number of responses that were cut
    (``rollout/cut``). Source: DOT, arXiv:2601.03969, from third parties' accounts. Our reading: deviation over all of the group, the threshold
    rounded down, no margin.
    """

    alpha: Annotated[float, Field(gt=0)] = 3.0
    """How many deviations beyond the mean; infinity cuts nothing."""
    margin: NonNegative = 0.0
    """m, in tokens."""
    ddof: Literal[0, 1] = 0
    """Delta degrees of freedom of the deviation."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        verdicts = await context.judge(group)
        if not all(v.rewarded and v.correct for v in verdicts):
            return group
        limit = self.threshold([len(r.tokens) for r in group])
        kept = [r if len(r.tokens) - limit <= self.margin else beginning(r, math.floor(limit)) for r in group]
        context.count(cut=sum(a is not b for a, b in zip(group, kept, strict=True)))
        return kept

    def threshold(self, lengths: Sequence[float]) -> float:
        """T of a group that was all right; that of one response, and of equally long ones, is their length."""
        spread = float(np.std(lengths, ddof=self.ddof)) if len(lengths) > 1 else 0.0
        return float(np.mean(lengths)) + (self.alpha * spread if spread else 0.0)  # infinity times 0 is no number


@method(
    parent=grpo,
    arxiv="2601.03969",
    confidence="secondary",
    claim=Claim(
        "Cutting the far too long ones among right answers, before they are paid, is enough: answers become shorter, and as many are right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        ours={"alpha": 1.0},
        both={"group-size": 16},
        theirs={"kl-coef": 0.0},
    ),
)
def dot(
    alpha: float = 3.0, margin: float = 0.0, cov_frac: float = 0.0, cov_coef: float = 1.0, rounds: int = 1, low: float | None = 0.2,
    high: float | None = 0.2, kl_coef: float = 0.0, group_size: int = 16,
) -> Recipe:  # fmt: skip
    r"""Dynamic Outlier Truncation: of the right answers to a prompt that is always solved, those that are far too long are cut before they are paid.

    .. math:: R_i = r\big(y_{i,\le\lfloor\mu_L + \alpha\sigma_L\rfloor}\big) \text{ where all of the group are right and } |y_i| > \mu_L + \alpha\sigma_L + m,
              \qquad R_i = r(y_i) \text{ elsewhere}

    The rest is GRPO: a group with an outlier has one negative response and slightly positive others, and all other groups are GRPO's to the bit. No length enters the
    reward (:class:`OutliersCut`). An infinite ``alpha`` is GRPO; 1 or 2 made the paper's runs collapse. Its companions: ``cov_frac`` above 0 holds
    the share of tokens that drain the entropy (KL-Cov, with ``cov_coef``; 0.0002 to 0.002 of all tokens); ``rounds`` above 1 drops groups of one outcome, as they are
    after the cut, and draws prompts again. Source: arXiv:2601.03969 from third parties' accounts. Our reading: the margin; prompts are drawn again round
    by round, where the paper foretells by the share of groups that were mixed so far how many it needs.
    """
    recipe = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    held = kl_cov(kl_frac=cov_frac, kl_coef=cov_coef).regularizers if cov_frac else ()
    return recipe.replace(
        source=OutliersCut(size=group_size, rounds=rounds, alpha=alpha, margin=margin),
        regularizers=(*recipe.regularizers, *held),
        filter=(MixedOutcomes(),) if rounds > 1 else (),
    )
