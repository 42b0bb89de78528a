"""GRPO-D."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.control import Schedule
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Correctness
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2503.16081",
    confidence="abstract",
    claim=Claim(
        "A KL that is weak while the policy explores and strong later teaches more than one that is always the same.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.01),),
        ours={"kl-steps": 40, "format-coef": 0.0},
    ),
)
def grpo_d(
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_start: float = 0.0,
    kl_end: float = 0.04,
    kl_steps: int = 200,
    schedule: Literal["linear", "cosine"] = "linear",
    format_coef: float = 1.0,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO whose KL to the reference grows during training: explore first, then keep what was found.

    .. math:: L_s = L_{GRPO} + \beta_s\,\overline{k3},\qquad
              \beta_s = \beta_{min} + (\beta_{max} - \beta_{min})\,f\big(\min(s/S, 1)\big),\qquad R = R_{acc} + w R_{fmt}

    s counts steps from 0; beta_min = ``kl_start``, beta_max = ``kl_end``, S = ``kl_steps``; f rises from 0 to 1 along the
    ``schedule``. R_acc and R_fmt are 0 or 1, w = ``format_coef``; tasks of text need nothing else of the original, which
    trains a vision-language model. Source: OThink-MR1, arXiv:2503.16081, known from its abstract alone: that the weight
    of the KL changes, from exploration to exploitation. Our reading: the ramp, its shape, and every default.
    """
    return grpo(low, high, group_size=group_size).replace(
        shape=(Correctness(right=1.0, wrong=0.0, formatted=format_coef),),
        regularizers=(KL(coef=kl_start),),
        controllers=(
            Schedule(
                field="regularizers.KL.coef", start_value=kl_start, end_value=kl_end, steps=kl_steps, shape=schedule
            ),
        ),
    )
