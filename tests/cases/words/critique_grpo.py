"""What cases call things in Critique-GRPO."""

from __future__ import annotations

from policyopt.items import Verdict
from policyopt.lens.case import Run
from policyopt.methods.guidance.critique_grpo import pick


def _picked(run: Run) -> list[tuple[int, Verdict]]:
    """The refinement that each group takes, and what the judge says of it; a score of 1 is right."""
    groups = [[Verdict(s, s == 1, True, "") for s in scores] for scores in run.given["refinement_score"]]
    return [(pick(verdicts), verdicts[pick(verdicts)]) for verdicts in groups]


COLUMNS = {"refined": ("origin", "row"), "refinement_score": ("", "free")}
PARAMS = {"agg": None, "L_max": "loss_norm", "n_prefix": None}
KEYS = {
    "picked": lambda run: [i for i, _ in _picked(run)],
    "correct": lambda run: [float(verdict.correct) for _, verdict in _picked(run)],
}
