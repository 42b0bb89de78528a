"""What cases call things where the best length of a chain of thought is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from policyopt.methods.length.cot_length_optimal import accuracy, branch, cot_length_optimal, vote


def _best(given: Mapping[str, Any]) -> dict[str, Any]:
    params = given["params"]
    t, m, noise = params["T"], params["M"], params["sigma"]
    return {
        "Z": branch(noise),
        "N_opt": cot_length_optimal(t, m, noise),
        "accuracy": [accuracy(n, t, m, noise, params["alpha"]) for n in given["N"]],
        "N_opt_double_T": cot_length_optimal(2 * t, m, noise),
        "N_opt_double_M": cot_length_optimal(t, 2 * m, noise),
    }


def _voted(given: Mapping[str, Any]) -> dict[str, Any]:
    params, answers = given["params"], given["answer"]
    found = vote(
        given["length"], answers, width=params["bin_width"], bins=params["K"], least=params.get("min_count", 1)
    )
    return {
        "bin_entropy": {str(b): x for b, x in found.entropy.items()},
        "kept_bins": list(found.kept),
        "answer": found.answer,
        "plain_majority": vote(
            given["length"], answers, width=params["bin_width"], bins=len(Counter(answers)) + len(answers)
        ).answer,
    }


CASES = {"metric": _best, "other": _voted}
