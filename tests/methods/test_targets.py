"""Targets of likelihood beside the responses, and guides that write a part of them: ExPO, GRAO, RLGF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.methods.guidance.rlgf import rlgf
from policyopt.methods.target.expo import expo
from policyopt.methods.target.grao import grao
from policyopt.objective import credit
from policyopt.parts import FromProgram, Likelihood, OwnTokens, SeqMeanTokenMean
from policyopt.recipe import Recipe
from policyopt.rows import join
from policyopt.sources.program import Response
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.rows import to_batch
from policyopt.training.run import run
from tests.batches import gradients, poisoned, random_batch, ready
from tests.cases.words._scripted import verdict
from tests.commands import lines, write_rows
from tests.engine.test_local import assert_same_for_any_partition, drawn, engine_of
from tests.methods.shared_targets import SOURCE, main, main_mask, with_guide, with_targets

# Shares -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [expo, grao, rlgf])
@pytest.mark.parametrize("seed", range(2))
def test_neither_padding_nor_the_order_of_rows_is_of_account(make: Any, seed: int) -> None:
    recipe: Recipe = make()
    batch = with_guide(seed) if recipe.critic else with_targets(seed)
    loss, found = gradients(recipe, ready(recipe, batch))
    for poison in (float("nan"), 1e6):
        wide = poisoned(batch, poison, extra=2)
        again, g = gradients(recipe, ready(recipe, wide))
        torch.testing.assert_close(again, loss)
        torch.testing.assert_close(g["logp"][:, :6], found["logp"])
        assert not g["logp"][:, 6:].any()
    order = torch.tensor([9, 2, 0, 5, 1, 3, 4, 7, 6, 8])
    again, g = gradients(recipe, ready(recipe, batch[order]))
    torch.testing.assert_close(again, loss)
    for leaf in ("logp", "value"):
        torch.testing.assert_close(g[leaf], found[leaf][order])


@pytest.mark.parametrize("make", [expo, grao, rlgf])
def test_any_micro_batches_give_the_same_gradient(make: Any, tiny_model: Path) -> None:
    recipe: Recipe = make()
    engine = engine_of(tiny_model, recipe)
    batch = drawn(engine, recipe).replace(origin=torch.tensor([0, 0, 1, 0, 0, 0, 1]))
    if recipe.critic:
        guide = torch.zeros_like(batch.mask)
        guide[1, 4:] = guide[4, 0:] = 1
        batch = batch.replace(guided=guide * batch.mask)
    assert_same_for_any_partition(engine, recipe, credit(recipe, batch))


def test_targets_have_no_share_and_count_in_no_denominator() -> None:
    batch = with_targets()
    share = OwnTokens(inner=SeqMeanTokenMean())(batch)
    torch.testing.assert_close(share[SOURCE == 0], SeqMeanTokenMean()(main(batch)), rtol=0, atol=0)
    assert not share[SOURCE == 1].any()
    assert OwnTokens()(batch).sum() == pytest.approx(1)
    torch.testing.assert_close(OwnTokens()(batch.replace(origin=None)), batch.mask / batch.mask.sum())
    assert OwnTokens()(batch[SOURCE == 1]).sum() == 0, "nothing but targets"
    guided = with_guide()
    assert ((OwnTokens()(guided) > 0) == (main_mask(guided) * (1 - guided.guided) > 0)).all()


@pytest.mark.parametrize("mean", ["token", "prompt"])
def test_the_likelihood_of_no_rows_is_nothing(mean: Any) -> None:
    part = Likelihood(rows=FromProgram(main=False), mean=mean)
    assert part(random_batch()) == 0
    assert part(with_targets()[torch.zeros(10, dtype=torch.bool)]) == 0
    empty = with_targets(lengths=(2, 2, 2, 0, 2, 3, 2, 2, 0, 0))
    assert part(empty).isfinite() and part(empty) > 0


def test_a_guide_in_one_round_alone() -> None:
    response = Response([1, 2], [-1.0] * 2, [0.0] * 2, "eos")
    marked = Response([1, 2, 3], [-1.0] * 3, [0.0] * 3, "eos", guided=[False, True, True])
    one, two = (to_batch([(5,)], [r], [verdict(1.0)], [i], 4) for i, r in enumerate((response, marked)))
    both = join([one, two])
    assert both.guided.tolist() == [[0, 0, 0], [0, 1, 1]]
    assert both.own().tolist() == [[1, 1, 0], [1, 0, 0]]
    assert join([one, one]).guided is None


# Whole steps --------------------------------------------------------------------------------------------------------

JUDGE = """
def three(prompt, response, answer):
    return {"score": len(response) / 10, "correct": response.endswith("#### 3")}
"""


@pytest.mark.parametrize("recipe", [rlgf("aggrevated"), rlgf("d2lols", tau=1), expo(sft_coef=0.1, anneal_steps=2)])
def test_steps_with_guides_and_targets(recipe: Recipe, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    rows = ({"prompt": f"{i}?", "answer": "3", "solution": "1+2\n#### 3"} for i in range(32))
    config = TrainConfig(
        recipe=recipe, model=str(tiny_model), steps=2, batch=8 * recipe.source.size, max_tokens=12, device="cpu",
        teacher=str(tiny_model) if "teacher" in recipe.roles else None, out=tmp_path / "run",
        task=str(write_rows(tmp_path / "data.jsonl", rows)), judge=f"{tmp_path / 'judge.py'}:three",
        optim=Optim(lr=1e-3), eval=Evaluation(prompts=4, samples=0), log_samples=100, checkpoints=Checkpoints(keep=1),
    )  # fmt: skip
    out = run(config, quiet=True).out
    for row in (row for row in lines(out / "metrics.jsonl") if row["step"]):
        assert row["grad_norm"] > 0 and row["update/skipped"] == 0 and row["mismatch/max"] < 1e-4
    trained = [row for row in lines(out / "samples.jsonl") if row["phase"] == "train" and row["step"] == 1]
    targets = [row for row in trained if row["response"].endswith("#### 3")]
    assert len(targets) == 8, "one for each prompt"
    assert all(w > 0 for row in targets for w in row["weights"])
