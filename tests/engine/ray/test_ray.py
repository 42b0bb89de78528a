"""The engine ``ray``: what it draws and trains is what one process does, whoever dies meanwhile, and nothing stale passes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from policyopt.engine import Model, Models
from policyopt.engine.local import open_engine as open_local
from policyopt.engine.ray import open_engine
from policyopt.engine.ray.cluster import Connection
from policyopt.engine.settings import Cluster
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.objective import credit
from policyopt.parts.reference.following import EMA
from policyopt.registry import get_method, methods
from policyopt.rows import Batch
from policyopt.sources.program import Response
from policyopt.training import loop
from policyopt.training import run as running
from policyopt.training.ahead import independent
from policyopt.training.config import TrainConfig
from tests.engine.ray.conftest import OPTIMISER
from tests.runs import assert_same_end, left_behind, lines, tiny_run
from tests.tiny import token_batch, write_task

RECIPE = grpo(group_size=4)
PROMPTS = [(1, 2, 3), (4, 5, 6, 7), (8, 9), (1, 2, 4)]
LONG = tuple(5 + i % 7 for i in range(60))
"""Forced tokens: a response that is long, whatever the model."""


def drawn(engine: Any, forced: tuple[int, ...] = ()) -> list[list[Response]]:
    def one(i: int, prompt: tuple[int, ...]) -> Any:
        return engine.sampler.generate(prompt, n=3, max_tokens=12 + len(forced), key=(1, 0, i), forced=forced)

    found: list[list[Response]] = engine.sampler.run([one(i, p) for i, p in enumerate(PROMPTS)])
    return found


def flat(groups: list[list[Response]]) -> list[Response]:
    return [r for group in groups for r in group]


def inside(actor: Any, act: Callable[..., Any]) -> Any:
    """Carry something out in the process of an actor."""
    import ray

    return ray.get(actor.__ray_call__.remote(act))


def update(engine: Any) -> None:
    """One step on random rows."""
    batch = token_batch()
    batch = Batch({name: x.float() if x.is_floating_point() else x for name, x in batch.columns().items()})
    batch = batch.replace(old_logp=-batch.mask)
    batch = credit(RECIPE, engine.prepare(engine.annotate(batch, RECIPE), RECIPE))
    assert engine.update(RECIPE, batch).applied


def slowed(engine: Any) -> None:
    """Have the samplers take their time for each token, so that something can happen meanwhile."""

    def slow(actor: Any) -> None:
        sampler = actor.samplers[""]
        whole = sampler._advance
        sampler._advance = lambda: (time.sleep(0.02), whole())[1]

    for actor in engine._fleet.actors:
        inside(actor, slow)


@contextmanager
def in_flight(engine: Any) -> Iterator[None]:
    with mock.patch.object(engine, "_in_flight", True), mock.patch.object(engine._fleet, "_rounds", False):
        yield


@pytest.fixture(scope="module")
def start(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state of the engine with moments in it, of version 1."""
    update(engine)
    folder = tmp_path_factory.mktemp("state")
    engine.write(folder)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def carried(engine: Any, start: Path, tiny_model: Path, task: dict[str, str], tmp_path: Path) -> Callable[..., Path]:
    """Carries out a run of some steps on the engine, or another one, from the state; returns its folder."""

    def whole(name: str, runner: Any = engine, **changes: Any) -> Path:
        def set_up(config: TrainConfig, *_: Any) -> Any:
            runner.read(start, 1)
            return runner

        config = tiny_run(tmp_path / name, tiny_model, task, steps=5, **{"staleness": 1, **changes})
        with mock.patch.object(running, "set_up", set_up), mock.patch.object(runner, "close", return_value=None):
            return running.run(config, quiet=True).out

    return whole


def texts(out: Path) -> list[tuple[int, str, str]]:
    return [(r["step"], r["id"], r["response"]) for r in lines(out / "samples.jsonl") if r["phase"] == "train"]


