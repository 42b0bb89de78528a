"""The page of spo-segment."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from policyopt.engine.local import LocalSampler
from policyopt.items import Verdict
from policyopt.methods.tree.spo_segment import Chain, Unlikely, cutpoints, spo_segment
from policyopt.objective import credit, selected
from policyopt.parts import EdgeAdvantage, MeanOver
from policyopt.sources.program import Response
from policyopt.training.config import Checkpoints
from policyopt.training.run import run as training_run
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_trees import assert_tree, draw, judge, prompt
from tests.runs import lines, tiny_run
from tests.tiny import write_task


def test_chains_are_cut_at_uncertain_tokens_and_valued_by_fresh_continuations(endless: LocalSampler) -> None:
    assert cutpoints([-0.9, -0.01, -0.5, -2.0, -0.2], 0.9, 2) == [0, 3]
    assert cutpoints([-0.01] * 4, 0.9, 1) == []
    rollout = Chain(size=2, interval=4, samples=3, threshold=0.5)
    [rows] = draw(rollout, endless, prompt(budget=12))
    for r in rows:
        assert r.ends == [*cutpoints(r.logp, 0.5, 4), 12] and len(r.values) == len(r.nodes) == len(r.ends)
        assert r.values[:-1] == [0.0] * (len(r.ends) - 1), "what does not end is worth nothing"
        assert math.isnan(r.values[-1])
    assert_tree(rows)


def test_chain_values_are_means_of_verdicts(sampler: LocalSampler) -> None:
    asked: list[Response] = []

    async def noting(responses: Sequence[Response]) -> list[Verdict]:
        asked.extend(responses)
        return await judge(responses)

    [rows] = draw(Chain(size=1, interval=2, samples=4), sampler, prompt(by=noting))
    cuts, at = rows[0].ends[:-1], 0
    assert cuts
    for cut, value in zip(cuts, rows[0].values, strict=False):
        mine, at = asked[at : at + 4], at + 4
        assert all(r.tokens[:cut] == rows[0].tokens[:cut] for r in mine)
        assert value == sum(r.finished and sum(r.tokens) % 2 for r in mine) / 4
    assert at == len(asked)


# SPO's loss ----------------------------------------------------------------------------------------------------------


def test_sure_tokens_have_no_gradient_and_are_not_counted() -> None:
    recipe = spo_segment(prob_threshold=0.5, kl_coef=0.0)
    batch = ready(recipe, random_batch())
    unsure = (batch.old_logp.exp() < 0.5) & batch.mask.bool()
    loss, got = gradients(recipe, batch)
    assert (~unsure & batch.mask.bool()).any(), "the batch has sure tokens"
    assert not got["logp"][~unsure].any()
    ratio = (batch.logp - batch.old_logp).exp()
    each = torch.maximum(-ratio * batch.advantage, -ratio.clamp(0.8, 1.2) * batch.advantage)
    torch.testing.assert_close(loss, each[unsure].mean())


def test_edges_of_a_tree_count_once() -> None:
    recipe = spo_segment("tree", prob_threshold=2.0, widths=(2, 2), kl_coef=0.0)
    node, end = torch.tensor([[1, 2], [1, 3], [4, 5], [4, 6]]), torch.tensor([[3, 6]] * 4)
    batch = random_batch(groups=(4,), lengths=(6,) * 4).replace(node=node, node_end=end)
    old = batch.old_logp.clone()
    old[1, :3], old[3, :3] = old[0, :3], old[2, :3]
    batch = batch.replace(
        old_logp=old, logp=old, reward=torch.tensor([1.0, 0.0, 0.0, 0.0]).double(), truncated=old[:, 0] * 0
    )
    loss, got = gradients(recipe, ready(recipe, batch))
    # six edges of three tokens, of which the two below the second node add nothing: twelve tokens count
    assert float(loss) == pytest.approx(-(0.25 - 0.25 + 0.5 - 0.5) / 4)
    assert float(got["logp"][0, 4]) == pytest.approx(-0.5 / 12)
    assert float(got["logp"][1, 5]) == pytest.approx(0.5 / 12)
    assert float(got["logp"][:2, 1].sum()) == pytest.approx(-0.25 / 12), "two rows share what one edge weighs"
    assert not got["logp"][2:, 3:].any()


def test_whitened_edges_and_bad_fields() -> None:
    batch = random_batch()
    part = EdgeAdvantage(only=Unlikely(threshold=0.8), whiten=True)
    found = part(batch)
    kept = Unlikely(threshold=0.8)(batch)
    assert float(found[kept].mean()) == pytest.approx(0, abs=1e-12)
    assert float(found[kept].var(correction=0)) == pytest.approx(1, abs=1e-6)
    assert not found[~kept].any()
    none = MeanOver(tokens=Unlikely(threshold=1e-9))(batch.mask, batch)
    assert not none.any(), "a batch without such a token has no loss, and no division by 0"
    with pytest.raises(ValidationError):
        Unlikely(threshold=0.0)
    with pytest.raises(ValidationError):
        Chain(interval=0)


# SPO's replay --------------------------------------------------------------------------------------------------------


def test_edges_have_their_turn_once() -> None:
    recipe = spo_segment("tree", prob_threshold=2.0, widths=(2, 2), edges=2, kl_coef=0.0)
    assert recipe.update.replay == 7
    node, end = torch.tensor([[1, 2], [1, 3], [4, 5], [4, 6]] * 2), torch.tensor([[3, 6]] * 8)
    batch = random_batch(groups=(4, 4), lengths=(6,) * 8)
    batch = batch.replace(node=node, node_end=end, reward=torch.tensor([1.0, 0, 0, 0, 1, 0.5, 0, 1]).double(), age=None)
    whole = credit(recipe.set("advantage.per_prompt", None), batch).advantage
    seen, order = torch.zeros_like(whole), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    for age in range(4):
        turned = batch.replace(age=torch.full((8,), age))
        found = credit(recipe, turned).advantage
        torch.testing.assert_close(credit(recipe, turned[order]).advantage, found[order], rtol=0, atol=0)
        torch.testing.assert_close(credit(recipe, turned[batch.group == 1]).advantage, found[batch.group == 1])
        live = [{(int(node[i, t // 3]), t // 3) for i in rows for t in range(6) if found[i, t]} for rows in (range(4), range(4, 8))]  # fmt: skip
        assert [len(edges) for edges in live] == ([2, 2] if age < 2 else [0, 2] if age == 2 else [0, 0])
        assert not (seen * found).any(), "none has two turns"
        seen = seen + found
    torch.testing.assert_close(seen, whole)
    first = batch.replace(age=torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(credit(recipe, first).advantage, credit(recipe, batch).advantage)
    other = credit(recipe, batch.replace(noise=batch.noise.flip(0))).advantage
    assert not torch.equal(other, credit(recipe, batch).advantage), "which are first is random"
    chosen = selected(recipe, credit(recipe, batch))
    assert torch.equal(chosen, (credit(recipe, batch).advantage != 0).any(1))


def test_replayed_edges_train(tmp_path: Path, tiny_model: Path) -> None:
    recipe = spo_segment("tree", widths=(2, 2), segment=3, edges=1, replay=2)
    task = write_task(tmp_path / "task")
    config = tiny_run(tmp_path / "run", tiny_model, task, recipe, steps=4, checkpoints=Checkpoints(every=1, keep=9))
    training_run(config, quiet=True)
    rows = [row for row in lines(tmp_path / "run" / "metrics.jsonl") if row["step"]]
    assert all(row["update/count"] == 1 and row["grad_norm"] > 0 for row in rows)
    [last] = tmp_path.glob("run/model/model.safetensors")
    weights = last.read_bytes()
    for step in (3, 4):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step:06d}")
    training_run(config, resume=tmp_path / "run", quiet=True)
    assert last.read_bytes() == weights, "a resumed run replays the same edges"
