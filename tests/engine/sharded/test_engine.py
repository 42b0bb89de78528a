"""The engine of a crew: what it draws, scores, keeps and refuses, beside the local one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from policyopt.engine import Model, Models
from policyopt.engine.local import LocalEngine
from policyopt.engine.protocol import Engine, EngineSampler
from policyopt.engine.sharded import ShardedEngine
from policyopt.errors import UserError
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.models.chunked import Chunks
from policyopt.models.load import LoRA
from policyopt.parts import EMA
from policyopt.recipe import Recipe
from policyopt.registry import get_method
from policyopt.sources.program import Response
from tests.engine.sharded.pair import Pair, pair_of
from tests.engine.test_local import drawn
from tests.tiny import load_tiny, save_tiny_model

TINY = {"dtype": "float32", "device": "cpu"}
RATES = {"lr": 1e-2, "critic_lr": 1e-2}


def sharded(
    pair: Pair, folder: Path, recipe: Recipe, settings: dict[str, Any] | None = None, **options: Any
) -> ShardedEngine:
    return ShardedEngine(pair, Models(Model(str(folder), TINY | options)), recipe, **RATES | (settings or {}))


def local(folder: Path, recipe: Recipe, **options: Any) -> LocalEngine:
    return LocalEngine(load_tiny(folder, "float32", **options), recipe, **RATES)


def stepped(engine: Engine, batches: LocalEngine, recipe: Recipe, steps: int) -> None:
    """Some updates on the same batch."""
    batch = drawn(batches, recipe)
    for _ in range(steps):
        assert engine.update(recipe, batch).applied
        engine.follow(0.25)


def answers(sampler: EngineSampler, *programs: Callable[[EngineSampler], Awaitable[Any]]) -> list[Any]:
    return sampler.run([program(sampler) for program in programs])


def said(responses: list[Response]) -> list[Any]:
    return [(r.tokens, r.stop_reason, r.versions, [round(x, 3) for x in r.logp]) for r in responses]


async def groups(sampler: EngineSampler) -> Any:
    """Three groups at once, another request once they are there, and one that goes on with a response in place."""
    first = await asyncio.gather(*(sampler.generate((7, 8 + i), n=5, max_tokens=6, key=(1, i)) for i in range(3)))
    again = await sampler.generate((9,), n=1, max_tokens=4, key=(2,), stop=[(30,)], forced=[11, 12])
    cut = first[0][0]
    length = len(cut.tokens)
    (more,) = await sampler.generate((7, 8), max_tokens=3, key=(3,), resume=cut)
    assert (more is cut and len(cut.tokens) > length) or cut.stop_reason == "eos"
    return [said(group) for group in first], said(again), said([cut])


async def changed(sampler: EngineSampler) -> Any:
    """A function of this process changes the logits, and one says the temperature."""
    favourite = 17

    def processor(logits: Tensor, written: Any) -> Tensor:
        logits[:, favourite] += 100.0
        return logits

    drawn = await sampler.generate((7,), n=2, max_tokens=3, key=(4,), processor=processor)
    assert all(set(r.tokens) == {favourite} for r in drawn)
    cold = await sampler.generate(
        (7,), n=2, max_tokens=3, key=(4,), temperature=lambda logits: logits.new_zeros(len(logits))
    )
    assert cold[0].tokens == cold[1].tokens
    return said(drawn), said(cold)


async def read(sampler: EngineSampler) -> Any:
    """Texts of somebody else, and embeddings."""
    seen = await asyncio.gather(*(sampler.logprobs((7, 8), (9 + i, 2), temperature=0.7) for i in range(3)))
    table = sampler.embed(torch.tensor([[3, 4]]))
    return said(seen), table.tolist(), sampler.vocab


def test_two_ranks_draw_what_one_process_draws(pair: Pair, tiny_model: Path) -> None:
    recipe = grpo(kl_coef=0.0)
    mine, theirs = sharded(pair, tiny_model, recipe), local(tiny_model, recipe)
    programs = (groups, changed, read, groups)
    assert answers(mine.sampler, *programs) == answers(theirs.sampler, *programs)
    assert mine.sampler.drawn == theirs.sampler.drawn
    assert not mine.sampler.slow
    stepped(mine, theirs, recipe, 1)
    stepped(theirs, theirs, recipe, 1)
    assert answers(mine.sampler, groups) == answers(theirs.sampler, groups), "of the weights as they are now"
    assert mine.version == theirs.version == 1


def test_an_error_in_a_request_is_raised_in_its_program(pair: Pair, tiny_model: Path) -> None:
    engine = sharded(pair, tiny_model, grpo(kl_coef=0.0))

    async def bad(sampler: EngineSampler) -> None:
        await sampler.generate((7,), max_tokens=2, key=(1,), truncation=7)  # type: ignore[arg-type]

    with pytest.raises((UserError, AssertionError, ValueError)):
        answers(engine.sampler, bad)
    assert answers(engine.sampler, groups), "and the ranks go on"


def test_a_checkpoint_goes_from_two_ranks_to_one_process_and_back(pair: Pair, tiny_model: Path, tmp_path: Path) -> None:
    recipe = ppo().replace(reference=EMA())
    two, one = sharded(pair, tiny_model, recipe), local(tiny_model, recipe)
    batches = local(tiny_model, recipe)
    stepped(two, batches, recipe, 2)
    for name in ("two", "one", "again"):
        (tmp_path / name).mkdir()
    two.write(tmp_path / "two")
    assert len(list((tmp_path / "two" / "shards").glob("*.distcp"))) == 2
    one.read(tmp_path / "two", 2)
    other = sharded(pair, tiny_model, recipe)
    other.read(tmp_path / "two", 2)
    assert one.version == other.version == 2
    stepped(one, batches, recipe, 1)
    stepped(other, batches, recipe, 1)
    one.write(tmp_path / "one")
    last = sharded(pair, tiny_model, recipe)
    last.read(tmp_path / "one", 3)
    for engine in (other, last):
        for name, x in engine.parameters().items():
            torch.testing.assert_close(x, one.parameters()[name], rtol=1e-4, atol=1e-5)
    states = [(3, 4, 5), (6,), (7, 8)]
    assert last.values(states) == pytest.approx(one.values(states), rel=1e-4, abs=1e-6)
    last.save(tmp_path / "model")
    one.save(tmp_path / "plain")
    mine, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "plain"))
    assert mine.keys() == theirs.keys()
    with pytest.raises(KeyError, match="policy/"):
        last.read(tmp_path / "again", 1)
    wider = grpo(kl_coef=0.0)
    with pytest.raises(KeyError, match=r"shape|missing"):
        sharded(pair, tiny_model, wider, lora=LoRA(rank=2)).read(tmp_path / "two", 2)


@pytest.mark.heavy
def test_adapters_are_merged_into_what_is_saved(pair: Pair, tiny_model: Path, tmp_path: Path) -> None:
    recipe = grpo(kl_coef=0.1)
    lora = {"lora": LoRA(rank=2)}
    two, one = sharded(pair, tiny_model, recipe, **lora), local(tiny_model, recipe, **lora)
    stepped(two, one, recipe, 2)
    stepped(one, local(tiny_model, recipe, **lora), recipe, 2)
    two.save(tmp_path / "two")
    one.save(tmp_path / "one")
    mine, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert mine.keys() == theirs.keys()
    for name, x in theirs.items():
        torch.testing.assert_close(mine[name], x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda:0"}, "--device cuda:0: 2 ranks train together"),
        ({"device": "warp"}, "--device warp"),
        ({"compile": True}, "--compile"),
        ({"chunks": Chunks(tokens=8)}, "--chunks.tokens: rows in chunks"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str, pair: Pair, tiny_model: Path) -> None:
    with pytest.raises(UserError, match=words):
        sharded(pair, tiny_model, grpo(kl_coef=0.0), **options)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"offload": True}, "--offload: ranks hold a share of every model"),
        pytest.param(
            {"optimizer": "adamw-8bit"}, "--optim.name adamw-8bit: bitsandbytes does not spread",
            marks=pytest.mark.skipif(not find_spec("bitsandbytes"), reason="needs [8bit]"),
        ),
    ],
)  # fmt: skip
def test_what_spares_memory_in_another_way_is_refused(
    settings: dict[str, Any], words: str, pair: Pair, tiny_model: Path
) -> None:
    with pytest.raises(UserError, match=words):
        sharded(pair, tiny_model, grpo(kl_coef=0.1), settings)


@pytest.mark.parametrize("name", ["lion", "muon"])
def test_a_checkpoint_of_another_optimiser_goes_on_as_it_was(
    name: Any, pair: Pair, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = grpo(kl_coef=0.0)
    two, one = sharded(pair, tiny_model, recipe, {"optimizer": name}), local(tiny_model, recipe)
    stepped(two, one, recipe, 1)
    two.write(tmp_path)
    with pytest.raises(KeyError, match=r"the optimiser that wrote it kept momentum.*, where AdamW keeps exp_avg"):
        one.read(tmp_path, 1)
    mine = LocalEngine(load_tiny(tiny_model, "float32"), recipe, optimizer=name, **RATES)
    mine.read(tmp_path, 1)
    batch = drawn(local(tiny_model, recipe), recipe)
    assert two.update(recipe, batch).applied and mine.update(recipe, batch).applied
    assert two.update_size() == pytest.approx(mine.update_size(), rel=0.02) and mine.update_size() > 0
    moved = [x - mine.parameters()[n] for n, x in two.parameters().items()]
    # A coordinate whose gradient is noise may go the other way.
    far = sum(float((x.abs() > 1e-3).sum()) for x in moved) / sum(x.numel() for x in moved)
    assert far < 0.01


@pytest.mark.heavy
def test_adapters_that_were_trained_before_keep_no_reference(pair: Pair, tiny_model: Path, tmp_path: Path) -> None:
    engine = local(tiny_model, grpo(kl_coef=0.0), lora=LoRA(rank=2, save="alone"))
    engine.save(tmp_path / "adapters")
    sharded(pair, tmp_path / "adapters", grpo(kl_coef=0.0))
    with pytest.raises(UserError, match="the reference is the policy with its adapters as they were"):
        sharded(pair, tmp_path / "adapters", grpo(kl_coef=0.1))


@pytest.mark.heavy
def test_a_checkpoint_of_three_ranks(pair: Pair, tiny_model: Path, tmp_path: Path) -> None:
    recipe = grpo(kl_coef=0.0)
    batches = local(tiny_model, recipe)
    with pair_of(tmp_path / "meeting", 3) as three:
        engine = sharded(three, tiny_model, recipe)
        stepped(engine, batches, recipe, 1)
        engine.write(tmp_path)
        written = engine.parameters()
    two = sharded(pair, tiny_model, recipe)
    two.read(tmp_path, 1)
    assert all(torch.equal(x, written[name]) for name, x in two.parameters().items())


@pytest.mark.heavy
def test_a_role_is_drawn_from_on_all_ranks(pair: Pair, tiny_model: Path, tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher", seed=1)
    recipe = get_method("rlgf")()
    (role,) = recipe.sampled_roles
    models = Models(Model(str(tiny_model), TINY), {role: Model(str(teacher), TINY)})
    two = ShardedEngine(pair, models, recipe, **RATES)
    one = LocalEngine(load_tiny(tiny_model, "float32"), recipe, {role: load_tiny(teacher, "float32")}, **RATES)
    batch = drawn(one, recipe)
    for engine in (two, one):
        assert engine.update(recipe, batch).applied
    mine, theirs = (answers(engine.samplers[role], groups, read) for engine in (two, one))
    assert mine == theirs != answers(one.sampler, groups, read)
    assert two.passes["policy", True] == one.passes["policy", True], "all ranks together"