def test_samplers_draw_what_one_process_draws(engine: Any, models: Models, start: Path) -> None:
    engine.read(start, 1)
    local = open_local(models, RECIPE, **OPTIMISER)
    local.read(start, 1)
    mine, theirs = drawn(engine), drawn(local)
    for a, b in zip(flat(mine), flat(theirs), strict=True):
        assert a.tokens == b.tokens and a.stop_reason == b.stop_reason and set(a.versions) == {1}
        torch.testing.assert_close(torch.tensor(a.logp), torch.tensor(b.logp), atol=1e-5, rtol=0)
    assert engine._fleet.held.version == 1
    used = set(engine._fleet._homes.values())
    assert used == {0, 1}, "both samplers draw"


def test_programs_draw_from_other_models_too(cluster: Connection, models: Models) -> None:
    recipe, teacher = get_method("rlgf")(), replace(models, roles={"teacher": models.policy})
    engine = open_engine(teacher, recipe, Cluster(), **OPTIMISER)
    try:
        asked = [
            engine.samplers["teacher"].generate(p, n=2, max_tokens=6, key=(0, 0, i)) for i, p in enumerate(PROMPTS)
        ]
        mine = flat(engine.sampler.run(asked))
    finally:
        engine.close()
    sampler = open_local(teacher, recipe, **OPTIMISER).samplers["teacher"]
    own = flat(sampler.run([sampler.generate(p, n=2, max_tokens=6, key=(0, 0, i)) for i, p in enumerate(PROMPTS)]))
    assert [r.tokens for r in mine] == [r.tokens for r in own]


def test_drawing_beside_training_gives_the_bits_of_drawing_before_it(
    engine: Any, models: Models, carried: Callable[..., Path]
) -> None:
    beside = mock.Mock(side_effect=engine.ahead)
    with mock.patch.object(engine, "ahead", beside):
        ahead_of_time = carried("ahead")
    assert beside.call_count == 4, "all batches but the first were drawn ahead"
    with mock.patch.object(loop, "independent", return_value=False):
        synchronous = left_behind(carried("synchronous"))
    assert_same_end(ahead_of_time, synchronous)
    local = left_behind(carried("local", open_local(models, RECIPE, **OPTIMISER)))
    for name, x in local["weights"].items():
        torch.testing.assert_close(x, synchronous["weights"][name], atol=1e-4, rtol=0)
    assert [row["staleness/mean"] for row in synchronous["metrics"][1:]] == [0, 1, 1, 1, 1]


def test_responses_under_way_go_on_with_new_weights_and_note_them(engine: Any, start: Path) -> None:
    engine.read(start, 1)

    def thought() -> torch.Tensor:
        asked = [engine.sampler.logprobs(PROMPTS[0], LONG, temperature=1.0)]
        return torch.tensor(engine.sampler.run(asked)[0].logp)

    before = thought()
    slowed(engine)
    with in_flight(engine):
        wait = engine.ahead(partial(drawn, engine, LONG))
        time.sleep(0.3)
        update(engine)
        found = wait()
    after = thought()
    for response in found[0]:
        versions = torch.tensor(response.versions[: len(LONG)])
        assert versions.tolist() == sorted(versions.tolist()) and set(versions.tolist()) == {1, 2}
        logp = torch.tensor(response.logp[: len(LONG)])
        torch.testing.assert_close(logp, torch.where(versions == 1, before, after), atol=1e-5, rtol=0)
    assert float((before - after).abs().max()) > 1e-3


def test_in_flight_no_length_is_preferred(engine: Any, carried: Callable[..., Path]) -> None:
    still = mock.Mock(side_effect=lambda factor: type(engine).set_lr(engine, 0.0))
    with mock.patch.object(engine, "set_lr", still):
        with mock.patch.object(loop, "independent", return_value=False):
            synchronous = carried("synchronous", staleness=2)
        with in_flight(engine):
            flying = carried("flying", staleness=2)
    engine.set_lr(1.0)
    assert texts(flying) == texts(synchronous)
    assert len({len(text) for _, _, text in texts(flying)}) > 3, "long and short ones"
    late = [row["staleness/max"] for row in lines(flying / "metrics.jsonl")[1:]]
    assert max(late) <= 2


