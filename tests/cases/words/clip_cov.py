"""What the cases of clip-cov call things."""

from __future__ import annotations

from policyopt.parts.select.covariance import covariance, quota

COLUMNS = {"selected": ("noise", "token")}  # what the case drew has the largest random numbers
KEYS = {
    "cov": lambda run: covariance(run.credited),
    "eligible": lambda run: run.part("weight.SelectedWeight").tokens.eligible(run.credited).double(),
    "num_selected": lambda run: quota(run.part("weight.SelectedWeight").tokens.fraction, run.credited),
}
