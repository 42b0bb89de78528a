"""Fine-tuning guide: demonstrations, preferences, rewards."""

from __future__ import annotations

from typing import Any

from policyopt.registry import guide


@guide(arxiv="2408.13296", confidence="abstract", use="policyopt train examples/plans/finetuning.yaml")
def finetuning_guide(
    model: str = "embedded", demonstrations: str = "pairs:chain_sum", task: str = "chain_sum", prompts: int = 256, samples: int = 4,
    steps: tuple[int, int, int] = (4, 4, 12),
) -> dict[str, Any]:  # fmt: skip
    r"""Train a model the usual way from end to end: imitate demonstrations, prefer its own right answers to its wrong ones, then learn
    from rewards alone, measured on the same held-out questions after each stage.

    .. math:: \theta_1 = \mathrm{argmax}_\theta \sum \log\pi_\theta(y^*\mid x),\qquad
              \theta_2 = \mathrm{DPO}\big(\theta_1;\ y^+, y^- \sim \pi_{\theta_1}(\cdot\mid x)\big),\qquad
              \theta_3 = \mathrm{GRPO}(\theta_2;\ r)

    Args:
        model: What the plan begins with.
        demonstrations: A task whose rows bring completions.
        task: A task that is judged.
        prompts: How many of its questions the first stage's model answers for the second.
        samples: Responses to each of them.
        steps: Of the three stages.

    Returns a plan, for :func:`policyopt.run_plan` (``docs/plans.md``). The review lists the stages of such a pipeline and fixes no
    algorithm; which methods stand in it, and that the pairs are the model's own, are our reading.
    """
    sft, dpo, grpo = steps
    return {
        "name": "finetuning",
        "model": model,
        "seed": 0,
        "stages": [
            {"name": "sft", "method": "sft", "task": demonstrations, "steps": sft, "answers": {"prompts": prompts, "samples": samples}},
            {"name": "dpo", "method": "dpo", "rows": "pairs", "steps": dpo},
            {"name": "grpo", "method": "grpo", "task": task, "steps": grpo},
        ],
    }  # fmt: skip
