"""Whole runs on an engine that has nothing of the local one: a table of next-token logits, written from the protocol alone."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policyopt.capability import refuse_missing
from policyopt.engine.plan import accumulate
from policyopt.engine.protocol import Engine, Size, UpdateReport
from policyopt.engine.streams import stream_key, uniforms
from policyopt.errors import UserError
from policyopt.methods.clip.bapo import bapo
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.models.likelihood import Leaves, Weigh
from policyopt.models.text import Text
from policyopt.models.tokenizer import build_tokenizer
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.sources.program import Response
from policyopt.training import run as running
from policyopt.training.config import TrainConfig
from tests.runs import assert_same_end, left_behind, lines, tiny_run
from tests.tiny import write_task

X = TypeVar("X")


class TableSampler:
    """Draws from a table of logits [V, V]: of the next token, given the last one."""

    slow = ""

    def __init__(self, engine: TableEngine) -> None:
        self.engine, self.computed, self.drawn = engine, 0, 0
        self.vocab = len(engine.table)

    async def generate(
        self,
        tokens: Sequence[int],
        *,
        n: int = 1,
        max_tokens: int,
        temperature: Any = 1.0,
        key: tuple[int, ...],
        **_: Any,
    ) -> list[Response]:
        await asyncio.sleep(0)
        return [self._one(tokens[-1], max_tokens, temperature, (*key, i)) for i in range(n)]

    def _one(self, last: int, most: int, temperature: float, key: tuple[int, ...]) -> Response:
        r = Response([], [], [], temperature=temperature or 1.0)
        stream = np.array([stream_key(key)], dtype=np.uint64)
        while not r.finished and len(r.tokens) < most:
            p = (self.engine.table[last] / (temperature or 1.0)).detach().softmax(-1)
            u = float(uniforms(stream, len(r.tokens))[0])
            last = int(p.argmax()) if temperature == 0 else int((p.cumsum(-1) < u).sum().clamp(max=len(p) - 1))
            r.tokens.append(last)
            r.logp.append(float(p[last].log()))
            r.entropy.append(float(-(p * p.log()).sum()))
            r.versions.append(self.engine.version)
            r.stop_reason = "eos" if last in self.engine.text.eos else "length"
        self.drawn += len(r.tokens)
        self.computed += len(r.tokens)
        return r

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        raise NotImplementedError

    def embed(self, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        async def together() -> list[X]:
            return await asyncio.gather(*programs)

        return asyncio.run(together())

    def forget(self) -> None:
        pass


class TableEngine:
    capabilities = frozenset({"temperature", "sampling entropy"})
    context, device, dtype = 64, torch.device("cpu"), torch.float32

    def __init__(self, lr: float) -> None:
        self.text = Text(build_tokenizer(), (2,))
        size = len(self.text.tokenizer)
        noise = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
        self.table = torch.nn.Parameter(noise)
        self.optimizer = torch.optim.SGD([self.table], lr=lr)
        self.base, self.version, self.policy = lr, 0, None
        self.sampler, self.samplers = TableSampler(self), dict[str, TableSampler]()
        self.passes: Counter[tuple[str, bool]] = Counter()
        self.start: Mapping[str, Tensor] = {}

    def ahead(self, draw: Callable[[], X]) -> Callable[[], X]:
        drawn = draw()
        return lambda: drawn

    def annotate(self, batch: Batch, recipe: Recipe) -> Batch:
        return batch

    def prepare(self, batch: Batch, recipe: Recipe) -> Batch:
        return batch

    def values(self, states: Sequence[Sequence[int]]) -> list[float]:
        raise UserError("there is no critic")

    def leaves(self, batch: Batch) -> Leaves:
        asked = batch.prompt.gather(1, batch.prompt_mask.sum(1).long()[:, None] - 1)
        before = torch.cat([asked, batch.tokens[:, :-1]], 1)
        logp = (self.table[before] / batch.temperature[:, None, None]).log_softmax(-1)
        return {"logp": logp.gather(-1, batch.tokens[..., None])[..., 0] * batch.mask}

    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        self.optimizer.zero_grad()

        def whole(batch: Batch) -> Leaves:
            with torch.no_grad():
                return self.leaves(batch)

        def learn(piece: Batch, weigh: Weigh) -> None:
            found = self.leaves(piece)
            gradients = weigh(found)
            torch.autograd.backward(list(found.values()), [gradients[name] for name in found])

        pieces = torch.arange(len(batch.mask)).split(3)
        report = accumulate(recipe, batch, pieces, version=self.version, whole=whole, learn=learn)
        assert self.table.grad is not None
        report.grad_norm = float(self.table.grad.norm())
        self.optimizer.step()
        self.version += 1
        return report

    def follow(self, fraction: float, role: str = "reference") -> None:
        pass

    def set_lr(self, factor: float) -> None:
        self.optimizer.param_groups[0]["lr"] = self.base * factor

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def update_size(self) -> float:
        return float("nan")

    def parameters(self) -> dict[str, Tensor]:
        return {"table": self.table.detach()}

    def write(self, folder: Path) -> None:
        save_file(self.parameters(), folder / "table.safetensors")

    @torch.no_grad()
    def read(self, folder: Path, version: int) -> None:
        self.table.copy_(load_file(folder / "table.safetensors")["table"])
        self.version = version

    def close(self) -> None:
        pass

    def size(self) -> Size:
        return Size(self.table.numel() * 4, self.table.numel() * 4)

    def save(self, folder: Path) -> None:
        folder.mkdir()
        save_file(self.parameters(), folder / "model.safetensors")


def set_up(config: TrainConfig, *_: Any) -> Engine:
    refuse_missing(config.recipe.name, config.recipe.asks, TableEngine.capabilities, "table")
    return TableEngine(config.learning_rate())


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., TrainConfig]:
    task = write_task(tmp_path / "task")

    def configured(out: str, recipe: Recipe | None = None, **settings: Any) -> TrainConfig:
        recipe = recipe or grpo(group_size=4, kl_coef=0.0)
        return tiny_run(tmp_path / out, Path("none"), task, recipe, **settings)

    return configured


@pytest.mark.parametrize(("recipe", "lr"), [(grpo(group_size=4, kl_coef=0.0), 60.0), (bapo(group_size=4), 60.0)])
def test_a_table_learns(configure: Callable[..., TrainConfig], recipe: Recipe, lr: float) -> None:
    more: dict[str, Any] = {"steps": 20, "batch": 32, "optim": {"lr": lr}}
    with mock.patch.object(running, "set_up", set_up):
        result = running.run(configure("run", recipe, **more), quiet=True)
    rewards = [row["reward/mean"] for row in lines(result.out / "metrics.jsonl")[1:]]
    assert sum(rewards[-5:]) > sum(rewards[:5]) + 0.5, "lower-case letters are what the judge likes"
    assert (result.out / "model").is_dir()


def test_a_table_resumes_to_the_bit(configure: Callable[..., TrainConfig]) -> None:
    more: dict[str, Any] = {"optim": {"lr": 3.0}, "staleness": 1}
    with mock.patch.object(running, "set_up", set_up):
        whole = running.run(configure("whole", steps=10, **more), quiet=True).out
        parts = running.run(configure("parts", steps=10, **more), quiet=True).out
        newest = max((parts / "checkpoints").iterdir())
        for path in newest.iterdir():
            path.unlink()
        newest.rmdir()
        shutil.rmtree(parts / "model")
        running.run(configure("parts", steps=10, **more), resume=parts, quiet=True)
    assert_same_end(parts, left_behind(whole))


def test_a_table_says_what_it_cannot_do(configure: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with mock.patch.object(running, "set_up", set_up):
        with pytest.raises(
            UserError, match=r"ppo asks for what the engine 'table' does not have: 'roles' .*'critic' \("
        ):
            running.run(configure("run", ppo(), batch=8), quiet=True)
        assert not (tmp_path / "run").exists()
