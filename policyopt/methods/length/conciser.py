"""ConciseR."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean
from policyopt.methods.group.grpo import grpo
from policyopt.part import Unit, part
from policyopt.parts import Correctness, EntropyBonus, LengthReward, MixedOutcomes, RowSelector
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class AllRight(RowSelector):
    """The responses to prompts that were answered right every time."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        return group_mean((batch.correct > 0.5).to(batch.reward), batch.group) == 1


@method(
    parent=grpo,
    arxiv="2505.21178",
    code="nick7nlp/ConciseR",
    confidence="recalled",
    claim=Claim(
        "Length counts only where every answer is right: answers become shorter, and as many are right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def conciser(
    stage: Literal["ability", "length"] = "length", coef: float = 1.0, max_len: float | None = None, entropy_coef: float = 0.001,
    low: float | None = 0.2, high: float | None = 0.28, kl_coef: float = 0.0, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""ConciseR: first ability, then length; and length counts in a group only once all of its answers are right.

    .. math:: R_i = c_i \text{ where a response of the group is wrong},\qquad R_i = 1 + \lambda\Big(1 - \frac{|y_i|}{L}\Big) \text{ where all are right}

    ``stage`` "length" is the second one, L-GRPO. With GRPO's advantages a group of right answers is ordered by length whatever lambda (``coef``) and L
    (``max_len``, None for the run's budget) are: :math:`A_i = (\bar l - |y_i|) / \mathrm{std}(l)`; no filter may drop it. ``stage`` "ability" is the first one, GRPO++: wider upwards clip,
    groups of one outcome dropped and drawn again, a bonus for entropy, no length. Run the one, then the other from its model. Source: arXiv:2505.21178, whose repository
    has no trainer; the linear form and the coefficient of the bonus are our reading.
    """
    recipe = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    if stage == "ability":
        return recipe.replace(
            shape=(Correctness(wrong=0.0),),
            filter=(MixedOutcomes(),),
            regularizers=(*recipe.regularizers, EntropyBonus(coef=entropy_coef)),
        )
    return recipe.replace(
        shape=(
            Correctness(wrong=0.0),
            LengthReward(coef=coef, reference=max_len, right=(1.0, 0.0), past="on", rows=AllRight()),
        )
    )
