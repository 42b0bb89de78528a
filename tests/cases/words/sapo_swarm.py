"""What cases call things in SAPO (Swarm sAmpling Policy Optimization)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from policyopt.items import Example, JudgeSpec, Verdict, user
from policyopt.lens.case import Run
from policyopt.methods.sampling.sapo_swarm.channel import Package, package
from policyopt.methods.sampling.sapo_swarm.swarm import Swarm
from policyopt.sources.program import Answered, Context, Question, Response, Step

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
    async def logprobs(self, tokens: Any, written: tuple[int, ...], *, temperature: float) -> Response:
        return Response(list(written), [0.0], [0.0], "eos")


def _taken(rewards: Sequence[Sequence[float]], drawn: Sequence[int], external: int, local: int) -> list[Answered]:
    pool = _Pool(size=max(map(len, rewards), default=1), external=external)
    object.__setattr__(pool, "rewards", rewards)
    object.__setattr__(pool, "drawn", drawn)

    scorer: Any = _Scorer()

    def ask(example: Example) -> tuple[Question, Context]:
        async def judge(responses: Sequence[Response]) -> list[Verdict]:
            said = rewards[int(example.id.removeprefix("swarm:"))]
            return [verdict(said[r.tokens[0]]) for r in responses]

        return Question((0,), 1, (0, 0, 0)), Context(scorer, pool, judge, encode=lambda text: (int(text),))

    own = [
        Answered(_example(str(i)), Question((), 1, (0, 0, i)), [Response([], [], [], "eos")] * 2) for i in range(local)
    ]
    step = Step((0, 0), "run", JudgeSpec("exact"), scorer, lambda ids: "", ask, {}, {})
    program: Any = pool.beside(own, step)
    with ThreadPoolExecutor(1) as thread:  # an event loop may be running in this one
        found: list[Answered] = thread.submit(asyncio.run, program).result()
    return found


def _names(groups: Sequence[Answered]) -> list[int]:
    return [int(g.example.id.removeprefix("swarm:")) for g in groups]


def _live(given: Mapping[str, Any]) -> list[Answered]:
    """The foreign groups that could be taken."""
    rewards = given["external_reward"]
    return _taken(rewards, range(len(rewards)), len(rewards), given["params"]["local"])


def _drawn(given: Mapping[str, Any]) -> list[Answered]:
    """The foreign groups that are taken."""
    params = given["params"]
    return _taken(given["external_reward"], given["draw_order"], params["external"], params["local"])


def _pool(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of the foreign groups that are taken."""
    scores = [[r.verdict.score for r in group.responses if r.verdict is not None] for group in _drawn(given)]
    return {
        "reward": [score for group in scores for score in group],
        "group": [g for g, group in enumerate(scores) for _ in group],
        "params": {name: given["params"][name] for name in ("adv_eps", "ddof")},
    }


def _advantage(run: Run) -> Any:
    """Group by group, where the case is one of groups."""
    advantage = run.all_rows(run.credited.advantage)
    if "external_reward" not in run.asked:
        return advantage
    return [advantage[run.batch.group == g, 0].tolist() for g in run.batch.group.unique()]


COLUMNS = {"external": ("origin", "row")}
GIVEN = {"sampler": _pool}
KEYS = {
    "live": lambda run: _names(_live(run.asked)),
    "taken": lambda run: _names(_drawn(run.asked)),
    "advantage": _advantage,
}
