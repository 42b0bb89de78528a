"""The page of scaf-grpo."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.guidance.scaf_grpo import Scaffold, scaf_grpo, weakest
from policyopt.sources.draw import Hinted
from policyopt.sources.draw.hint import hint_length
from policyopt.training.rows import to_batch
from tests.asking import ask
from tests.cases.words._scripted import Script, play
from tests.methods.shared_guidance import RIGHT, SOLUTION, WRONG, Recorder, draw

# Hints ----------------------------------------------------------------------------------------------------------------


def test_the_weakest_hint_that_works_rescues_one_response() -> None:
    script = Recorder([[WRONG] * 4, [WRONG], [RIGHT], [WRONG], [RIGHT]])
    drawn = draw(Scaffold(size=4, hints=(0.25, 0.5, 0.75, 1.0)), script)
    asked = [tokens for tokens, _ in script.requests]
    assert asked == [(1, 2), *((1, 2, *SOLUTION[:n]) for n in (2, 4, 6, 8))], "each level once, whatever the others did"
    assert [how["max_tokens"] for _, how in script.requests] == [20, 18, 16, 14, 12]
    assert len({how["key"] for _, how in script.requests}) == 5
    rescued = drawn[0]
    assert rescued.tokens == [*SOLUTION[:4], 5]
    assert rescued.own == [False] * 4 + [True]
    assert len(rescued.logp) == len(rescued.entropy) == 5
    assert [r.tokens for r in drawn[1:]] == [[1], [2], [3]], "the others stay"


def test_a_failed_group_stays_where_no_hint_helps_or_none_is_due() -> None:
    hopeless = Recorder([[WRONG] * 4])
    assert [r.tokens for r in draw(Scaffold(size=4), hopeless)] == [[0], [1], [2], [3]]
    assert hopeless.asked == 4
    for step, asked in ((0, 1), (2, 1), (3, 4)):
        early = Recorder([[WRONG] * 4, [RIGHT]])
        draw(Scaffold(size=4, warmup=3), early, key=(0, step, 0))
        assert early.asked == asked


def test_a_rescued_group_has_one_positive_advantage() -> None:
    drawn = play(scaf_grpo(group_size=8, warmup_steps=0).source, Script([[WRONG] * 8, [RIGHT]]), solution=18)
    batch = to_batch([()] * 8, drawn, [r.verdict for r in drawn if r.verdict], [0] * 8, 20, torch.float64)
    advantage = (scaf_grpo().advantage(batch) * batch.terminal()).sum(-1)
    assert advantage[0] == pytest.approx(7 / 8**0.5, rel=1e-5)
    assert advantage[1:].tolist() == pytest.approx([-1 / 8**0.5] * 7, rel=1e-5)


def test_a_hint_leaves_the_policy_something_to_write() -> None:
    ladder = Hinted(hints=(0.5, 1.0)).ladder(*ask(None, (1,), 5, (0, 0, 0), solution=(*SOLUTION, 2)))
    assert ladder == [SOLUTION[:4], SOLUTION[:4]], "one token of the budget"
    ladder = Hinted(hints=(0.5, 1.0)).ladder(*ask(None, (1,), 50, (0, 0, 0), solution=(*SOLUTION, 2)))
    assert ladder[-1] == SOLUTION, "the end token"
    assert [hint_length(10, share) for share in (0.25, 0.5, 0.75)] == [2, 5, 8], "half to even"
    assert weakest([False, True, True]) == 1
    assert weakest([False]) is None