def test_a_killed_sampler_is_replaced_and_the_same_tokens_come(engine: Any, start: Path) -> None:
    engine.read(start, 1)
    whole = drawn(engine, LONG)
    slowed(engine)
    wait, deaths = engine.ahead(partial(drawn, engine, LONG)), engine._fleet.deaths
    os.kill(inside(engine._fleet.actors[1], lambda actor: os.getpid()), signal.SIGKILL)
    assert wait() == whole
    assert engine._fleet.deaths == deaths + 1


def test_a_sampler_that_ignores_an_update_stops_the_run(engine: Any, start: Path) -> None:
    engine.read(start, 1)
    drawn(engine)

    def ignores(actor: Any) -> None:
        torch.Tensor.copy_ = lambda self, other: self  # type: ignore[method-assign]

    deaf = engine._fleet.actors[0]
    inside(deaf, ignores)
    update(engine)
    with pytest.raises(UserError, match=r"sampler 0 holds weights of version 2 .* and the trainers have published"):
        drawn(engine)
    os.kill(inside(deaf, lambda actor: os.getpid()), signal.SIGKILL)
    engine._fleet.held = None
    assert {v for r in flat(drawn(engine)) for v in r.versions} == {2}, "a new one is not deaf"


def test_tokens_of_a_stale_version_stop_the_run(engine: Any, start: Path) -> None:
    engine.read(start, 1)
    drawn(engine)

    def stuck(actor: Any) -> None:
        actor.samplers[""].stepper.version = 0

    inside(engine._fleet.actors[0], stuck)
    with pytest.raises(UserError, match="drew tokens with weights of version 0, and was given version 1"):
        drawn(engine)
    engine._fleet.held = None


def test_an_error_in_a_draw_comes_out_where_the_batch_is_needed(engine: Any, start: Path) -> None:
    engine.read(start, 1)

    def fails() -> None:
        engine.sampler.run([engine.sampler.generate((), max_tokens=3, key=(0, 0, 0))])

    wait = engine.ahead(fails)
    with pytest.raises(ValueError, match="at least one of each is needed"):
        wait()
    assert engine.ahead(partial(drawn, engine))() == drawn(engine)


def test_what_a_process_cannot_load_is_said_in_its_own_words(engine: Any) -> None:
    nothing = Models(Model("/nothing-there", {"device": "cpu"}))
    with pytest.raises(UserError, match="nothing-there"):
        engine.crew.call("load", nothing)
    with (
        mock.patch.object(engine, "_models", nothing),
        mock.patch.object(engine._hire, "start", return_value=engine._fleet.actors),
        pytest.raises(UserError, match="nothing-there"),
    ):
        engine._samplers([0, 1])


def test_a_dead_trainer_stops_the_run_in_words(engine: Any) -> None:
    os.kill(inside(engine.crew.actors[0], lambda actor: os.getpid()), signal.SIGKILL)
    with pytest.raises(UserError, match=r"trainer 0 has died .* --resume"):
        engine.update_size()


def test_what_training_changes_is_not_read_by_a_draw_beside_it() -> None:
    assert independent(RECIPE) and independent(get_method("ppo")())
    assert not independent(replace(grpo(group_size=4, kl_coef=0.1), reference=EMA())), "a reference that moves"
    search = get_method("oreo")()
    assert not independent(search.replace(source=search.decode)), "a critic that is asked while it draws"
    read = {name: m() for name, m in methods().items()}
    for name, recipe in read.items():
        if (
            "sampler" not in recipe.source.services
            or recipe.memory is not None
            or "rollout_logp" in recipe.needs
            or recipe.fixed
        ):
            assert not independent(recipe), name
