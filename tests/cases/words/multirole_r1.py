"""What cases call things in MultiRole-R1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.judging.diversity import diversity, mean_diversity
from policyopt.lens.case import Run
from policyopt.schema import member


def _diversity(given: Mapping[str, Any]) -> dict[str, float]:
    """The statistics of one text."""
    kinds = given["params"]["num_sentence_types"]
    return diversity(given["sentences"], given["sentence_type"], given["function_words"], kinds)


def _text(given: Mapping[str, Any]) -> dict[str, Any]:
    """One row, judged for its answer and for its text."""
    diverse = mean_diversity(_diversity(given))
    return {"accuracy": [given["accuracy"]], "diversity_reward": [diverse], "params": given["params"]}


def _reward(run: Run) -> Any:
    """A number where the case is one text."""
    reward = run.shaped.reward
    return reward if isinstance(run.asked["accuracy"], list) else float(reward[0])


COLUMNS = {
    "accuracy": (member("component", "accuracy"), "row"),
    "diversity_reward": (member("component", "diversity"), "row"),
}
PARAMS = dict.fromkeys(("num_sentence_types", "weights", "distinct_n", "yule"))
GIVEN = {"reward": _text}
KEYS = {
    "diversity": lambda run: _diversity(run.asked),
    "diversity_reward": lambda run: float(run.batch.members("component")["diversity"][0]),
    "reward": _reward,
}
