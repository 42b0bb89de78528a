"""Evaluations of worlds: what these count is measured beside how often they are solved."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from policyopt.data import load_task
from policyopt.environments.worlds.bandit import Bandit
from policyopt.models.text import Text
from policyopt.models.tokenizer import build_tokenizer
from policyopt.sources.episodes import Player
from policyopt.sources.program import Response
from policyopt.training.evaluate import Evaluator

TOKENIZER = build_tokenizer()
TEXT = Text(TOKENIZER, (TOKENIZER.eos_token_id,))


class AlwaysA:
    """A policy that pulls the first arm, whatever it reads."""

    async def generate(self, tokens: Sequence[int], **_: Any) -> list[Response]:
        ids = [*TEXT.encode("a"), TEXT.eos[0]]
        return [Response(ids, [0.0] * len(ids), [0.0] * len(ids), "eos", versions=[0] * len(ids))]

    def run(self, programs: Sequence[Any]) -> list[Any]:
        async def together() -> list[Any]:
            return list(await asyncio.gather(*programs))

        return asyncio.run(together())


def test_regret_and_shares_of_a_bandit_are_means_over_episodes() -> None:
    task = load_task("bandit", heldout=70)  # more than one block
    policy: Any = AlwaysA()
    evaluator = Evaluator(
        TEXT, policy, None, task.heldout, task.max_tokens, 1024 - task.max_tokens, player=Player(Bandit, TEXT)
    )
    scores = evaluator(samples=0)
    best = sum(e.answer == "a" for e in task.heldout) / 70
    assert 0 < best < 1
    assert scores.summary["accuracy"] == pytest.approx(best)
    assert scores.summary["component/regret"] == pytest.approx((1 - best) * 10 * 0.5)
    assert scores.summary["component/opt_frac"] == pytest.approx(best)
    assert scores.summary["component/min_frac"] == 0
    assert scores.metrics()["eval/component/regret"] == scores.summary["component/regret"]
