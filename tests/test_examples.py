"""The examples run, and the documents show what they hold."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import policyopt
from tests.commands import lines, write_rows

ROOT = Path(__file__).parent.parent

JUDGE = '''
def never_at_first(prompt, response, answer):
    """Right about every eighth time."""
    good = sum(map(ord, response)) % 8 == 0
    return {"score": float(good), "correct": good}
'''


def test_a_rollout_program_of_ones_own(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ROOT / "examples" / "second_try.py"
    monkeypatch.syspath_prepend(str(source.parent))
    module = importlib.import_module("second_try")
    (tmp_path / "judge.py").write_text(JUDGE)
    task = write_rows(tmp_path / "data.jsonl", ({"prompt": f"{i}?", "answer": "?"} for i in range(32)))
    result = policyopt.train(
        policyopt.methods.grpo(kl_coef=0.0, group_size=4).replace(source=module.SecondTry(size=4)),
        model=str(tiny_model), task=str(task), judge=f"{tmp_path / 'judge.py'}:never_at_first", steps=3, batch=16,
        max_tokens=8, device="cpu", out=tmp_path / "run", log_samples=100, quiet=True,
    )  # fmt: skip
    steps = [row for row in lines(result.out / "metrics.jsonl") if row["step"]]
    assert sum(row["rollout/tried_again"] for row in steps if "rollout/tried_again" in row) > 0
    for row in steps:
        assert row["responses"] == 16 + 4 * row.get("rollout/tried_again", 0)

    [shown] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "rollouts.md").read_text(), re.DOTALL)
    without = re.sub(r"  # .*", "", source.read_text())
    assert shown in without


def test_dpo_by_hand(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    module = importlib.import_module("dpo_by_hand")
    task = module.write_pairs(tmp_path / "pairs.jsonl", 40)
    result = policyopt.train(
        module.recipe(), model=str(tiny_model), task=str(task), steps=10, batch=16, max_tokens=16, device="cpu",
        out=tmp_path / "run", optim={"lr": 1e-3}, eval={"samples": 0}, quiet=True,
    )  # fmt: skip
    margins = [row["pairs/margin"] for row in lines(result.out / "metrics.jsonl") if row["step"]]
    assert abs(margins[0]) < 1e-3 and margins[-1] > 0.1
    assert {"pairs/margin", "pairs/accuracy", "loglik"} <= result.summary["after"].keys()


def test_two_judges(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    module = importlib.import_module("two_judges")
    result = module.train(
        module.write_sums(tmp_path / "sums.jsonl", 32), model=str(tiny_model), steps=2, batch=16, max_tokens=8, device="cpu",
        out=tmp_path / "run", eval={"samples": 0, "prompts": 4}, log_samples=100, quiet=True,
    )  # fmt: skip
    steps = [row for row in lines(result.out / "metrics.jsonl") if row["step"]]
    assert all(0 < row["component/brief"] <= 1 and "component/correct" in row for row in steps)
    for row in lines(result.out / "samples.jsonl"):
        assert row["score"] == pytest.approx(row["correct"] + 0.2 / (1 + len(row["response"]) / 20), abs=1e-6)
    assert f"brief={module.__name__}:brief:0.2" in (result.out / "config.yaml").read_text()
