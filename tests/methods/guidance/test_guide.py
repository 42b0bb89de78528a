"""The page of guide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.engine.local import LocalSampler
from policyopt.methods.guidance.guide import Guided, Superseded, guide
from policyopt.objective import selected
from policyopt.sources.program import Response
from tests.asking import ask
from tests.batches import random_batch
from tests.methods.shared_guidance import WRONG
from tests.tiny import load_tiny

# Guide ----------------------------------------------------------------------------------------------------------------


def test_guided_rows_are_likelier_with_the_hint_than_without(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)
    prompt, solution = (40, 41, 42), (*range(50, 58), 2)

    async def judge(responses: Sequence[Response]) -> list[Any]:
        return [WRONG] * len(responses)

    program = Guided(size=3, hints=(0.5,), temperature=0.8)
    asked = ask(sampler, prompt, 16, (0, 0, 0), judge, solution, program=program)
    plain_and_guided = sampler.run([program.draw(*asked)])[0]
    assert [r.origin for r in plain_and_guided] == [0, 0, 0, 1, 1, 1]
    scores = [sampler.logprobs(prompt, tuple(r.tokens), temperature=0.8) for r in plain_and_guided]
    for response, scored in zip(plain_and_guided, sampler.run(scores), strict=True):
        hint = 4 * response.origin
        assert response.tokens[:hint] == list(solution[:hint])
        assert response.logp[:hint] == [0.0] * hint, "who has the hint copies it"
        assert response.logp[hint:] == pytest.approx(scored.logp[hint:], abs=1e-6), "and goes on as the policy does"
        assert not response.own, "all of it is trained on"
        assert all(x < 0 for x in scored.logp)


def test_guided_rows_take_the_place_of_plain_ones_or_join_them() -> None:
    batch = random_batch(groups=(4, 3, 2)).replace(origin=torch.tensor([0, 0, 1, 1, 0, 0, 0, 0, 0]))
    assert Superseded()(batch).tolist() == [False, False, *[True] * 7]
    assert selected(guide(), batch).tolist() == [False, False, *[True] * 7]
    assert selected(guide(mode="mix"), batch).all()
    guided = guide().advantage(batch.replace(reward=torch.tensor([0.0, 0, 1, 0, *[0.0] * 5]))).amax(-1)
    assert guided.tolist() == pytest.approx([0, 0, 0.5**0.5, 0, *[0.0] * 5], rel=1e-5), "guided rows among themselves"
    mixed = guide(mode="mix").advantage(batch.replace(reward=torch.tensor([0.0, 0, 1, 0, *[0.0] * 5]))).amin(-1)
    assert (mixed[[0, 1, 3]] < 0).all(), "failed rows have a negative advantage once one guided row is right"
    assert Superseded()(batch.replace(origin=None)).all()
    order = torch.tensor([8, 2, 0, 5, 1, 3, 4, 7, 6])
    assert torch.equal(Superseded()(batch[order]), Superseded()(batch)[order])
