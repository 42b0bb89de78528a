"""The page of ARM."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.modes.arm_ada_grpo import RareModes, arm_ada_grpo
from policyopt.objective import advantages
from policyopt.parts import Normalise, Regex
from policyopt.rows import Batch, make_batch
from policyopt.steering import States, control

SPANS = (Regex("a", label="a"), Regex("b", label="b"))


def told(modes: str, reward: list[float], group: list[int] | None = None) -> Batch:
    """A letter for each row: the mode, ``x`` for both at once, ``-`` for none."""
    n = len(modes)
    spans = {f"span[{name}]": torch.tensor([[float(m in (name, "x"))] for m in modes]).double() for name in "ab"}
    return make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        reward=torch.tensor(reward, dtype=torch.float64),
        group=torch.tensor(group or [0] * n),
        **spans,
    )


def test_a_rare_mode_is_paid_more_and_a_wrong_answer_never() -> None:
    batch = told("aaab", [1, 0, 1, 1])
    assert RareModes(spans=SPANS)(batch).reward.tolist() == pytest.approx([4 / 3, 0, 4 / 3, 4])
    assert RareModes(spans=SPANS, extra=0.5)(batch).reward.tolist() == pytest.approx([7 / 6, 0, 7 / 6, 2.5])
    assert torch.equal(RareModes(spans=SPANS, extra=0.0)(batch).reward, batch.reward)
    mode = Normalise()(RareModes(spans=SPANS)(batch))[:, 0]
    assert mode[3] > 0 > mode[0], "a right answer in the usual mode may have less than the mean"


def test_one_mode_for_all_is_grpo_and_prompts_are_apart() -> None:
    assert RareModes(spans=SPANS).factor(told("aaabbb", [1] * 6, [0, 0, 0, 1, 1, 1])).tolist() == [1] * 6
    assert RareModes(spans=SPANS).factor(told("abab", [1] * 4, [0, 0, 1, 1])).tolist() == [2] * 4


def test_no_mode_and_several_are_one_unknown_mode_that_is_worth_nothing() -> None:
    batch = told("ax-b", [1, 1, 1, 1])
    assert RareModes(spans=SPANS).mode(batch).tolist() == [1, 0, 0, 2]
    assert RareModes(spans=SPANS).factor(batch).tolist() == [4, 2, 2, 4]
    assert RareModes(spans=SPANS)(batch).reward.tolist() == [4, 0, 0, 4]
    untaught = told("----", [1, 0, 1, 0])
    assert torch.equal(RareModes(spans=SPANS)(untaught).reward, untaught.reward)


def test_the_bonus_falls_to_nothing_over_the_run() -> None:
    recipe, states, extra = arm_ada_grpo(decay_steps=4), States(), []
    for _ in range(7):
        recipe = control(recipe, {}, states)
        extra.append(recipe.get("shape.RareModes.extra"))
    assert extra == sorted(extra, reverse=True)
    assert extra[:3] == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5]) and extra[4:] == [0, 0, 0]
    names = [span.column for span in arm_ada_grpo().spans]
    batch = told("ab", [1, 0]).replace(**{name: torch.ones(2, 1).double() for name in names})
    torch.testing.assert_close(advantages(recipe, batch), Normalise()(batch))
