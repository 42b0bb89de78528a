"""What cases call things in Tulu 3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyopt.lens.case import Run
from policyopt.parts import Logistic, Normalise, Pairs, RowScore, SeqMeanTokenMean
from policyopt.registry import get_method

HERE = Path(__file__).parent


def _ended(given: Mapping[str, Any]) -> dict[str, Any]:
    """Cases say who is not truncated."""
    return {name: x for name, x in given.items() if name != "ended"} | {"truncated": [1 - e for e in given["ended"]]}


def preference(given: Mapping[str, Any]) -> dict[str, Any]:
    """DPO as a recipe: two rows for each pair, the chosen one with the higher reward."""
    sides, params = ("chosen", "rejected"), given["params"]
    pairs = len(given["chosen_logp"])
    score = RowScore(against="reference", reduce="mean" if params["length_normalised"] else "sum")
    recipe = get_method("grpo")(kl_coef=0.0).replace(
        advantage=Normalise(centre="none", scale="none"),
        surrogate=Pairs(score=score, link=Logistic(beta=params["beta"])),
        aggregate=SeqMeanTokenMean(),
    )
    columns: dict[str, Any] = {
        column: [row for side in sides for row in given[name.format(side)]]
        for column, name in (("logp", "{}_logp"), ("ref_logp", "ref_{}_logp"), ("mask", "{}_mask"))
    }
    columns |= {"group": [*range(pairs)] * 2, "reward": [1.0] * pairs + [0.0] * pairs}
    run = Run(get_method("grpo"), "other", columns, HERE)
    run.recipe = recipe
    # Both rows of a pair carry half of its loss; each is given as a share of the mean over all rows.
    part: Any = recipe.surrogate
    loss = part.rows(run.credited).reshape(2, pairs).sum(0) / 2
    gradient = run.gradient("logp")
    found = {f"dloss_d{side}_logp": gradient[i * pairs :][:pairs] for i, side in enumerate(sides)}
    return {"loss": run.result[0], "loss_per_pair": loss, **found}


GIVEN = {"advantage": _ended}
KEYS = {"score": lambda run: run.shaped.reward}
CASES = {"preference_loss": preference}
