"""OTC-PO."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max
from policyopt.methods.group.grpo import grpo
from policyopt.part import Memory, Positive, Shape, Unit, part
from policyopt.parts import GAE, ClippedValueLoss
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


def calls_of(batch: Batch) -> Tensor:
    """[N] how many tools each episode has called, as its environment counts them (``component[tool_calls]``); 0 where nobody does."""
    found = batch.members("component").get("tool_calls")
    return torch.zeros_like(batch.reward) if found is None else found.nan_to_num(0.0)


def fewest_calls(batch: Batch, remembered: bool) -> Tensor:
    """[N] n, the fewest calls of a right row of the prompt, in this batch or ever; infinite where there is none yet."""
    here = torch.where(batch.correct > 0.5, calls_of(batch), torch.inf)
    fewest = -group_max(-here, batch.group)
    if not remembered or batch.history is None:
        return fewest
    before = batch.history[:, 0]
    return torch.where(before >= 0, torch.minimum(fewest, before), fewest)


@part
class FewestCalls(Memory):
    """The fewest tool calls with which a prompt was ever answered right; -1 where it never was."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def __call__(self, batch: Batch) -> Tensor:
        fewest = fewest_calls(batch, remembered=True)
        return torch.where(fewest.isfinite(), fewest, -1.0)[:, None]


@part
class ToolProductivity(Shape):
    r"""The reward times a factor that is 1 where an episode called as few tools as any that was right, and less for every other.

    .. math:: R \leftarrow \alpha\,r_{tool}\,R,\qquad r_{tool} = \begin{cases}1 & m = n = 0\\ \cos\frac{m\pi}{2m + c} & n = 0,\ m > 0\\
              \sin\frac{nm\pi}{(m + n)\,n} & n > 0\end{cases}

    m is how many tools the row has called, n the fewest of a right row of the prompt, of this batch too. Without a right row yet, R is 0.
    ``best="none"`` takes the second case for all rows, as where there is no group (OTC-PPO). A wrong answer that is worth nothing stays
    so, however few its calls. Source: OTC, arXiv:2504.14870. Our reading: the batch enters n before it is scored; a reward for form is scaled too.
    """

    smoothing: Positive = 4.0
    """c: the larger, the less a call costs where none was needed; the most calls that are allowed."""
    alpha: Positive = 1.0
    """alpha."""
    best: Literal["global", "local", "none"] = "global"
    """n over all that the memory :class:`FewestCalls` knows and this batch, over this batch alone, or no n."""

    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """As far as n counts, who was right, now and before."""
        return {"global": frozenset({"correct", "history"}), "local": frozenset({"correct"}), "none": frozenset[str]()}[
            self.best
        ]

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=self.alpha * self.factor(batch) * batch.reward)

    def factor(self, batch: Batch) -> Tensor:
        """[N] r_tool; 0 where n is not known."""
        calls = calls_of(batch)
        spared = torch.cos(calls * math.pi / (2 * calls + self.smoothing))
        if self.best == "none":
            return spared
        fewest = fewest_calls(batch, self.best == "global")
        known = torch.where(fewest.isfinite() & (fewest > 0), fewest, 1.0)
        near = torch.sin(calls / (calls + known) * math.pi)
        return torch.where(fewest == 0, spared, torch.where(fewest.isfinite(), near, 0.0))


@method(
    parent=grpo,
    arxiv="2504.14870",
    confidence="paper",
    claim=Claim(
        "Rewards that are largest for the fewest calls with which a question was ever answered right: fewer tools are called, and as "
        "many answers are right.",
        "retrieval",
        (Effect("component/tool_calls", "lower", 0.1), Effect("accuracy", "higher", -0.02)),
        ours={"kl-coef": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def otc_po(
    baseline: Literal["group", "critic"] = "group", best: Literal["global", "local"] = "global", smoothing: float = 4.0, alpha: float = 1.0,
    kl_coef: float = 0.001, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Optimal Tool Calls: a right answer is worth the more, the nearer its tool calls are to the fewest that sufficed.

    .. math:: R = \alpha\,r_{tool}(m, n)\,r_\phi

    The reward is that of :class:`ToolProductivity`, which multiplies: fewer calls alone never pay. With ``best`` "global" n is kept from pass
    to pass (:class:`FewestCalls`). ``baseline`` "critic" is OTC-PPO: no group and no n. The rest is GRPO or PPO. Where tools are
    never called it is GRPO on right answers. Source: arXiv:2504.14870: c is the most calls that are allowed (4 for search), alpha 1, the
    global form preferred. Our reading: KL 0.001, as in the frameworks that the paper builds on.
    """
    recipe = grpo(kl_coef=kl_coef, group_size=group_size)
    shape = ToolProductivity(smoothing=smoothing, alpha=alpha, best="none" if baseline == "critic" else best)
    if baseline == "critic":
        return recipe.replace(shape=(shape,), advantage=GAE(), critic=ClippedValueLoss())
    return recipe.replace(shape=(shape,), memory=FewestCalls() if best == "global" else None)
