"""Kwai Keye-VL 1.5."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.ratio.gspo import gspo
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Redraw


@method(
    parent=gspo,
    arxiv="2509.01563",
    code="Kwai-Keye/Keye",
    confidence="paper",
    claim=Claim(
        "The weakest of several hints that helps makes prompts teach that always fail.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
        against="grpo",
    ),
)
def keye_vl(
    levels: int = 5,
    low: float | None = 3e-4,
    high: float | None = 4e-4,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Progressive hint sampling on GSPO: of five levels of hints, a prompt that always fails gets the weakest that
    helps.

    .. math:: m^* = \min\{m : \text{a response to } (q, h_m) \text{ is right}\}

    The responses that were drawn at level m* are the group that is trained on, with GSPO's loss. What the report
    describes beside it (video input, data refreshed between rounds, reward models by task) is no part of the objective.
    Source: arXiv:2509.01563. Our reading: level m of M = ``levels`` shows the first m/(M+1) of the worked solution
    (there: concept, strategy, tools, first step, solution), a whole group is drawn per level, the hint stays in the
    context, and clip and group size, which the report leaves open, are GSPO's.
    """
    hints = tuple(m / (levels + 1) for m in range(1, levels + 1))
    return gspo(low, high, minibatches=minibatches).replace(source=Redraw(size=group_size, hints=hints))
