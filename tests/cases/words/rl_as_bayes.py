"""What the cases of rl-as-bayes call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.analysis.alignment_asymptotics import kl
from policyopt.methods.divergence.rl_as_bayes import log_evidence, regularised_value
from policyopt.parts.probe.tilt import tilt


def _metric(given: Mapping[str, Any]) -> dict[str, Any]:
    beta = given["params"]["beta"]
    prior, policy, reward = (torch.tensor(given[name], dtype=torch.float64) for name in ("prior", "policy", "reward"))
    posterior = tilt(prior, reward, 1 / beta)
    return {
        "posterior": posterior,
        "log_evidence": log_evidence(prior.log(), reward, beta),
        "kl_to_prior": kl(policy, prior),
        "kl_to_posterior": kl(policy, posterior),
        "objective": regularised_value(policy, prior.log(), reward, beta),
        "max_objective": regularised_value(posterior, prior.log(), reward, beta),
        "distributional_pg_weight": posterior / policy,
    }


CASES = {"metric": _metric}
