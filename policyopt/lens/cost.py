"""What a step of a recipe costs, counted while a model of 22 thousand parameters really takes it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from policyopt.engine import make_engine
from policyopt.engine.protocol import Engine
from policyopt.items import Example, Verdict, user
from policyopt.models.embedded import one_thread, random_tiny
from policyopt.models.load import Policy
from policyopt.models.text import Text
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.sources.given import Given
from policyopt.training.collect import Collector
from policyopt.training.config import TrainConfig
from policyopt.training.console import Console
from policyopt.training.loop import State, Trainer
from policyopt.training.prompts import PromptStream

PROMPTS = 8
"""Questions of a step, rounded up to what the recipe's mini-batches divide."""
BUDGET = 12
"""Tokens of a response."""
ENDS = (2, *range(90, 102))
"""So many ids end a response that an untrained model writes some of every length."""
LATE = 10
"""The number of the step: past the steps in which a method only warms up."""
MICRO = 4
"""Rows in a forward pass: batches are split, as those of a model that fills its memory are."""


@dataclass(frozen=True)
class Passes:
    """How often each token that is trained on went through a model in one step."""

    forward: float
    """Without gradient."""
    backward: float
    """Forward and backward."""


@dataclass(frozen=True)
class Cost:
    """Work of one step, per response or token that is trained on; what the sampler does is no pass."""

    sampled: float
    """Responses that the rollout returns."""
    tokens: float
    """Tokens drawn, those of discarded responses and of a guide too, over the tokens that are trained on."""
    updates: int
    """Optimiser steps."""
    passes: Mapping[str, Passes]
    """Role of a model (policy, reference, teacher, critic) -> its passes; a role that never ran is left out."""

    def to_dict(self) -> dict[str, Any]:
        """The costs as plain data for JSON."""
        return asdict(self)


def measure(recipe: Recipe) -> Cost:
    """The costs that :func:`take` counts."""
    return take(recipe)[0]


@dataclass(frozen=True)
class Step:
    """A step that was really taken."""

    batch: Batch
    """The fresh rows, credited."""
    weight: Tensor
    """[N, T] their token weights."""
    text: Text
    """Reads their tokens."""


def take(recipe: Recipe) -> tuple[Cost, Step]:
    """Train a tiny random model with the recipe, judge its answers by chance, and count the tokens that all models score in a step.

    The step that counts comes once earlier batches, where the recipe replays them, are there.
    """
    with one_thread(), torch.random.fork_rng(devices=[]):
        trainer = _trainer(recipe)
        for _ in range(1 + recipe.update.replay):
            trainer.step()
        before, passes = drawn(trainer.engine), Counter(trainer.engine.passes)
        metrics = trainer.step()
        passes = Counter(trainer.engine.passes) - passes
    step = trainer.taken
    assert step is not None
    tokens = float(step.batch.mask.sum())
    cost = Cost(
        sampled=metrics["responses"] / len(step.batch),
        tokens=(drawn(trainer.engine) - before) / tokens,
        updates=int(metrics["update/count"] + metrics["update/skipped"]),
        passes={
            role: Passes(passes[role, False] / tokens, passes[role, True] / tokens)
            for role in sorted({role for role, _ in passes}, key=lambda role: (role != "policy", role))
        },
    )
    return cost, step


class _Watched(Trainer):
    """A trainer that keeps its last step, where others log it."""

    taken: Step | None = None

    def sample(self, batch: Batch | None, weight: Tensor | None, lost: Sequence[Mapping[str, Any]]) -> None:
        if batch is None or weight is None:
            raise ValueError("the recipe's filters left no prompt to train on, so that there is no step to count")
        self.taken = Step(batch, weight, self.engine.text)


def question(number: object) -> str:
    """What the models are asked under a number."""
    return f"{number}?"


def drawn(engine: Engine) -> int:
    """Tokens that the samplers of an engine have drawn so far."""
    return sum(sampler.drawn for sampler in (engine.sampler, *engine.samplers.values()))


def _trainer(recipe: Recipe) -> _Watched:
    pieces = recipe.update.minibatches
    prompts = pieces * math.ceil(PROMPTS / pieces)
    policy = _policy(seed=0)
    others = recipe.roles - {"reference", "previous"}
    engine = make_engine(policy, recipe, {role: _policy(seed=1) for role in others}, micro_batch=MICRO)
    columns = recipe.source.columns if isinstance(recipe.source, Given) else ()
    numbers = {f"{side}_{column}": x for column in columns for side, x in (("chosen", 1.0), ("rejected", 0.0))}
    examples = [
        Example(
            str(i),
            user(question(i)),
            "7",
            "3+4=7\n#### 7",
            completion="3+4=7",
            chosen="3+4=7",
            rejected="3+4=8",
            labelled="3+4=7",
            label=i % 2 == 0,
            responses=("3+4=7", "7", "3+4=8", "8"),
            scores=(1.0, 0.75, 0.25, 0.0),
            meta={**dict.fromkeys(columns, 0.5), **numbers},
        )
        for i in range(64 * prompts)
    ]
    stream = PromptStream(examples, policy.text, seed=0, longest=policy.context - BUDGET, skip=False)
    collector = Collector(engine, stream, cast(Any, _judge), BUDGET, seed=0)
    config = TrainConfig(
        recipe=recipe, batch=prompts * recipe.source.size, max_tokens=BUDGET, steps=1 << 20, log_samples=0
    )
    nothing = cast(Any, None)  # no evaluation, no log, no folder
    return _Watched(
        config, engine, collector, nothing, nothing, Console({}, 0, quiet=True), nothing, State(recipe, LATE)
    )


def _policy(seed: int) -> Policy:
    """A model whose distributions are as uneven as those of a trained one."""
    model, tokenizer = random_tiny(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(3.0)
    return Policy(model, tokenizer, f"random-{seed}", ENDS, context=256)


def _judge(items: list[tuple[Example, str]]) -> list[Verdict]:
    """Calls a response right by chance: of four questions one never, one rarely, one every second time, one always; the
    first one too where its worked solution was begun."""
    found = []
    for example, text in items:
        begun = (example.solution or "")[:3]
        chance = 8 if begun and text.startswith(begun) else (0, 2, 4, 8)[int(example.id) % 4]
        right = sum(map(ord, text)) % 8 < chance
        found.append(Verdict(float(right), right, True, "by chance"))
    return found
