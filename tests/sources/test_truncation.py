"""Which tokens a truncated draw is from."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from policyopt.capability import asks_of, refuse_missing
from policyopt.engine.local import LocalEngine
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.recipe import recipe_from_dict
from policyopt.sources.draw import Group
from policyopt.sources.truncation import BOUND, Truncation, left


def kept(p: list[float], truncation: Truncation) -> int:
    """How many of some probabilities in falling order are left, one filter after the other, normalised in between."""
    for keep in (
        lambda q: [x for x in q if x >= truncation.min_p * q[0]],
        lambda q: q[: truncation.top_k],
        lambda q: q[: next(i for i in range(1, len(q) + 1) if sum(q[:i]) >= truncation.top_p - 1e-9 or i == len(q))],
    ):
        p = keep([x / sum(p) for x in p])
    return len(p)


P = [0.4, 0.3, 0.15, 0.1, 0.05]


@pytest.mark.parametrize(
    ("truncation", "count"),
    [
        (Truncation(top_p=0.69), 2), (Truncation(top_p=0.71), 3), (Truncation(top_p=0.1), 1), (Truncation(top_p=1.0), 5),
        (Truncation(top_k=3), 3), (Truncation(top_k=9), 5), (Truncation(min_p=0.2), 4), (Truncation(min_p=1.0), 1),
        # 0.7 of the three likeliest, whose mass is 0.85: two are enough, of all five they would not be
        (Truncation(top_p=0.8, top_k=3), 2), (Truncation(top_p=0.75, min_p=0.3), 2), (Truncation(top_p=0.75), 3),
    ],
)  # fmt: skip
def test_each_bound_is_over_what_the_one_before_has_left(truncation: Truncation, count: int) -> None:
    assert kept(P, truncation) == count
    bounds = torch.tensor([[truncation.min_p, truncation.top_k or BOUND + 1, truncation.top_p]], dtype=torch.float64)
    assert left(torch.tensor([P], dtype=torch.float64), *bounds.T).tolist() == [[i < count for i in range(5)]]


def test_rows_have_bounds_of_their_own() -> None:
    bounds = torch.tensor([[0.0, 2, 1.0], [0.0, BOUND + 1, 0.95], [0.5, BOUND + 1, 1.0]])
    assert left(torch.tensor([P] * 3), *bounds.T).sum(1).tolist() == [2, 4, 2]


@pytest.mark.parametrize("wrong", [{"top_p": 0.0}, {"top_p": 1.1}, {"top_k": 0}, {"top_k": BOUND + 1}, {"min_p": -0.1}])
def test_a_bound_out_of_its_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Group(**wrong)


def test_an_engine_that_cannot_is_told_by_name() -> None:
    source = Group(size=4, top_p=0.9)
    assert "truncated draws" not in asks_of(Group(size=4))
    recipe = grpo(group_size=4).replace(source=source)
    assert recipe_from_dict(recipe.to_dict()).source == source
    with pytest.raises(UserError, match=r"'truncated draws' .source Group"):
        refuse_missing("grpo", recipe.asks, LocalEngine.capabilities - {"truncated draws"}, "other")
