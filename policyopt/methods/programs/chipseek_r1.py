"""ChipSeek-R1."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, NonNegative, Shape, part
from policyopt.parts.shape.components import silent
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch

GATES = ("compiles", "passes", "synthesises", "cost", "reference_cost")
"""What a judge of hardware says, as components."""


@part
class GatedTiers(Shape):
    r"""A reward in tiers: what is finer counts only where all that is coarser has passed.

    .. math:: R = R_f + 1[\text{passes}]\,1[\text{synthesises}]\,(b + q),\qquad R_f \in \{p, c, 0\},\qquad
              q = \mathrm{clip}\big(\tfrac yx - 1,\; q_{min}, q_{max}\big)

    x is the cost of the design and y that of the reference, both geometric means of several costs (lower is better), so that one cost
    times k and another divided by k leave the reward as it is. R_f is p where the tests pass, c where it only compiles. Where y
    is 0, q is a fixed number; where x is 0, which also stands for no report, q is 0. Components: ``compiles``, ``passes``, ``synthesises`` (1 or
    0), ``cost``, ``reference_cost``; where the judge gives none of them, its score stays. Source: ChipSeek-R1, arXiv:2507.04736, and the
    authors' code (rong-hash/chipseek).
    """

    passed: Finite = 1.0
    """p."""
    compiled: Finite = 0.2
    """c."""
    synthesised: Finite = 0.4
    """b."""
    least: Finite = 0.01
    """q_min, also for a design that costs more than the reference."""
    most: Finite = 0.6
    """q_max: so much better a design can count."""
    without_reference: NonNegative = 0.1
    """q where the reference costs nothing."""

    def __call__(self, batch: Batch) -> Batch:
        if silent(batch, GATES):
            return batch
        compiles, passes, synthesises = (batch.component(name) > 0.5 for name in GATES[:3])
        tiers = torch.where(passes, self.passed, torch.where(compiles, self.compiled, 0.0)).to(batch.reward)
        fine = torch.where(passes & synthesises, self.synthesised + self.quality(batch), 0.0).to(batch.reward)
        return batch.replace(reward=tiers + fine)

    def quality(self, batch: Batch) -> Tensor:
        """q of each row, [N], before any gate."""
        own, reference = batch.component("cost"), batch.component("reference_cost")
        better = reference / torch.where(own > 0, own, 1.0) - 1
        found = torch.where(own > 0, better.clamp(self.least, self.most), 0.0)
        return torch.where(reference > 0, found, self.without_reference)


@method(
    parent=grpo,
    arxiv="2507.04736",
    code="rong-hash/chipseek",
    confidence="code",
    claim=Claim(
        "Tiers of compiling, passing and costing less teach hardware that is right more often, and cheaper than by its tests alone.",
        "assign",
        (Effect("component/compiles", "higher", 0.0), Effect("accuracy", "higher", 0.02)),
    ),
)
def chipseek_r1(
    passed: float = 1.0,
    compiled: float = 0.2,
    synthesised: float = 0.4,
    ppa_low: float = 0.01,
    ppa_high: float = 0.6,
    without_reference: float = 0.1,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Hardware by gates: compiles, passes its tests, synthesises, and only then costs less than the reference; GRPO on that.

    .. math:: R = R_f + 1[\text{passes}]\big(0.4\cdot 1[\text{synth}] + 1[\text{synth}]\,q\big),\qquad
              q = \max\Big(0.01, \min\big(\big(\textstyle\prod_k y_k/x_k\big)^{1/K} - 1,\; 0.6\big)\Big)

    R_f is 1 for a design that passes, 0.2 for one that only compiles, else 0; x are its costs and y those of the reference (power, delay,
    area in the paper). A design at the reference's costs gets 1.41, one that is 60 % better 2, and no cost makes up for a failing test. The judge
    ``verilog`` (Icarus and Yosys in the sandbox; costs are cells and longest path) and the testbed ``assign`` give what it reads
    (:class:`~policyopt.methods.programs.chipseek_r1.GatedTiers`); under other judges it is GRPO. Source: arXiv:2507.04736; constants from the
    authors' code. Our reading: of several reward functions there the last one, clipped with the geometric mean; a separate reward for
    the format of thoughts is left to judges (``tagged``). The cold start on reasoning traces is ``sft``. A later version of the paper adds a
    curriculum whose rule is not established; it is not here.
    """
    tiers = GatedTiers(
        passed=passed, compiled=compiled, synthesised=synthesised, least=ppa_low, most=ppa_high,
        without_reference=without_reference,
    )  # fmt: skip
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(shape=(tiers,))
