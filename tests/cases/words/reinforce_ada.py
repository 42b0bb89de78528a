"""What cases call things in Reinforce-Ada."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import torch

from policyopt.items import Verdict
from policyopt.methods.sampling.reinforce_ada import reinforce_ada
from policyopt.objective import credit, shaped
from policyopt.sources.program import Prompt, Response
from policyopt.training.rows import to_batch, with_baseline

STOPS = {"balanced": "balanced", "positive_focused": "positive"}


class _Script:
    """Sampler and judge that hand out given scores round by round; the one token of a response is its number."""

    def __init__(self, rounds: Sequence[Sequence[float]]) -> None:
        self.rounds, self.used = rounds, 0
        self.scores: list[float] = []

    async def generate(
        self, tokens: tuple[int, ...], *, n: int, max_tokens: int, temperature: float, key: tuple[int, ...]
    ) -> list[Response]:
        seen = len(self.scores)
        self.scores += self.rounds[self.used]
        self.used += 1
        return [Response([i], [0.0], [0.0], True) for i in range(seen, len(self.scores))]

    async def judge(self, responses: Sequence[Response]) -> list[Verdict]:
        """The score of each response, as given."""
        scores = [self.scores[r.tokens[0]] for r in responses]
        return [Verdict(float(x), x > 0, True, "") for x in scores]


def _ended(program: Coroutine[Any, Any, list[Response]]) -> list[Response]:
    """What a program returns that waits for nothing outside this process."""
    try:
        program.send(None)
    except StopIteration as end:
        found: list[Response] = end.value
        return found
    raise RuntimeError("the program waits for something")


def _draw(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rollout program of each prompt, run on the given outcomes, and the credit of what it drew."""
    params, prompts = given["params"], given["round_rewards"]
    recipe = reinforce_ada(
        stop=STOPS[params["exit"]],
        group_size=params["n"],
        round_size=len(prompts[0][0]),
        max_rounds=params["max_rounds"],
        threshold=params["positive_threshold"],
    )
    rollout: Any = recipe.source
    found: dict[str, list[Any]] = {
        name: [] for name in ("rounds_used", "responses_seen", "resolved", "selected", "global_mean", "advantage")
    }
    for rounds in prompts:
        script = _Script(rounds)
        drawn = _ended(rollout.draw(Prompt((), 1, (), script.judge), script))
        verdicts = [r.verdict for r in drawn if r.verdict is not None]
        batch = to_batch([()] * len(drawn), drawn, verdicts, [0] * len(drawn), 1, torch.float64)
        batch = with_baseline(shaped(recipe, batch), [r.role for r in drawn])
        mine = credit(recipe, batch[torch.tensor([r.role == "train" for r in drawn])])
        found["rounds_used"].append(script.used)
        found["responses_seen"].append(len(script.scores))
        found["resolved"].append(rollout.enough([v.score > rollout.threshold for v in verdicts]))
        found["selected"].append(mine.tokens[:, 0].tolist())
        found["global_mean"].append(float(mine.baseline_reward[0]))
        found["advantage"].append(mine.advantage[:, 0].tolist())
    return found


CASES = {"sampler": _draw}
