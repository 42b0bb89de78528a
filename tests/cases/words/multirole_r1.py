"""What cases call things in MultiRole-R1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from policyopt.judging.diversity import diversity, mean_diversity
from policyopt.methods.judge.multirole_r1 import multirole_r1
from policyopt.objective import credit, shaped
from policyopt.rows import Batch, make_batch
from policyopt.schema import member


def _judged(accuracy: Sequence[float], diverse: Sequence[float], params: Mapping[str, Any], group: Any) -> Batch:
    """A batch with both components, rewarded and credited."""
    recipe = multirole_r1(params["delta"], group_size=max(2, len(accuracy)))
    for field, name in (("eps", "adv_eps"), ("ddof", "ddof")):
        recipe = recipe.set(f"advantage.{field}", params[name]) if name in params else recipe
    columns = {"accuracy": accuracy, "diversity": diverse}
    batch = make_batch(
        mask=torch.ones(len(accuracy), 1, dtype=torch.float64),
        group=torch.tensor(group),
        reward=torch.zeros(len(accuracy), dtype=torch.float64),
        **{member("component", k): torch.tensor(x, dtype=torch.float64) for k, x in columns.items()},
    )
    return credit(recipe, shaped(recipe, batch))


def _metrics(given: Mapping[str, Any]) -> dict[str, Any]:
    """The statistics of one text, and its reward."""
    params = given["params"]
    found = diversity(given["sentences"], given["sentence_type"], given["function_words"], params["num_sentence_types"])
    mean = mean_diversity(found)
    reward = _judged([given["accuracy"]], [mean], params, [0]).reward
    return {"diversity": found, "diversity_reward": mean, "reward": float(reward[0])}


def _credit(given: Mapping[str, Any]) -> dict[str, Any]:
    """Advantages in a group."""
    batch = _judged(given["accuracy"], given["diversity_reward"], given["params"], given["group"])
    return {"reward": batch.reward, "advantage": batch.advantage[:, 0]}


CASES = {"reward": _metrics, "advantage": _credit}
