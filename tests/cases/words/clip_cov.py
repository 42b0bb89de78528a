"""What the cases of clip-cov call things."""

from __future__ import annotations

from policyopt.parts.select.covariance import covariance, quota

COLUMNS = {"selected": ("noise", "token")}  # what the case drew has the largest random numbers
KEYS = {
    "cov": lambda run: covariance(run.credited),
    "eligible": lambda run: run.part("weight.0").tokens.eligible(run.credited).double(),
    "num_selected": lambda run: quota(run.part("weight.0").tokens.fraction, run.credited),
}
