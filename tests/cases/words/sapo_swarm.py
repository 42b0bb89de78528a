"""What cases call things in SAPO (Swarm sAmpling Policy Optimization)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from policyopt.items import Example, JudgeSpec, Verdict, user
from policyopt.methods.sampling.sapo_swarm import sapo_swarm
from policyopt.methods.sampling.sapo_swarm.channel import Package, package
from policyopt.methods.sampling.sapo_swarm.swarm import Swarm
from policyopt.objective import credit
from policyopt.rows import make_batch
from policyopt.sources.program import Answered, Prompt, Response, Step

from ._scripted import verdict


class _Pool(Swarm):
    """Packages whose responses are numbers that the local judge gives them, in a given order."""

    rewards: Sequence[Sequence[float]]
    drawn: Sequence[int]

    def order(self, names: Iterable[str], key: tuple[int, ...]) -> list[str]:
        return [str(i) for i in self.drawn]

    def channel(self, run: str) -> Any:
        return self

    def publish(self, step: int, number: int, content: Package) -> None:
        """Nobody listens."""

    def collect(self, step: int) -> list[str]:
        """All of them."""
        return [str(i) for i in range(len(self.rewards))]

    def read(self, name: str) -> Package:
        """The package of this number."""
        return package(_example(name), [(str(j), False) for j in range(len(self.rewards[int(name)]))])


def _example(id: str) -> Example:
    return Example(id, user("?"), "")


class _Scorer:
    async def score(self, tokens: Any, written: tuple[int, ...], *, temperature: float) -> Response:
        return Response(list(written), [0.0], [0.0], True)


def _taken(rewards: Sequence[Sequence[float]], drawn: Sequence[int], external: int, local: int) -> list[Answered]:
    pool = _Pool(size=max(map(len, rewards), default=1), external=external)
    object.__setattr__(pool, "rewards", rewards)
    object.__setattr__(pool, "drawn", drawn)

    def ask(example: Example) -> Prompt:
        async def judge(responses: Sequence[Response]) -> list[Verdict]:
            said = rewards[int(example.id.removeprefix("swarm:"))]
            return [verdict(said[r.tokens[0]]) for r in responses]

        return Prompt((0,), 1, (0, 0, 0), judge, encode=lambda text: (int(text),), decode=lambda ids: "")

    own = [Answered(_example(str(i)), Prompt((), 1, (0, 0, i), decode=lambda ids: ""), [Response([], [], [], True)] * 2) for i in range(local)]  # fmt: skip
    step = Step((0, 0), "run", JudgeSpec("exact"), ask, {}, {})
    program: Any = pool.beside(own, step, _Scorer())  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as thread:  # an event loop may be running in this one
        found: list[Answered] = thread.submit(asyncio.run, program).result()
    return found


def _pool(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which foreign groups are taken, and their credit."""
    params, rewards = given["params"], given["external_reward"]

    def names(groups: Sequence[Answered]) -> list[int]:
        return [int(g.example.id.removeprefix("swarm:")) for g in groups]

    live = _taken(rewards, range(len(rewards)), len(rewards), params["local"])
    taken = _taken(rewards, given["draw_order"], params["external"], params["local"])
    recipe = sapo_swarm(adv_eps=params["adv_eps"]).set("advantage.ddof", params["ddof"])
    advantage = []
    for group in taken:
        said = [r.verdict.score for r in group.responses if r.verdict is not None]
        batch = make_batch(
            mask=torch.ones(len(said), 1, dtype=torch.float64),
            group=torch.zeros(len(said), dtype=torch.long),
            reward=torch.tensor(said, dtype=torch.float64),
        )
        advantage.append(credit(recipe, batch).advantage[:, 0].tolist())
    return {"live": names(live), "taken": names(taken), "advantage": advantage}


COLUMNS = {"external": ("origin", "row")}
PARAMS = {"agg": "aggregate"}
CASES = {"sampler": _pool}
