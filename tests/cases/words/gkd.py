"""What the cases of gkd call things."""

from __future__ import annotations

COLUMNS = {"student_logits": ("policy", "logits"), "teacher_logits": ("teacher", "logits")}
PARAMS = {"kl_coef": lambda value: {"kl_coef": value, "form": "sampled"}}  # no other form has one
KEYS = {
    "divergence": lambda run: run.batch.stat(run.part("regularizers.DistributionLoss").of) * run.batch.mask,
    "dloss_dstudent_logits": lambda run: run.logits_gradient(),
}
