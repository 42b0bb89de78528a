"""On two ranks the gradient is that of one process, for every method and whatever is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyopt.methods.clip.bapo import bapo
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.models.load import LoRA
from policyopt.recipe import Recipe
from policyopt.registry import Method, methods
from tests.engine.sharded import sides
from tests.engine.sharded.pair import Pair
from tests.engine.test_local import CoupledRows

FEW_METHODS = pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, id=name, marks=pytest.mark.heavy if i % 20 else ())
        for i, (name, method) in enumerate(methods().items())
    ],
)
"""Every twentieth method, and under ``-m heavy`` the others."""


@FEW_METHODS
def test_two_ranks_have_the_gradient_of_one_process(method: Method, pair: Pair, tiny_model: Path) -> None:
    for found in pair.run(sides.method_compared, method.name, tiny_model):
        columns = found.pop("columns")
        assert columns < 1e-5, "roles share prompts, and the norms of the tiny model are in float32"
        assert max(found.values()) < 1e-9, found


COUPLED = grpo(kl_coef=0.1).replace(surrogate=CoupledRows())
CASES: dict[str, tuple[Recipe, str, int | None, tuple[int, ...], dict[str, Any]]] = {
    "critic, packed": (ppo(), "float32", None, (8, 8), {"packs": True}),
    "coupled rows, packed": (bapo(group_size=8), "float32", 3, (8, 8), {"packs": True}),
    "adapters beside the policy without them": (grpo(kl_coef=0.1), "float64", 2, (4, 3), {"lora": LoRA(rank=2)}),
    "one row for two ranks, coupled": (COUPLED, "float64", None, (2,), {"rows": 1}),
    "one row for two ranks": (grpo(), "float64", None, (2,), {"rows": 1}),
    "lion": (ppo(), "float64", 2, (4, 3), {"optimizer": "lion", "lr": 1e-2}),
    "muon": (ppo(), "bfloat16", 2, (4, 3), {"optimizer": "muon", "lr": 1e-2}),
    "sixteen bits": (grpo(kl_coef=0.1), "bfloat16", 2, (4, 3), {}),
}
NEAR = {"float64": 1e-9, "float32": 2e-4, "bfloat16": 0.05}
"""Float noise: of sums in another order, and in 16 bits of activations."""


HEAVY = {"one row for two ranks", "coupled rows, packed"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.heavy if c in HEAVY else ()) for c in CASES])
def test_whatever_is_trained(case: str, pair: Pair, tiny_model: Path) -> None:
    recipe, dtype, micro, groups, options = CASES[case]
    for found in pair.run(sides.compared, recipe, tiny_model, dtype, micro, groups, options):
        assert found.pop("columns") < max(1e-5, NEAR[dtype])
        assert max(found.values()) < NEAR[dtype], found
