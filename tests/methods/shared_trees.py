"""What several tests of methods share: methods that draw trees, or credit responses by what they share: limits, and what a wrong one would not do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from policyopt.engine.local import LocalSampler
from policyopt.items import Verdict
from policyopt.parts.advantage.tree import edge_of
from policyopt.rows import Batch
from policyopt.sources.program import Response, Rollout, Round
from policyopt.training.rows import to_batch
from tests.asking import Asked, ask

PROMPT = tuple(range(10, 22))


async def judge(responses: Sequence[Response]) -> list[Verdict]:
    return [Verdict(float(sum(r.tokens) % 2), sum(r.tokens) % 2 == 1, True, "") for r in responses]


def prompt(number: int = 0, budget: int = 24, tokens: tuple[int, ...] = PROMPT, by: Any = judge) -> Asked:
    return ask(None, tokens, budget, (0, 1, number), by)


def draw(rollout: Rollout, sampler: LocalSampler, *prompts: Asked) -> list[list[Response]]:
    together = Round()
    asked = [
        (question, dataclasses.replace(context, sampler=sampler, program=rollout, round=together))
        for question, context in prompts or (prompt(),)
    ]
    return sampler.run([rollout.draw(*each) for each in asked])


def batch_of(responses: Sequence[Response], rewards: Sequence[float] | None = None) -> Batch:
    verdicts = [Verdict(r, r > 0, True, "") for r in rewards or [float(i % 2) for i in range(len(responses))]]
    return to_batch([PROMPT] * len(responses), responses, verdicts, [0] * len(responses), 24, torch.float64)


# Trees as they are drawn ---------------------------------------------------------------------------------------------


def assert_tree(responses: Sequence[Response]) -> None:
    """Rows have a token of the same node in common exactly where all of their text up to it is the same text."""
    batch = batch_of(responses)
    nodes = batch.node.gather(1, edge_of(batch))
    for i, a in enumerate(responses):
        assert a.ends == sorted(a.ends) and a.ends[-1] == len(a.tokens) == len(a.logp) == len(a.entropy)
        assert len(set(a.nodes)) == len(a.nodes) == len(a.ends)
        for j, b in enumerate(responses[:i]):
            together = [d for d, (m, n) in enumerate(zip(a.nodes, b.nodes, strict=False)) if m == n]
            assert together == list(range(len(together))), "what two rows share is a beginning"
            end = a.ends[len(together) - 1] if together else 0
            assert a.tokens[:end] == b.tokens[:end] and a.logp[:end] == b.logp[:end]
            assert a.ends[: len(together)] == b.ends[: len(together)]
            assert (nodes[i, :end] == nodes[j, :end]).all()
            assert set(a.nodes[len(together) :]).isdisjoint(b.nodes[len(together) :])
