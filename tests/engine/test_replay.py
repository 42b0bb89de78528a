"""Routing replay: the trainer's experts are those that a token went to as it was drawn, whatever happens in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from policyopt.capability import CAPABILITIES
from policyopt.engine import check_engine
from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.engine.local.flight import Flight
from policyopt.engine.local.level import Level, Whole
from policyopt.errors import UserError
from policyopt.methods.exit.s_grpo import s_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.guidance.prefix_rl import prefix_rl
from policyopt.methods.ratio.minirl import minirl
from policyopt.methods.tree.arpo_agentic import arpo_agentic
from policyopt.methods.tree.rest_rl import rest_rl
from policyopt.models.adapters import LoRA
from policyopt.models.load import Policy
from policyopt.objective import credit, shaped
from policyopt.recipe import Recipe
from policyopt.rows import Batch, join
from policyopt.sources.program import Response
from policyopt.training.config import Evaluation
from policyopt.training.run import run
from tests.commands import write_rows
from tests.engine.test_truncated import PROMPTS, batch_of
from tests.runs import assert_same_end, left_behind, power_cut, tiny_run
from tests.tiny import ENDS, JUDGE, load_tiny, save_tiny_moe, write_task


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_moe(tmp_path_factory.mktemp("moe") / "model")


def replayed(recipe: Recipe, how: str = "sampler") -> Recipe:
    return recipe.replace(source=dataclasses.replace(recipe.source, routing_replay=how))


def recorder(policy: Policy) -> LocalSampler:
    split = policy.likelihood()
    return LocalSampler(split, policy.eos, routers=split.routers)


def draw(sampler: LocalSampler, **how: Any) -> list[list[Response]]:
    asked = {"n": 4, "max_tokens": 12} | how
    return sampler.run([sampler.generate(p, key=(1, i), **asked) for i, p in enumerate(PROMPTS)])


def move(policy: Policy, size: float = 0.02) -> None:
    """Other weights, which send many tokens to other experts."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(size * torch.randn(p.shape, generator=g).to(p))


def logp(policy: Policy, batch: Batch, **changes: Any) -> Tensor:
    with torch.no_grad():
        return dataclasses.replace(policy.likelihood(), **changes).leaves(batch)["logp"]


def unlike(a: Tensor, b: Tensor, experts: int = 2) -> int:
    """How many tokens have another set of experts in one layer or more, among those with a record in both."""
    width = min(a.shape[1], b.shape[1])
    one, other = (x[:, :width].long().view(len(x), -1, 3, experts).sort(-1).values for x in (a, b))
    return int(
        ((one != other).flatten(2).any(-1) & (one > 0).flatten(2).all(-1) & (other > 0).flatten(2).all(-1)).sum()
    )


@pytest.mark.parametrize("kind", [Flight, Level, Whole])
def test_every_way_of_decoding_records_what_the_model_chooses(kind: Any, moe: Path) -> None:
    policy = load_tiny(moe)
    sampler = recorder(policy)
    sampler.stepper = kind(sampler.split, sampler.device, 3, sampler.routers)
    groups = draw(sampler)
    batch = batch_of(groups)
    lengths = [len(PROMPTS[i]) + len(r.tokens) - 1 for i, group in enumerate(groups) for r in group]
    assert [int((row > 0).sum()) for row in batch.routes] == [6 * n for n in lengths], "all but what is never read"
    found = policy.likelihood().choices(batch)[:, : batch.routes.shape[1]]
    assert torch.equal(torch.where(batch.routes > 0, found, 0), batch.routes)
    assert batch.routes.dtype == torch.uint8


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)], ids=["whole", "lora"])
def test_replay_is_exact_and_a_wrong_record_is_not(lora: LoRA | None, moe: Path) -> None:
    policy = load_tiny(moe, lora=lora)
    batch = batch_of(draw(recorder(policy)))
    assert (logp(policy, batch) - batch.old_logp).abs().max() < 1e-6
    shifted = batch.replace(routes=batch.routes.roll(6, 1))  # the experts of the token before
    assert (logp(policy, shifted) - batch.old_logp).abs().max() > 0.01

    move(policy)
    free = policy.likelihood().choices(batch)
    assert unlike(free, batch.routes) > 5
    mine = logp(policy, batch)
    assert (mine - logp(policy, batch.replace(routes=None))).abs().max() > 0.01
    for pads in (True, False):
        assert torch.allclose(logp(policy, batch, packs=0, pads=pads), mine, atol=1e-5)


