"""The page of urpo."""

from __future__ import annotations

import pytest

from policyopt.methods.judge.urpo import PlayerAndReferee, kendall_tau, read_scores, urpo
from policyopt.objective import credit
from policyopt.training.rows import to_batch
from tests.methods.shared_judges import Echo, asked, run, text_of

# Referee -------------------------------------------------------------------------------------------------------------


def test_only_the_order_of_scores_counts() -> None:
    gold = [3.0, 1.0, 2.0]
    assert kendall_tau([30, -1, 7], gold) == 1 == -kendall_tau([1, 3, 2], gold)
    assert kendall_tau([5, 5], [1, 0]) == 0
    with pytest.raises(ValueError, match="1 scores for 2"):
        kendall_tau([1], gold[:2])
    assert read_scores("#### 3 -1 2.5", 3) == [3, -1, 2.5]
    assert read_scores("#### 3 1", 3) is None
    assert read_scores("3 1 2", 3) is None


def test_judgings_are_trained_on_in_their_own_context_and_compared_among_themselves() -> None:
    program = PlayerAndReferee(size=2, judgings=2)
    sampler = Echo("one", "two", "#### 9 1", "what?")
    rows = run(program, asked(scores=[1.0, 0.0]), sampler)
    assert sampler.asked[1] == ("q?\n(1) one\n(2) two\nscore each: ", 2)
    assert [r.origin for r in rows] == [0, 0, 1, 1]
    assert [r.verdict.score for r in rows if r.verdict] == [1.0, 0.0, 1.0, -1.0]
    assert text_of(rows[2].context) == sampler.asked[1][0]
    batch = to_batch([(1,)] * 4, rows, [r.verdict for r in rows if r.verdict], [0] * 4, 40)
    advantage = credit(urpo(group_size=2), batch).advantage[:, 0]
    assert advantage[0] == -advantage[1] > 0
    assert advantage[2] == -advantage[3] > 0


def test_where_prompts_are_open_the_referees_scores_are_the_reward() -> None:
    program = PlayerAndReferee(size=2, open_share=1.0)
    rows = run(program, asked(scores=[1.0, 0.0]), Echo("one", "two", "#### 2 8"))
    assert [r.verdict.score for r in rows if r.verdict] == [2.0, 8.0]
    assert [r.verdict.correct for r in rows if r.verdict] == [True, False], "the log keeps the judge's word"
    same_score = PlayerAndReferee(size=2)
    assert len(run(same_score, asked(scores=[1.0, 1.0]), Echo("one", "two"))) == 2, "no order to find"
