"""The page of the best length of a chain of thought."""

from __future__ import annotations

import dataclasses
import random

import pytest

from policyopt.errors import UserError
from policyopt.methods.length.cot_length_optimal import LengthFilteredVote, accuracy, cot_length_optimal, vote
from tests.methods.shared_judges import Echo, asked, run, text_of


def test_accuracy_rises_up_to_the_best_length_and_falls_behind_it() -> None:
    best = cot_length_optimal(2.0, 5.0, 0.01)
    for near, far in ((0.99, 0.8), (1.01, 1.2)):
        assert accuracy(best, 2, 5, 0.01) > accuracy(near * best, 2, 5, 0.01) > accuracy(far * best, 2, 5, 0.01)
    assert cot_length_optimal(6.0, 5.0, 0.01) == pytest.approx(3 * best)
    assert cot_length_optimal(2.0, 15.0, 0.01) == pytest.approx(best / 3)
    assert cot_length_optimal(2.0, 5.0, 0.1) < best < cot_length_optimal(2.0, 5.0, 1e-6) / 10
    assert accuracy(0.4, 2, 5, 0.01) == accuracy(0.3, 2, 5, 0.01) == 0, "a step that is more than can be done"
    with pytest.raises(UserError, match="noise 0"):
        cot_length_optimal(2.0, 5.0, 0.0)


def test_with_all_bins_it_is_a_majority_whose_order_is_nothing() -> None:
    lengths, answers = [1, 1, 2, 3, 4, 5, 6, 6], ["a", "b", "b", "a", "c", "b", "a", "a"]
    assert vote(lengths, answers, bins=99).answer == "a"
    found = vote(lengths, answers, bins=2)
    for seed in range(5):
        order = random.Random(seed).sample(range(8), 8)
        again = vote([lengths[i] for i in order], [answers[i] for i in order], bins=2)
        assert (again.answer, again.kept) == (found.answer, found.kept)
    assert vote([], []).answer is None and vote([3], [None]).kept == ()


def test_a_bin_that_agrees_always_votes_and_one_response_may_not() -> None:
    lengths, answers = [1, 2, 5, 5, 6, 9], ["a", "b", "c", "c", "c", "z"]
    found = vote(lengths, answers, bins=2)
    assert found.kept == (2, 4) and found.answer == "c" and found.entropy[2] == 0
    assert vote(lengths, answers, bins=1, least=2).kept == (2,)
    assert vote([1, 9], ["a", "b"], bins=1, least=5).answer == "a", "no bin is large enough: all are asked"


def test_the_response_with_the_winning_answer_comes_first() -> None:
    question, context = asked()
    context = dataclasses.replace(context, decode=text_of)
    texts = ("1\n#### 5", "#### 7", "2\n#### 7", "nothing")
    rows = run(LengthFilteredVote(size=4), (question, context), Echo(*texts))
    assert [text_of(r.tokens) for r in rows] == ["#### 7", "2\n#### 7", "1\n#### 5", "nothing"]
    assert len(run(LengthFilteredVote(size=2), (question, context), Echo("x", "y"))) == 2
