"""The page of UI-R1."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policyopt.items import Example, user
from policyopt.judging.boxes import action_of, box_of, done_right, judge_action
from policyopt.judging.judges import judge_spec, make_judge
from policyopt.methods.agents.ui_r1 import DifficultyAdaptiveLength, ui_r1
from policyopt.objective import shaped
from policyopt.rows import make_batch

SAID = "<think>there</think><answer>[{'action': 'click', 'coordinate': [15, 25]}]</answer>"
BOX = (10, 20, 30, 40)


def gains(lengths: list[int], right: list[float]) -> list[float]:
    n = len(lengths)
    word = torch.tensor(right)
    batch = make_batch(
        mask=torch.ones(n, 1), group=torch.zeros(n, dtype=torch.long), reward=torch.zeros(n),
        true_length=torch.tensor(lengths).float(), correct=word, formatted=torch.ones(n),
    )  # fmt: skip
    found: list[float] = DifficultyAdaptiveLength()(batch).reward.tolist()
    return found


def test_a_wrong_kind_of_action_has_at_most_the_point_for_the_form() -> None:
    assert done_right("scroll", (15, 25), "click", BOX) == (0, 0)
    assert done_right("scroll", (0, 0), "scroll", BOX) == (1, 1), "what is no click has no place"
    assert judge_action("", SAID, "click", BOX)["score"] == 3
    assert judge_action("", SAID, "scroll", BOX)["score"] == 1
    assert judge_action("", SAID + " so", "click", BOX)["score"] == 2


def test_a_point_is_cut_to_pixels_of_the_picture_of_the_box() -> None:
    assert done_right("click", (15, 27.3), "click", BOX, (1, 1.5)) == (1, 1)
    assert done_right("click", (15, 27.4), "click", BOX, (1, 1.5)) == (1, 0), "41.1 is pixel 41"


def test_right_and_short_gains_most_and_wrong_and_short_loses_most() -> None:
    short, long, brief, wordy = gains([10, 40, 10, 40], [1, 1, 0, 0])
    assert short > long >= 0.1
    assert brief < wordy <= -0.1


def test_the_budget_is_the_mean_length_where_all_are_right_and_the_longest_where_none_is() -> None:
    assert gains([10, 30, 20], [1, 1, 1])[2] == pytest.approx(0.5)
    assert gains([10, 30, 20], [0, 0, 0]) == pytest.approx([-0.9 * 2 / 3 - 0.1, -0.1, -0.9 / 3 - 0.1])


def test_a_judge_without_parts_keeps_its_score() -> None:
    batch = make_batch(mask=torch.ones(2, 1), reward=torch.tensor([0.25, 0.5]), formatted=torch.ones(2))
    assert shaped(ui_r1(), batch).reward.tolist() == [0.25, 0.5]


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    action_of(text), box_of(text)
    judge_action("", text, "click", BOX)


def test_the_judges_can_be_named_and_read_their_columns_of_the_row() -> None:
    row = Example("a", user("?"), "click", meta={"box": list(BOX), "width": 100, "height": 100})
    said = make_judge(judge_spec("policyopt.judging.boxes:judge_action", {}))(row, SAID)
    assert (said.score, said.correct, said.formatted, dict(said.parts)) == (3, True, True, {"kind": 1, "place": 1})
    found = make_judge(judge_spec("policyopt.judging.boxes:judge_box", {}))(row, "[10, 20, 30, 40]")
    assert found.correct and dict(found.parts) == {"hit": 1, "iou": 1, "size": 1, "area": pytest.approx(0.04)}
