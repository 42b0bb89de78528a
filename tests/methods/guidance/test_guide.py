"""The page of guide."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.engine.local import LocalSampler
from policyopt.methods.guidance.guide import Continued, Guided, guide
from policyopt.objective import kept
from policyopt.parts import PolicyShaping, PPOClip
from policyopt.rows import Batch
from policyopt.sources.program import Response
from tests.asking import ask
from tests.batches import dlogp, random_batch
from tests.methods.shared_guidance import RIGHT, SOLUTION, WRONG, Recorder
from tests.tiny import load_tiny

# Guide ----------------------------------------------------------------------------------------------------------------


def test_guided_rows_are_likelier_with_the_hint_than_without(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)
    prompt, solution = (40, 41, 42), (*range(50, 58), 2)

    async def judge(responses: Sequence[Response]) -> list[Any]:
        return [WRONG] * len(responses)

    program = Continued(size=3, hints=(0.5,), temperature=0.8)
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


def draw(script: Recorder, room: int = 100, **how: Any) -> tuple[list[Response], dict[str, float]]:
    """What the program draws, and what it counts, where a text is its ids and a prompt in other words 99 and the text."""
    program = Guided(size=3, hints=(0.25, 0.5), **how)
    asked = ask(
        script, (1, 2), 20, (0, 0, 0), script.judge, (*SOLUTION, 2), text="Q", program=program, room=room,
        decode=lambda ids: " ".join(map(str, ids)), frame=lambda text: (99, *text.encode()),
    )  # fmt: skip
    return asyncio.run(program.draw(*asked)), asked[1].tally


def test_hints_stand_in_a_prompt_that_the_trainer_never_sees() -> None:
    script = Recorder([[WRONG] * 3])
    drawn, counted = draw(script)
    plain, *hinted = [tokens for tokens, _ in script.requests]
    assert plain == (1, 2)
    said = [bytes(tokens[1:]).decode() for tokens in hinted]
    assert said == ["Q\n\nHint: 11 12", "Q\n\nHint: 11 12 13 14", "Q\n\nHint: 11 12"], "they go round"
    assert [r.origin for r in drawn] == [0, 0, 0, 1, 1, 1]
    assert not any(r.context or r.own for r in drawn), "answers to the plain prompt, all of them trained on"
    assert len({how["key"] for _, how in script.requests}) == 4
    assert counted == {"hints_left_out": 0}
    tight = Recorder([[WRONG] * 3])
    drawn, counted = draw(tight, room=20)
    assert (len(drawn), counted, tight.asked) == (6, {"hints_left_out": 1}, 4), "the longer hint has no room"
    assert len(draw(Recorder([[WRONG] * 3]), room=5)[0]) == 3


def test_mixin_fills_the_guided_group_up_with_wrong_plain_rows() -> None:
    drawn, _ = draw(Recorder([[WRONG] * 3, [WRONG], [RIGHT], [WRONG]]), mixin=True)
    assert [(r.tokens, r.origin) for r in drawn] == [([0], 0), ([1], 0), ([2], 0), ([0], 1), ([4], 1), ([1], 1)]


def guided_batch() -> Batch:
    """A failed group with two guided rows, a group with both outcomes, and one that is all right."""
    batch = random_batch(groups=(4, 3, 2)).replace(origin=torch.tensor([0, 0, 1, 1, 0, 0, 0, 0, 0]))
    correct = torch.tensor([0.0, 0, 1, 0, 1, 0, 0, 1, 1], dtype=torch.float64)
    return batch.replace(correct=correct, reward=correct)


def test_guided_groups_stand_by_themselves_and_groups_of_one_outcome_are_dropped() -> None:
    batch, recipe = guided_batch(), guide()
    assert kept(recipe, batch).tolist() == [False, False, True, True, True, True, True, False, False]
    advantage = recipe.advantage(batch)[:, 0]  # type: ignore[misc]
    assert advantage[:4].tolist() == pytest.approx([0, 0, 0.5**0.5, -(0.5**0.5)], abs=1e-5)
    order = torch.tensor([8, 2, 0, 5, 1, 3, 4, 7, 6])
    assert torch.equal(kept(recipe, batch[order]), kept(recipe, batch)[order])


def test_guided_rows_are_shaped_where_plain_ones_are_clipped() -> None:
    batch = guided_batch()
    batch = batch[kept(guide(), batch)]
    shaped, clipped = dlogp(guide(), batch), dlogp(guide(guided="clipped"), batch)
    rows = batch.origin == 1
    torch.testing.assert_close(shaped[~rows], clipped[~rows], rtol=1e-12, atol=0)
    there = batch.mask.bool() & rows[:, None]
    assert (shaped[there] != 0).all(), "no guided token is ever silent"
    harder = batch.replace(old_logp=batch.old_logp - 1.5 * rows[:, None])
    torch.testing.assert_close(dlogp(guide(), harder), shaped, msg="one factor on all guided ratios changes nothing")
    assert guide(place="response").source == Continued(size=8, hints=(0.75,), rounds=10)
    assert guide(guided="clipped").surrogate == PPOClip()


@pytest.mark.parametrize("scope", ["row", "batch"])
def test_gamma_is_a_quantile_of_the_tokens_of_auxiliary_rows(scope: Any) -> None:
    batch = guided_batch().replace(origin=torch.tensor([1, 0, 1, 1, 0, 0, 0, 0, 1]))
    log_ratio = batch.logp - batch.old_logp
    part = PolicyShaping(of="ratio", gamma=None, quantile=0.7, scope=scope)
    rows = [log_ratio.exp()[i][batch.mask[i].bool()] for i in (0, 2, 3, 8)]
    wanted = [x.quantile(0.7) for x in ([torch.cat(rows)] * 4 if scope == "batch" else rows)]
    torch.testing.assert_close(part.threshold(log_ratio, batch)[[0, 2, 3, 8]], torch.stack(wanted))
    nan = torch.where(batch.mask.bool(), log_ratio, torch.nan)
    torch.testing.assert_close(part.threshold(nan, batch), part.threshold(log_ratio, batch))
    tiny = part.threshold(torch.full_like(log_ratio, -15.0), batch)
    assert tiny[0] == 1e-4
    assert part.unit == scope
    assert PolicyShaping(of="ratio").unit == "token"
