"""DLER."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from policyopt.claims import Claim, Effect
from policyopt.methods.clip.dapo import dapo
from policyopt.part import Count, Fraction, Shape, part
from policyopt.parts import Correctness, LastAccuracy, Normalise, PPOClip
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import GroupWithinBudget
from policyopt.sources.draw.budgeted import PromptBudget


@part
class TruncatedShare(Shape):
    """A share of its reward is all that is left to a response that was cut off at its budget."""

    share: Fraction = 0.0
    """kappa."""

    needs: ClassVar[frozenset[str]] = frozenset({"truncated"})

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=torch.where(batch.truncated > 0.5, self.share * batch.reward, batch.reward))


@part
class Tiers(PromptBudget):
    """A smaller budget for prompts that were right often enough at their last visit; new ones have that of the run.

    Source: DA-DLER, arXiv:2510.15110: 2,000 tokens from a pass rate of 1/2 on, else 4,000.
    """

    easy: Count = 2000
    """The budget of easy prompts."""
    accuracy: Fraction = 0.5
    """From which accuracy on they are easy."""

    def __call__(self, history: Sequence[float], most: int) -> float:
        return self.easy if history[0] >= self.accuracy else most


@method(
    parent=dapo,
    arxiv="2510.15110",
    code="NVlabs/DLER",
    confidence="code",
    claim=Claim(
        "Cutting long responses off is penalty enough, if advantages are scaled over the batch: answers become shorter, and as many are right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        ours={
            "easy-budget": 40,
            "easy-accuracy": 0.0,
            "rounds": 3,
            "recipe.curriculum": "AmongPool",
            "recipe.curriculum.pool": 32,
        },
        theirs={"kl-coef": 0.0},
    ),
)
def dler(
    truncated_share: float = 0.0, easy_budget: int | None = None, easy_accuracy: float = 0.5, low: float | None = 0.2, high: float | None = 0.28,
    dual: float | None = 10.0, kl_coef: float = 0.0005, rounds: int = 10, minibatches: int = 1, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Doing Length pEnalty Right: the plainest penalty, a cut, and an optimiser that bears it.

    .. math:: R_i = c_i\,(1 \text{ or, where cut off, } \kappa),\qquad \hat A_{i,t} = \frac{d_i - \mu}{\sqrt{v}},\quad d_i = R_i - \bar R_{group}

    A response that does not end within the budget earns nothing (kappa, ``truncated_share``, is 0; 0.1 in the released code): set the length by ``--max-tokens``. Advantages are centred
    in their group and whitened over all tokens of the batch, not divided by the deviation of a group that cuts have made all zeros. The rest is DAPO without its penalty: wider upwards clip, prompts
    of one outcome drawn again, token-mean; a dual clip, and a slight KL. With ``easy_budget`` it is DA-DLER: prompts that were right in ``easy_accuracy`` of the responses of their last visit have that
    many tokens only (:class:`Tiers`). Its merge of the largest changes into the model of the start is ``policyopt merge START TUNED --keep 0.25 --scale 0.7``. Source: arXiv:2510.15110 and the authors' code (NVlabs/DLER):
    16 responses, batches of 512, budgets of 4,000. Our reading: prompts are filtered by who was right, before the cut counts, as in the code.
    """
    recipe = dapo(low, high, rounds=rounds, minibatches=minibatches, group_size=group_size)
    easy = easy_budget is not None
    source = GroupWithinBudget(
        size=group_size, rounds=rounds, budget=Tiers(easy=easy_budget or 1, accuracy=easy_accuracy)
    )
    return recipe.replace(
        source=source if easy else recipe.source,
        shape=(Correctness(wrong=0.0), TruncatedShare(share=truncated_share)),
        advantage=Normalise(centre="group", scale="none", whiten="token"),
        surrogate=PPOClip(low=low, high=high, dual=dual),
        regularizers=(KL(coef=kl_coef),) if kl_coef else (),
        memory=LastAccuracy() if easy else None,
    )
