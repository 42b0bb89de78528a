"""What the log and the evaluation say of pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.rows import Batch, make_batch
from policyopt.training.metrics import batch_metrics, text_metrics
from policyopt.training.run import run
from tests.training.test_given import config, dpo


def given(**columns: Any) -> Batch:
    """Five texts of one token to two prompts: two to the first, three to the second."""
    logp = torch.tensor([-1.0, -3.0, -2.0, -4.0, -0.5])[:, None]
    own: dict[str, Any] = {
        "mask": torch.ones(5, 1), "group": torch.tensor([7, 7, 2, 2, 2]), "old_logp": logp, "truncated": torch.zeros(5),
        "reward": torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5]),
    }  # fmt: skip
    return make_batch(**own | columns)


def test_pairs_are_all_two_texts_to_a_prompt_that_differ_in_reward() -> None:
    found = text_metrics(given())
    # -1 + 3 in the first group; -2 + 4, -2 + 0.5 and -0.5 + 4 in the second
    assert found["pairs/margin"] == pytest.approx((2 + 2 - 1.5 + 3.5) / 4)
    assert found["pairs/accuracy"] == pytest.approx(3 / 4)
    assert not any(name.startswith(("logp/", "gain/", "length/chosen")) for name in found), "no side was chosen"
    same = text_metrics(given(reward=torch.ones(5)))
    assert not any(name.startswith("pairs/") for name in same)


def test_both_sides_are_told_apart_and_other_origins_left_out() -> None:
    batch = given(
        mask=torch.tensor([[1.0, 1.0], [1, 0], [1, 1], [1, 0], [1, 1]]),
        old_logp=torch.tensor([[-1.0, -1.0], [-3, 0], [-2, -2], [-4, 0], [-9, -9]]),
        ref_logp=torch.tensor([[-2.0, -1.0], [-1, 0], [-2, -3], [-4, 0], [0, 0]]),
        chosen=torch.tensor([1.0, 0, 1, 0, 1]), origin=torch.tensor([0, 0, 0, 0, 1]),
    )  # fmt: skip
    found = text_metrics(batch)
    assert (found["logp/chosen"], found["logp/rejected"]) == (-3, -3.5)
    assert (found["loglik/chosen"], found["loglik/rejected"]) == (-1.5, -3.5)
    assert (found["gain/chosen"], found["gain/rejected"]) == (1, -1)
    assert (found["length/chosen"], found["length/rejected"], found["length/mean"]) == (2, 1, 1.5)
    assert found["pairs/margin"] == 2 and found["pairs/accuracy"] == 0.5 + 0.5 * (1 > 0)
    assert batch_metrics(batch) == found


def test_a_task_with_answers_is_measured_by_what_the_policy_says_too(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "chosen": f"yes {i}", "rejected": "no", "answer": str(i)} for i in range(16)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = config(dpo(), tiny_model, path, tmp_path / "run", steps=2, eval={"prompts": 4, "samples": 2, "k": 2})
    after = run(settings, quiet=True).summary["after"]
    assert {
        "accuracy",
        "length",
        "pass@2",
        "pairs/accuracy",
        "pairs/margin",
        "gain/chosen",
        "logp/rejected",
    } <= after.keys()
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    said = [s["response"] for s in samples if s["phase"] == "after"]
    assert len(said) == 4 and not set(said) & {"no", *(row["chosen"] for row in rows)}, "it was drawn"
    rows_logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "accuracy" not in rows_logged[1] and rows_logged[1]["length/chosen"] > rows_logged[1]["length/rejected"]
