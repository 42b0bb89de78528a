"""The page of ARPO with replay."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from policyopt.items import Verdict
from policyopt.methods.agents.arpo_replay import ReplayedSuccess, arpo_replay
from policyopt.sources.program import Context, Question, Response
from policyopt.training.config import Evaluation, Optim, TrainConfig
from policyopt.training.run import run
from tests.commands import lines


class Scripted:
    """Draws responses of one token, which is what they are worth in tenths, in two turns with a token of the world between."""

    def __init__(self, worth: list[int]) -> None:
        self.worth = worth

    async def generate(self, tokens: Any, *, n: int, **how: Any) -> list[Response]:
        assert n == len(self.worth)
        return [
            Response([w, 99, w], [-1.0, 0.0, -1.0], [0.5, 0.0, 0.5], "eos", own=[True, False, True]) for w in self.worth
        ]

    async def logprobs(self, tokens: Any, written: Any, *, temperature: float) -> Response:
        return Response(list(written), [-3.0] * 3, [0.1] * 3, versions=[7] * 3)


async def verdicts(responses: Any) -> list[Verdict]:
    return [Verdict(r.tokens[0] / 10, r.tokens[0] > 1, True, "", parts={"x": 1.0}) for r in responses]


def draw(worth: list[int], notes: dict[str, Any], step: int = 0, **fields: Any) -> list[Response]:
    program = ReplayedSuccess(size=len(worth), **fields)
    context = Context(Scripted(worth), program, verdicts, notes=notes)  # type: ignore[arg-type]
    return asyncio.run(program.draw(Question((1, 2), 8, (0, step, 0), name="maze-3"), context))


def first(rows: list[Response]) -> list[int]:
    return [r.tokens[0] for r in rows]


def test_one_row_of_a_failed_group_is_an_earlier_success() -> None:
    notes: dict[str, Any] = {}
    assert first(draw([0, 0, 0], notes)) == [0, 0, 0], "nothing to replay yet"
    assert first(draw([0, 9, 0], notes)) == [0, 9, 0], "a success of the group itself is enough"
    notes = json.loads(json.dumps(notes))  # as a checkpoint keeps it
    rows = draw([0, 0, 0], notes)
    assert first(rows) == [9, 0, 0]
    replayed = rows[0]
    assert replayed.logp == [-3.0, 0.0, -3.0], "under the policy of now, and of its own tokens alone"
    assert (replayed.own, replayed.origin, replayed.finished) == ([True, False, True], 1, True)
    assert replayed.verdict is not None
    assert (replayed.verdict.score, replayed.verdict.parts) == (0.9, {"x": 1.0})
    assert len(notes["successes"]["maze-3"]) == 1, "what was replayed is not stored again"


def test_groups_of_successes_and_other_prompts_are_left_alone() -> None:
    notes: dict[str, Any] = {}
    assert first(draw([8, 8, 8], notes)) == [8, 8, 8]
    assert first(draw([9, 9, 9], notes)) == [9, 9, 9]
    notes["successes"]["other"] = notes["successes"].pop("maze-3")
    assert first(draw([0, 0, 0], notes)) == [0, 0, 0]


def test_the_store_is_first_in_first_out() -> None:
    notes: dict[str, Any] = {}
    for worth in (2, 3, 4):
        draw([worth, 0], notes, capacity=2)
    assert [kept["tokens"][0] for kept in notes["successes"]["maze-3"]] == [3, 4]
    assert {first(draw([0, 0], notes, step, capacity=2))[0] for step in range(20)} == {3, 4}, "drawn evenly"


WORLD = '''
from policyopt.environments.world import Environment, Observation


class EarlyLuck(Environment):
    """The first five episodes of the run are right, that of the evaluation before it among them; all later ones are wrong."""

    instant, turns, played = True, 2, []

    def reset(self, seed, row):
        self.played.append(seed)
        self.right = len(self.played) <= 5
        return f"{seed % 97}"

    def step(self, action):
        return Observation("go on")

    def finish(self):
        return Observation(reward=float(self.right), correct=self.right)
'''


def test_in_a_run_what_is_replayed_begins_with_a_ratio_of_one(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "luck.py").write_text(WORLD)
    config = TrainConfig(
        recipe=arpo_replay(pool=2, group_size=2), model=str(tiny_model), steps=2, batch=4, max_tokens=60, device="cpu",
        task="seeds", env=f"{tmp_path / 'luck.py'}:EarlyLuck", out=tmp_path / "run", eval=Evaluation(prompts=1, samples=0),
        optim=Optim(lr=1e-3),
    )  # fmt: skip
    _, last = lines(run(config, quiet=True).out / "metrics.jsonl")[-2:]
    assert last["rollout/replayed"] == 2, "both prompts came again, and failed as a whole"
    assert last["signal/groups"] == 1 and last["grad_norm"] > 0
    assert last["accuracy"] == 0, "what was drawn"
    assert last["mismatch/max"] < 1e-4, "scored by the weights of now"
