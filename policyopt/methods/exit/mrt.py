"""MRT."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import RolloutBaseline
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.exits import ContinueOrStop


@method(parent=grpo, arxiv="2503.07572", code="CMU-AIRe/MRT", confidence="recalled")
def mrt(
    stops: int = 4,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    epochs: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Meta reinforcement fine-tuning: thinking on is worth what it adds to answering now.

    .. math:: A_i = R_i - \frac1K\sum_k R^{stop}_k(c)

    c is the beginning of a thought, cut behind a line; the K = ``stops`` answers that are forced there are the baseline
    of the responses that go on from it. Where stopping is as good as going on, nothing is learned. The general form
    adds the progress of each episode to the reward (:func:`~policyopt.parts.exits.progress_reward`), and
    :func:`~policyopt.parts.exits.regret` measures what is lost. Source: arXiv:2503.07572 and the authors' guide
    (CMU-AIRe/MRT), which has this baseline; recalled, not verified. Our reading: one beginning for each prompt, the
    number of forced answers, no division by the deviation, no KL.
    """
    return grpo(low, high, kl_coef=kl_coef, epochs=epochs, group_size=group_size).replace(
        rollout=ContinueOrStop(size=group_size, stops=stops), advantage=RolloutBaseline(clip=None)
    )
