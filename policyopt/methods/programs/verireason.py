"""VeriReason."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, Fraction, NonNegative, Shape, part
from policyopt.parts.shape.components import silent
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group

SEEN = ("compiles", "vectors", "similarity", "coverage", "redundancy")
"""What a judge of hardware says, as components."""


@part
class TestsElseStructure(Shape):
    r"""A fixed reward for what passes its tests; for what only compiles, how like the reference it is.

    .. math:: a = \mathrm{clip}(w_s\,sim + w_c\,cov - w_r\,red,\; 0, 1),\qquad
              R = f\,1[\text{format}] + \begin{cases}p & \nu \ge \tau\\ c + a & \text{compiles}\\ 0 & \text{else}\end{cases}

    nu is the share of output vectors that are right: below tau it earns nothing by itself. Components: ``compiles`` (1 or 0), ``vectors``,
    ``similarity``, ``coverage``, ``redundancy``; where the judge gives none of them, its score stays. Source: VeriReason,
    arXiv:2505.11849, and the authors' code (NellyW8/VeriReason), which works out nu and uses it as a threshold alone.
    """

    __test__ = False  # for pytest, which collects what is called Test

    passed: Finite = 2.1
    """p."""
    compiled: Finite = 0.1
    """c."""
    threshold: Fraction = 0.99
    """tau."""
    similar: NonNegative = 0.7
    """w_s."""
    covered: NonNegative = 0.3
    """w_c."""
    redundant: NonNegative = 0.2
    """w_r."""
    formatted: Finite = 0.1
    """f."""

    def __call__(self, batch: Batch) -> Batch:
        if silent(batch, SEEN):
            return batch
        compiles = batch.component("compiles") > 0.5
        passes = compiles & (batch.component("vectors") >= self.threshold)
        tiers = torch.where(passes, self.passed, torch.where(compiles, self.compiled + self.structure(batch), 0.0))
        return batch.replace(reward=tiers.to(batch.reward) + self.formatted * batch.component("formatted"))

    def structure(self, batch: Batch) -> Tensor:
        """a of each row, [N]."""
        found = (
            self.similar * batch.component("similarity")
            + self.covered * batch.component("coverage")
            - self.redundant * batch.component("redundancy")
        )
        return found.clamp(0, 1)


@method(
    parent=grpo,
    arxiv="2505.11849",
    code="NellyW8/VeriReason",
    confidence="code",
    claim=Claim(
        "Likeness to the reference where nothing passes gives groups of wrong answers a direction: more pass their tests after as many steps.",
        "assign",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 15},
    ),
)
def verireason(
    passed: float = 2.1,
    compiled: float = 0.1,
    threshold: float = 0.99,
    similar: float = 0.7,
    covered: float = 0.3,
    redundant: float = 0.2,
    format_bonus: float = 0.1,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    temperature: float = 0.5,
    group_size: int = 8,
) -> Recipe:
    r"""Hardware by its test bench, and where that fails by its structure: a design that only compiles is worth how like the reference it is.

    .. math:: R = 0.1\cdot 1[\text{format}] + \begin{cases}2.1 & \nu \ge 0.99\\ 0.1 + \mathrm{clip}(0.7\,sim + 0.3\,cov - 0.2\,red, 0, 1) &
              \text{compiles}\\ 0 & \text{else}\end{cases}

    sim is the share of matching blocks of the two lists of statements, cov the share of the reference's statements that are there, red the share of
    own statements that the reference does not have (:func:`~policyopt.judging.structure.likeness`). What passes is above all that fails, and groups
    without any passing response still rank. The judge ``verilog`` and the testbed ``assign`` give what it reads
    (:class:`~policyopt.methods.programs.verireason.TestsElseStructure`); under other judges it is GRPO. Source: arXiv:2505.11849 and the authors' code: groups of 8,
    temperature 0.5, a learning rate of 1e-6, after SFT on reasoning traces (``sft``). Their repetition penalty of 1.3 in draws is not here. Our
    reading: output lines that are missing count as wrong, where the authors' code compares up to the shorter list, which a design that stops early
    would win.
    """
    shape = TestsElseStructure(
        passed=passed, compiled=compiled, threshold=threshold, similar=similar, covered=covered, redundant=redundant,
        formatted=format_bonus,
    )  # fmt: skip
    return grpo(low, high, kl_coef=kl_coef).replace(
        source=Group(size=group_size, temperature=temperature), shape=(shape,)
    )
