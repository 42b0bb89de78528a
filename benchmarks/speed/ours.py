"""The trainer of policyopt, one step at a time: drawing, judging in a worker process, updating, metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policyopt.engine.local import LocalEngine
from policyopt.items import Example, JudgeSpec, user
from policyopt.judging.pool import JudgePool
from policyopt.methods import grpo, ppo
from policyopt.models.adapters import LoRA
from policyopt.models.load import load_policy
from policyopt.recipe import Recipe
from policyopt.sources.program import Response
from policyopt.training.collect import Collector
from policyopt.training.config import TrainConfig
from policyopt.training.console import Console
from policyopt.training.logging import RunLog
from policyopt.training.loop import State, Trainer
from policyopt.training.prompts import PromptStream
from speed.workloads import BETA, LR, Workload

JUDGE = """
def score(prompt, response, answer):
    return {"score": sum(map(ord, response)) % 7 / 6, "correct": False}
"""
"""A reward that differs from response to response, so that no group is without signal; TRL's is the same function."""


def recipe_of(workload: Workload) -> Recipe:
    """GRPO, or PPO where the workload has a critic."""
    beta, group = BETA * workload.reference, workload.group
    if workload.critic:
        return ppo(kl_coef=beta, epochs=workload.epochs, minibatches=workload.minibatches, group_size=group)
    return grpo(kl_coef=beta, epochs=workload.epochs, group_size=group).set("update.minibatches", workload.minibatches)


class Ours:
    """A run without its first and last evaluation, and without checkpoints."""

    def __init__(self, workload: Workload, folder: str, dtype: str, scratch: Path) -> None:
        recipe = recipe_of(workload)
        config = TrainConfig(
            recipe=recipe, model=folder, batch=workload.responses, steps=10**6, log_samples=0, out=scratch, dtype=dtype
        )
        policy = load_policy(folder, device="cpu", dtype=dtype, lora=LoRA() if workload.lora else None)
        # No token of the model ends a response: each has the length that it is asked for.
        policy.eos = (policy.model.get_input_embeddings().weight.shape[0],)
        self.engine = LocalEngine(policy, recipe, lr=LR)
        self.workload, self.lengths = workload, list[int]()
        examples = [Example(str(i), user(q), "") for i, q in enumerate(workload.questions())]
        stream = PromptStream(examples, policy.text, seed=0, longest=policy.context - workload.tokens, skip=False)
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / "judge.py").write_text(JUDGE)
        self.judge, self.log = JudgePool(JudgeSpec(f"{scratch / 'judge.py'}:score")), RunLog(scratch)
        if workload.mean is not None:
            self.engine.sampler.generate = self.generate(self.engine.sampler.generate)  # type: ignore[method-assign]
        collector = Collector(self.engine, stream, self.judge, workload.tokens, 0)
        self.trainer = Trainer(
            config, self.engine, collector, None, self.log, Console({}, 0, quiet=True), scratch, State(recipe)  # type: ignore[arg-type]
        )  # fmt: skip

    def generate(self, whole: Any) -> Any:
        """What a program calls to draw, with a length of its own for each response, in the order in which they are asked for."""

        async def each(tokens: Sequence[int], *, n: int = 1, max_tokens: int, **more: Any) -> list[Response]:
            mine, self.lengths = self.lengths[:n], self.lengths[n:]
            asked = (whole(tokens, n=1, first=i, max_tokens=length, **more) for i, length in enumerate(mine))
            return [response for found in await asyncio.gather(*asked) for response in found]

        return each

    def held(self) -> int:
        """Bytes of models, gradients and moments."""
        trained = [p for group in self.engine.weights.parameters.values() for p in group.values()]
        mine = {id(p) for p in trained}
        models = [self.engine.policy.model, *(role.model for role in self.engine.roles.values())]
        frozen = {id(p): p.nbytes for model in models for p in model.parameters() if id(p) not in mine}
        return sum(frozen.values()) + 4 * sum(p.nbytes for p in trained)

    def step(self, number: int) -> dict[str, float]:
        """One step. Returns seconds, and how often the drawn tokens passed each model."""
        self.lengths, before = self.workload.lengths(number), Counter(self.engine.passes)
        metrics = self.trainer.step()
        self.log.metrics(self.trainer.state.step, metrics)
        found = {name.removeprefix("time/"): x for name, x in metrics.items() if name.startswith("time/")}
        for (role, learns), tokens in (self.engine.passes - before).items():
            found[f"passes/{role}{' with gradient' if learns else ''}"] = tokens / metrics["tokens"]
        assert metrics["tokens"] == sum(self.workload.lengths(number)), "the lengths are not those of the workload"
        return found

    def close(self) -> None:
        """End the judge."""
        self.judge.close()
