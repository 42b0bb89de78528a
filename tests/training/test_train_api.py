"""Training from Python: three lines, a part and a recipe of one's own, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import policyopt as po
from policyopt.errors import UserError
from policyopt.part import Advantage, Positive, Unit, part
from policyopt.parts import LogProb, Normalise, TokenMean, TokenRatio
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.training.result import Result
from tests.commands import lines, write_sums

QUICK: dict[str, Any] = {"steps": 2, "batch": 8, "max_tokens": 8, "eval": {"prompts": 3, "samples": 0}, "quiet": True}


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_sums(tmp_path / "sums.jsonl")


def test_three_lines(tiny_model: Path, sums: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = po.train(po.methods.grpo(group_size=4), model=tiny_model, task=sums, **QUICK)
    assert capsys.readouterr() == ("", ""), "quiet"
    assert isinstance(result, Result)
    assert result.out == Path("runs/grpo-sums-seed0")
    assert result.summary == json.loads((result.out / "summary.json").read_text())
    assert (result.summary["method"], result.summary["steps"], result.summary["stopped"]) == ("grpo", 2, "finished")
    saved = AutoModelForCausalLM.from_pretrained(result.out / "model").state_dict()
    mine = result.policy.model.state_dict()
    assert all(torch.equal(saved[name], mine[name]) for name in saved)
    ids = result.policy.tokenizer("2+2", return_tensors="pt").input_ids
    assert result.policy.model(ids).logits.isfinite().all()


def test_the_same_call_gives_the_same_result(tiny_model: Path, sums: Path) -> None:
    def train(seed: int) -> dict[str, Tensor]:
        recipe = po.methods.rloo(group_size=4)
        return po.train(
            recipe, model=tiny_model, task=sums, seed=seed, optim={"lr": 1e-3}, **QUICK
        ).policy.model.state_dict()

    state = torch.random.get_rng_state()
    first, second, other = train(0), train(0), train(1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers are left alone"


def test_inside_a_running_event_loop(tiny_model: Path, sums: Path) -> None:
    async def notebook() -> Result:
        return po.train(po.methods.remax(group_size=4), model=tiny_model, task=sums, **QUICK)

    assert asyncio.run(notebook()).summary["steps"] == 2


def test_resume(tiny_model: Path, sums: Path) -> None:
    settings = {"model": tiny_model, "task": sums, **QUICK}
    recipe = po.methods.grpo(group_size=4)
    whole = po.train(recipe, **settings | {"steps": 4}, out="whole")
    part = po.train(recipe, **settings, out="part")
    again = po.train(recipe, **settings | {"steps": 4}, resume=str(part.out))
    assert again.out == Path("part")
    assert again.summary["steps"] == 4
    mine, theirs = again.policy.model.state_dict(), whole.policy.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


# A part and a recipe of one's own ------------------------------------------------------------------------------------


@part
class Ranked(Advantage):
    """The share of responses to the same prompt that score less, minus the share that score more, times ``gain``."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    gain: Positive = 1.0
    """How strong."""

    def __call__(self, batch: Batch) -> Tensor:
        same = (batch.group[:, None] == batch.group).to(batch.reward)
        order = (batch.reward[:, None] - batch.reward).sign()
        rank = (same * order).sum(1) / same.sum(1)
        return self.gain * rank[:, None] * batch.mask


def test_a_part_and_a_recipe_of_ones_own(tiny_model: Path, sums: Path) -> None:
    Path("judge.py").write_text("def length(prompt, response, answer): return len(response)\n")
    recipe = Recipe(
        source=Group(size=4),
        advantage=Ranked(gain=2.0),
        surrogate=LogProb(),
        aggregate=TokenMean(),
        ratio=TokenRatio(),
        name="ranked",
    )
    settings = {"model": tiny_model, "task": sums, "judge": "judge.py:length", "log_samples": 99, **QUICK}
    result = po.train(recipe, **settings)
    assert result.out.name == "ranked-sums-seed0"
    rows = [row for row in lines(result.out / "samples.jsonl") if row["phase"] == "train" and row["step"] == 1]
    share = 1 / sum(row["length"] for row in rows)
    for start in (0, 4):
        group = rows[start : start + 4]
        for row in group:
            better = sum(row["reward"] > other["reward"] for other in group)
            worse = sum(row["reward"] < other["reward"] for other in group)
            assert row["weights"] == pytest.approx([2.0 * (better - worse) / 4 * share] * row["length"], rel=1e-3)
    assert any(row["weights"][0] > 0 for row in rows)
    again = po.train(recipe, **settings | {"steps": 3}, resume=result.out)
    assert again.summary["steps"] == 3, "the part is found again by its name"


def test_a_recipe_made_from_another(tiny_model: Path, sums: Path) -> None:
    recipe = po.methods.grpo(group_size=4, kl_coef=0.0).replace(
        advantage=Normalise(centre="group", scale="none"), name="mine"
    )
    assert po.train(recipe, model=tiny_model, task=sums, **QUICK).summary["method"] == "mine"


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stpes": 3}, "no field is called 'stpes'; nearest: steps"),
        ({"steps": 0}, "steps: expected at least 1, not 0"),
        ({"steps": "many"}, "steps: expected a whole number, not 'many'"),
        ({"optim": {"lrr": 1}}, "optim.lrr: there is no such field"),
        ({"optim": 3}, "optim: expected Optim"),
        ({"batch": 9}, "batch is 9 responses, which is not a multiple of recipe.source.size"),
        ({"model": 7}, "model: expected text, not 7"),
        ({"task": "chan_sum"}, "no task is called 'chan_sum'; nearest: chain_sum"),
        ({"recipe": po.methods.grpo}, "recipe: expected Recipe"),
        ({"resume": "nowhere"}, "--resume nowhere: no run lies there"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = settings.pop("recipe", None) or po.methods.grpo()
    with pytest.raises(UserError) as caught:
        po.train(recipe, **settings)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# Without training ----------------------------------------------------------------------------------------------------


def test_measuring_and_reading_a_model(tiny_model: Path, sums: Path) -> None:
    scores = po.evaluate(model=str(tiny_model), task=str(sums), prompts=3, samples=2, k=1, max_tokens=8)
    assert scores.summary["n"] == 3
    assert len(scores.records) == 3
    found = po.sample(model=str(tiny_model), task=str(sums), questions=2, n=3, max_tokens=8, temperature=0.0)
    assert [len(one["responses"]) for one in found] == [3, 3]
    greedy = {row["prompt"]: row["response"] for row in scores.records}
    for one in found:
        texts = {response["response"] for response in one["responses"]}
        assert texts == {greedy[one["prompt"]]}
        assert all(isinstance(response["score"], float) and response["reason"] for response in one["responses"])
    own = po.sample(model=str(tiny_model), task=str(sums), prompt="2+2", max_tokens=8)
    assert own[0]["prompt"] == "2+2"
    assert own[0]["responses"][0]["score"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"samples": 2, "k": 3}, "--k 3"), ({"samples": 2, "k": 0}, "--k 0"), ({"prompts": 0}, "at least 1")],
)
def test_numbers_of_an_evaluation(settings: dict[str, Any], message: str, tiny_model: Path, sums: Path) -> None:
    with pytest.raises(UserError, match=message):
        po.evaluate(model=str(tiny_model), task="chain_sum", **settings)
