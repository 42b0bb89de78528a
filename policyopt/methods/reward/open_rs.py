"""Open-RS."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Correctness, LengthReward
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Group


@method(
    parent=grpo,
    arxiv="2503.16219",
    code="knoveleng/open-rs",
    confidence="code",
    claim=Claim(
        "A cosine reward for length makes a small model answer shorter, and as many answers are right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        ours={"kl-coef": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def open_rs(
    max_len: float | None = None,
    w_format: float = 1.0,
    w_cosine: float = 2.0,
    clamp: bool = False,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    temperature: float = 0.7,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO for small models on little data, with a cosine reward for length: short right answers are worth most, long
    wrong ones least.

    .. math:: R = w_f\,1[\text{format}] + w_c\,\big(v_L + \tfrac12(v_0 - v_L)(1 + \cos\pi\tfrac{|y|}{L})\big),\qquad
              (v_0, v_L) = (1, 0.5) \text{ right},\; (0, -0.5) \text{ wrong}

    L = ``max_len`` in tokens; None takes the run's budget. Past L the cosine turns back, as in the authors' code,
    unless ``clamp``. The run configuration of the paper: 7,000 problems of mixed difficulty, groups of 6, 500 steps at
    a learning rate of 1e-6 with 10 % warm-up and a cosine schedule, 3,584 tokens, temperature 0.7; checkpoints are
    compared on held-out problems, as the best come early. Source: arXiv:2503.16219; values from the authors' code.
    Our reading: the length is in tokens (the code counts characters), the format is that which the task asks for.
    """
    return grpo(low, high, kl_coef=kl_coef).replace(
        source=Group(size=group_size, temperature=temperature),
        shape=(
            Correctness(right=0.0, wrong=0.0, formatted=w_format),
            LengthReward(
                coef=w_cosine,
                curve="cosine",
                reference=max_len,
                past="hold" if clamp else "on",
                right=(1.0, 0.5),
                wrong=(0.0, -0.5),
            ),
        ),
    )
