"""What the cases of kl-cov call things."""

from __future__ import annotations

from policyopt.parts.select.covariance import covariance

KEYS = {
    "cov": lambda run: covariance(run.credited),
    "selected": lambda run: run.part("regularizers.Proximal").tokens(run.credited).double(),
}