def test_prompts_with_other_records_are_other_prompts(moe: Path) -> None:
    """Batches that are trained on again were drawn by other weights."""
    policy = load_tiny(moe)
    old = batch_of(draw(recorder(policy)))
    move(policy)
    new = batch_of(draw(recorder(policy), max_tokens=5))
    both = join([new, old])
    expected = torch.nn.functional.pad(logp(policy, new, packs=0), (0, both.mask.shape[1] - new.mask.shape[1]))
    assert unlike(old.routes[:, :18], new.routes[:, :18]) > 0, "tokens of prompts"
    assert torch.allclose(logp(policy, both), torch.cat([expected, logp(policy, old, packs=0)]), atol=1e-5)
    beside = join([new, old.replace(routes=None)])
    assert torch.allclose(logp(policy, beside)[len(new) :], logp(policy, old.replace(routes=None)), atol=1e-5)


def test_the_gradient_is_the_same_for_any_split_and_moves_the_routers(moe: Path) -> None:
    recipe, gradients = replayed(minirl(group_size=4)), []
    for micro_batch, packs in ((None, 1 << 30), (3, 0)):
        policy = load_tiny(moe)
        engine = LocalEngine(policy, recipe, micro_batch=micro_batch)
        engine.likelihood = dataclasses.replace(engine.likelihood, packs=packs)  # type: ignore[type-var]
        groups = draw(engine.sampler)
        move(policy)
        batch = engine.annotate(batch_of(groups), recipe)
        batch = credit(recipe, engine.prepare(shaped(recipe, batch), recipe))
        engine.gradient(recipe, batch)
        gradients.append({n: p.grad for n, p in policy.trainable()})
    assert all(torch.allclose(gradients[1][n], g, rtol=1e-3, atol=1e-5) for n, g in gradients[0].items())
    assert all(g.abs().max() > 1e-6 for n, g in gradients[0].items() if "mlp.gate" in n)
    assert (batch.old_logp - logp(policy, batch)).abs().max() < 1e-6, "old_logp too is said with the sampler's experts"
    assert (batch.old_logp - logp(policy, batch.replace(routes=None))).abs().max() > 0.01


def test_the_trainers_own_record_holds_while_the_policy_moves(moe: Path) -> None:
    """R2: the first update sees a ratio of 1, and later ones the experts of the weights that drew."""
    recipe = replayed(minirl(group_size=4), "trainer")
    policy = load_tiny(moe)
    engine = LocalEngine(policy, recipe, lr=3e-2)
    groups = draw(engine.sampler)
    assert all(r.routes is None for group in groups for r in group)
    batch = engine.annotate(batch_of(groups), recipe)
    assert torch.equal(batch.routes, policy.likelihood().choices(batch))
    assert torch.allclose(logp(policy, batch), batch.old_logp, atol=1e-6)
    batch = credit(recipe, engine.prepare(shaped(recipe, batch), recipe))
    engine.update(recipe, batch)
    assert unlike(policy.likelihood().choices(batch), batch.routes) > 0
    assert (logp(policy, batch) - logp(policy, batch.replace(routes=None))).abs().max() > 1e-3


def test_a_sampler_of_fewer_bits_differs_less_where_its_experts_are_replayed(moe: Path) -> None:
    low, high = load_tiny(moe, "bfloat16"), load_tiny(moe, "float32")
    batch = batch_of(draw(recorder(low), n=16), torch.float32)
    with_them, without = (
        (logp(high, b) - batch.old_logp).abs() for b in (batch, batch.replace(routes=None))
    )  # fmt: skip
    assert unlike(high.likelihood().choices(batch), batch.routes) > 0
    assert with_them.max() < without.max() and with_them.sum() < without.sum()


def test_what_is_cut_and_resumed_keeps_the_experts_that_drew_it(moe: Path) -> None:
    policy = load_tiny(moe)
    sampler = recorder(policy)

    def goes_on(logits: Tensor, written: Sequence[Sequence[int]]) -> Tensor:
        if len(written[0]) == 5:
            sampler.interrupt()
        return logits.index_fill(-1, torch.tensor(ENDS), -1e9)

    async def cut() -> Response:
        [response] = await sampler.generate(PROMPTS[1], max_tokens=12, key=(0,), processor=goes_on)
        return response

    [response] = sampler.run([cut()])
    assert response.stop_reason == "length" and response.routes is not None
    before, drawn = response.routes, len(response.tokens)
    assert len(before.ids) == len(PROMPTS[1]) + drawn and 0 < drawn < 12
    move(policy)
    sampler.version += 1
    [[again]] = sampler.run([sampler.generate(PROMPTS[1], max_tokens=6, key=(0,), resume=response)])
    assert again.routes is not None and len(again.tokens) > drawn
    assert torch.equal(again.routes.experts[: len(before.ids)], before.experts)
    fresh = policy.likelihood().choices(batch_of([[], [again]]))
    assert unlike(fresh[:, : before.experts.numel()], before.experts.reshape(1, -1)) > 0
    later = slice(before.experts.numel(), again.routes.experts.numel())
    assert torch.equal(fresh[0, later], again.routes.experts.flatten()[later])


