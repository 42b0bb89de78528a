"""What cases call things in DOT."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from policyopt.items import Verdict
from policyopt.methods.length.dot import dot
from policyopt.objective import credit, shaped
from policyopt.rows import make_batch
from policyopt.sources.program import Context, Question, Response

from ._scripted import members, verdict


class Drawn:
    """A sampler that answers with responses of given lengths and verdicts, and a judge that finds what was cut wrong."""

    def __init__(self, lengths: Sequence[int], correct: Sequence[float]) -> None:
        self.known = list(zip(lengths, correct, strict=True))

    async def generate(self, tokens: Sequence[int], *, n: int = 1, **_: Any) -> list[Response]:
        """All of them."""
        return [Response([0] * k, [0.0] * k, [0.0] * k, "eos", verdict=verdict(c)) for k, c in self.known]

    async def judge(self, responses: Sequence[Response]) -> list[Verdict]:
        """What was cut has no answer."""
        return [verdict(0.0)] * len(responses)


def _cut(given: Mapping[str, Any]) -> dict[str, Any]:
    """Each prompt of a case drawn, cut and credited."""
    params, n = given["params"], len(given["length"])
    recipe = dot(alpha=params["alpha"], margin=params.get("margin", 0.0), group_size=max(2, n))
    recipe = recipe.set("source.ddof", params.get("ddof", 0))
    program: Any = recipe.source
    length, reward, threshold = [0] * n, [0.0] * n, {}
    for name, rows in members(given["group"]):
        lengths, correct = ([given[key][i] for i in rows] for key in ("length", "correct"))
        known = program.threshold(lengths) if all(correct) else None
        threshold[str(name)] = None if known == float("inf") else known
        drawn = Drawn(lengths, correct)
        draw = program.draw(Question((), max(lengths), (0, 0, 0)), Context(drawn, program, drawn.judge))  # type: ignore[arg-type]
        with ThreadPoolExecutor(1) as pool:  # an event loop may be running in this thread
            found = pool.submit(asyncio.run, draw).result()
        for i, response in zip(rows, found, strict=True):
            length[i], reward[i] = len(response.tokens), response.verdict.score if response.verdict else 0.0
    batch = make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        group=torch.tensor([list(dict.fromkeys(given["group"])).index(g) for g in given["group"]]),
        true_length=torch.tensor(length, dtype=torch.float64),
        correct=torch.tensor(reward, dtype=torch.float64),
        reward=torch.tensor(reward, dtype=torch.float64),
    )
    advantage = credit(recipe, shaped(recipe, batch)).advantage[:, 0]
    return {"threshold": threshold, "new_length": length, "new_reward": reward, "advantage": advantage}


CASES = {"mask": _cut}
