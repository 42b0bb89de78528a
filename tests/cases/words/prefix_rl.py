"""What cases call things in PrefixRL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.guidance.prefix_rl import Prefixed

from ._scripted import begun_run

PARAMS = {"agg": "aggregate", "adv_eps": "advantage.eps", "ddof": "advantage.ddof"}


def _cuts(given: Mapping[str, Any]) -> dict[str, Any]:
    """The length of each prefix of each trace."""
    rollout = Prefixed(low=given["params"]["low"], high=given["params"]["high"])
    lengths = zip(given["trace_len"], given["u"], strict=True)
    return {"prefix_len": [[rollout.length(n, u) for u in us] for n, us in lengths]}


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rows that begin with a prefix."""
    run, mask = begun_run("prefix-rl", given, "prefix_len")
    keys = {"advantage": [0.0], "loss": 0.0, "dloss_dlogp": [[0.0]]}
    return {"train_mask": mask, **{key: run.value(key, like) for key, like in keys.items()}}


CASES = {"sampler": _cuts, "loss": _loss}