PIECED = {
    "thoughts that are cut": s_grpo(exits=2),
    "beginnings of others": prefix_rl(group_size=4),
    "trees": arpo_agentic(group_size=4, initial=2, segment=3),
    "a search": rest_rl(group_size=4),
}
"""Programs that put responses together from pieces, each in its own way."""


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind in ("thoughts that are cut", "trees") else pytest.mark.heavy)
        for kind in PIECED
    ],
)
def test_pieces_remember_their_experts(kind: str, moe: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    rows = ({"prompt": f"{i}?", "answer": "?", "solution": "12 + 3\n#### ?"} for i in range(24))
    task = {"task": str(write_rows(tmp_path / "data.jsonl", rows)), "judge": f"{tmp_path / 'judge.py'}:score"}
    recipe = replayed(PIECED[kind])
    seen: list[tuple[Batch, Tensor]] = []
    annotate = LocalEngine.annotate

    def watched(engine: LocalEngine, batch: Batch, recipe: Recipe) -> Batch:
        if batch.routes is not None:
            seen.append((batch, engine.likelihood.choices(batch)))  # type: ignore[attr-defined]
        return annotate(engine, batch, recipe)

    config = tiny_run(
        tmp_path / "run", moe, task, recipe, steps=1, batch=2 * recipe.source.size, dtype="float64",
        eval=Evaluation(every=0, prompts=2, samples=0),
    )  # fmt: skip
    with mock.patch.object(LocalEngine, "annotate", watched):
        run(config, quiet=True)
    assert seen
    for batch, found in seen:
        present = batch.mask if batch.present is None else batch.present
        read = (batch.prompt_mask.sum(1) + present.sum(1) - 1).long().tolist()
        assert [int((row > 0).sum()) // 6 for row in batch.routes] == read
        assert unlike(found, batch.routes) == 0


def test_a_run_that_is_cut_ends_with_the_same_bits(moe: Path, tmp_path: Path) -> None:
    """With stale batches, whose records wait in the checkpoint."""
    settings: dict[str, Any] = {
        "recipe": replayed(grpo(group_size=4)), "staleness": 1, "steps": 4, "eval": Evaluation(every=0, prompts=2, samples=0),
    }  # fmt: skip
    task = write_task(tmp_path / "data")
    whole, cut = (tiny_run(tmp_path / name, moe, task, **settings) for name in ("whole", "cut"))
    run(whole, quiet=True)
    with power_cut(after=3):
        run(cut, quiet=True)
    run(cut, resume=cut.out, quiet=True)
    assert_same_end(cut.out, left_behind(whole.out))


def test_what_is_asked_for_and_cannot_be_is_said_before_the_run(tiny_model: Path, moe: Path) -> None:
    with pytest.raises(UserError, match="Qwen3Model is no mixture of experts"):
        LocalEngine(load_tiny(tiny_model), replayed(grpo(group_size=4)))
    with mock.patch("policyopt.engine.local.CAPABILITIES", frozenset(CAPABILITIES) - {"routing replay"}):
        check_engine(minirl())
        with pytest.raises(UserError, match=r"'routing replay' .*taken again in training"):
            check_engine(replayed(minirl()))
    compiled = dataclasses.replace(load_tiny(moe).likelihood(), whole=lambda **how: None)
    with pytest.raises(UserError, match="leave out --compile"):
        _ = compiled.routers


def mixed(groups: Sequence[Sequence[Response]]) -> Batch:
    """Rows of which one has another prompt than it was drawn with, and one was written by somebody else."""
    rows = [list(group) for group in groups]
    rows[0][0] = dataclasses.replace(rows[0][0], context=(*PROMPTS[0][:2], 50))
    rows[1][1] = dataclasses.replace(rows[1][1], routes=None)
    return batch_of(rows)


def test_only_texts_that_are_the_recorded_ones_are_replayed(moe: Path) -> None:
    policy = load_tiny(moe)
    batch = mixed(draw(recorder(policy)))
    assert int((batch.routes[0] > 0).sum()) == 2 * 6, "two tokens of the prompt are the same"
    assert int((batch.routes[5] > 0).sum()) == 0
    found = policy.likelihood().choices(batch)[:, : batch.routes.shape[1]]
    assert torch.equal(torch.where(batch.routes > 0, found, 0), batch.routes)
