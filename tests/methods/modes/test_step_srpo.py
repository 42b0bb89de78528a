"""The page of Step-SRPO."""

from __future__ import annotations

import torch

from policyopt.methods.modes.step_srpo import JudgedMode, step_srpo
from policyopt.objective import advantages
from policyopt.parts import Normalise
from policyopt.rows import Batch, make_batch


def told(thinks: list[float], reward: list[float], judged: float = 1.0) -> Batch:
    n = len(thinks)
    span = torch.tensor([[judged, 0.0, 0.0]] * n, dtype=torch.float64)
    return make_batch(
        mask=torch.ones(n, 3, dtype=torch.float64),
        reward=torch.tensor(reward, dtype=torch.float64),
        group=torch.zeros(n, dtype=torch.long),
        **{
            "component[thinks]": torch.tensor(thinks, dtype=torch.float64),
            "span[Regex]": span,
            "span[judgement]": span,
        },
    )


def matches(thinks: list[float], reward: list[float]) -> list[float]:
    found: list[float] = JudgedMode().matches(told(thinks, reward)).tolist()
    return found


def test_the_vote_prefers_not_to_think_where_that_is_no_worse() -> None:
    assert matches([1, 1, 0, 0], [1, 1, 1, 0]) == [1, 1, 0, 0]
    assert matches([1, 1, 0, 0], [1, 0, 1, 0]) == [0, 0, 1, 1]
    assert matches([1, 1, 0, 0], [0, 0, 0, 0]) == [0, 0, 1, 1]
    assert matches([1, 1], [0, 0]) == [1, 1], "all chose one mode"
    assert matches([0, 0], [1, 0]) == [1, 1]


def test_where_all_choose_alike_only_the_answer_learns() -> None:
    batch = told([1, 1, 1, 1], [1, 0, 1, 0])
    found = advantages(step_srpo(), batch)
    assert not found[:, 0].any() and (found[:, 1:] != 0).all()


def test_judgement_and_answer_are_apart_but_for_kappa() -> None:
    first, second = told([1, 0, 1, 0], [1, 1, 0, 0]), told([1, 0, 1, 0], [0, 0, 1, 1])
    apart = step_srpo(kappa=0.0)
    a, b = advantages(apart, first), advantages(apart, second)
    assert torch.equal(a[:, 0], b[:, 0]) and not torch.equal(a[:, 1], b[:, 1])
    torch.testing.assert_close(a[:, 1], Normalise()(first)[:, 1])
    assert JudgedMode(kappa=1.0).answered(first).tolist() == [0, 1, 0, 0], "nothing in the wrong mode"


def test_without_a_judgement_it_is_grpo() -> None:
    batch = told([0, 0, 0, 0], [1, 0, 0, 1], judged=0.0)
    torch.testing.assert_close(advantages(step_srpo(), batch), Normalise()(batch))


def test_the_judgement_ends_with_the_mark() -> None:
    judgement, thinking = step_srpo().get("advantage.span"), step_srpo().get("shape.HasSpan.span")
    text = "Easy.\nSo <think_off>\n4"
    assert judgement(text) == [(0, text.index(">") + 1)] and not thinking(text)
    assert thinking("Hard. <think_on>") and judgement("4") == []
