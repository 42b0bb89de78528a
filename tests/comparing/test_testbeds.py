"""Testbeds by name: what each is, and that a run takes its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyopt.comparing.testbeds import TESTBEDS, need_testbed
from policyopt.data import builtin_tasks, need_task
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.training.config import TrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "testbeds.md"


@pytest.mark.parametrize("name", TESTBEDS)
def test_a_testbed_is_a_task_with_options_of_a_run(name: str) -> None:
    bed = need_testbed(name)
    need_task(bed.task)
    assert bed.shows and bed.sound
    nested: dict[str, object] = {}
    for path, value in bed.options.items():
        *above, last = path.split(".")
        inner = nested
        for key in above:
            inner = inner.setdefault(key, {})  # type: ignore[assignment]
        inner[last] = value
    TrainConfig(grpo(), task=bed.task, **nested)  # type: ignore[arg-type]


def test_every_task_of_the_library_is_one_without_options() -> None:
    for task in builtin_tasks():
        bed = need_testbed(task)
        assert not bed.options
        assert bed.task.partition(":")[0] == task.partition(":")[0]
    for task in ("noisy-judge:0.4", "diverse:chain_sum", "requests:countdown"):
        assert (need_testbed(task).task, need_testbed(task).options) == (task, {})


def test_what_is_no_testbed_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no testbed is called 'many-answer'; nearest: many-answers"):
        need_testbed("many-answer")


def test_the_page_of_the_testbeds_has_them_all() -> None:
    rows = {row.split("`")[1] for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| `")}
    assert set(TESTBEDS) <= rows
