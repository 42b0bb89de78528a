"""What a judge that compares says of the responses of a step: whole groups, asked once and apart, and as columns of a batch."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from policyopt.groups import preferred
from policyopt.items import Example, Verdict, user
from policyopt.judging.comparing import Comparison, compared, questions
from policyopt.parts import WinRate
from policyopt.rows import join, make_batch
from policyopt.sources.program import Answered, Context, Question, Response
from policyopt.training.evaluate import exploited
from policyopt.training.judged import Opinions
from policyopt.training.rows import to_batch
from policyopt.training.services import Between
from tests.batches import random_batch

EXAMPLE = Example("e", user("q"), "")
NAN = math.nan


class Larger:
    """Prefers the larger number, and remembers which groups it saw."""

    compares = True

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def compare(self, groups: Sequence[tuple[Example, Sequence[str]]]) -> list[Comparison]:
        self.seen += [list(texts) for _, texts in groups]
        return [self._of(texts) for _, texts in groups]

    def _of(self, texts: Sequence[str]) -> Comparison:
        answers = []
        for a, b in questions("pair", texts):
            bad = "13" in (a, b)
            answers.append(Verdict.failure("unlucky") if bad else Verdict(float(int(a) > int(b)), False, False, ""))
        return compared("pair", texts, answers)


TEXT: Any = SimpleNamespace(
    responses=lambda rows: [str(row[0]) for row in rows], decode=lambda tokens: str(tokens[0]), pieces=lambda tokens: []
)


def response(number: int, **how: Any) -> Response:
    return Response([number], [0.0], [0.0], "eos", **how)


def settled(judge: Any, *groups: list[Response]) -> tuple[Opinions, list[Answered]]:
    opinions = Opinions(judge, TEXT)
    question = Question((1,), 4, (0, 0, 0))
    return opinions, opinions.settle([Answered(EXAMPLE, question, rows) for rows in groups])


def batch_of(groups: Sequence[Answered]) -> Any:
    rows = [(i, r) for i, group in enumerate(groups) for r in group.responses]
    verdicts = [r.verdict for _, r in rows if r.verdict is not None]
    return to_batch([(1,)] * len(rows), [r for _, r in rows], verdicts, [i for i, _ in rows], 4, torch.float64)


def test_the_responses_to_each_prompt_are_a_group_of_their_own_though_the_question_is_the_same() -> None:
    judge = Larger()
    opinions, groups = settled(judge, [response(3), response(1), response(2)], [response(5), response(9)])
    assert judge.seen == [["3", "1", "2"], ["5", "9"]]
    batch = batch_of(groups)
    assert batch.reward.tolist() == batch.wins.tolist() == [1.0, 0.0, 0.5, 0.0, 1.0]
    assert batch.beats.nan_to_num(-1).tolist() == [[-1, 1, 1], [0, -1, 0], [0, 1, -1], [-1, 0, -1], [1, -1, -1]]
    stats = opinions.stats()
    assert (stats["judge/pairs"], stats["judge/ties"], stats["judge/order"]) == (4.0, 0.0, 0.0)


def test_one_that_cannot_be_compared_leaves_and_the_rest_are_as_without_it() -> None:
    opinions, groups = settled(Larger(), [response(3), response(13), response(1)])
    assert [r.tokens for r in groups[0].responses] == [[3], [1]]
    assert opinions.tally.failed == 1 and opinions.lost[0]["reason"] == "unlucky"
    assert batch_of(groups).beats.nan_to_num(-1).tolist() == [[-1, 1], [0, -1]]


def test_what_was_said_between_draws_is_said_again_of_the_whole_group() -> None:
    judge, rows = Larger(), [response(3), response(1)]

    async def program() -> list[list[float]]:
        opinions = Opinions(judge, TEXT)
        ask: Between[Example, Verdict] = Between(opinions)
        context = Context(None, verdicts=lambda responses: ask(EXAMPLE, responses))  # type: ignore[arg-type]
        other = Context(None, verdicts=lambda responses: ask(EXAMPLE, responses))  # type: ignore[arg-type]
        table, _ = await asyncio.gather(context.compare(rows), other.judge([response(8), response(8)]))
        assert await context.compare(rows[:1]) == [[0.5]], "of other company another matter"
        return table

    assert asyncio.run(program()) == [[0.5, 1.0], [0.0, 0.5]]
    assert judge.seen == [["3", "1"], ["8", "8"], ["3"]]
    _, groups = settled(judge, [*rows, response(7), response(0, verdict=Verdict(5.0, True, True, "given"))])
    assert judge.seen[-1] == ["3", "1", "7"], "a verdict that a program gave stands"
    assert batch_of(groups).reward.tolist() == [0.5, 0.0, 1.0, 5.0]


def test_a_program_compares_by_scores_where_the_judge_scores_and_asks_once() -> None:
    asked: list[int] = []

    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        asked.extend(r.tokens[0] for r in responses)
        return [Verdict.failure("x") if r.tokens[0] == 13 else Verdict(r.tokens[0], True, True, "") for r in responses]

    async def program() -> list[list[float]]:
        context, rows = Context(None, verdicts=judge), [response(2), response(13), response(2), response(5)]  # type: ignore[arg-type]
        await context.judge(rows[:2])
        return await context.compare(rows)

    table = asyncio.run(program())
    assert asked == [2, 13, 2, 5]
    assert [table[i][j] for i, j in ((0, 2), (0, 3), (3, 0), (0, 0))] == [0.5, 0.0, 1.0, 0.5]
    assert all(math.isnan(x) for x in table[1])


# Columns -------------------------------------------------------------------------------------------------------------


def test_places_are_found_after_rows_have_left_and_batches_were_joined() -> None:
    _, groups = settled(Larger(), [response(3), response(1), response(2)], [response(5), response(9)])
    first = batch_of(groups)
    _, groups = settled(Larger(), [response(4)])
    other = batch_of(groups)
    whole = join([first, other.replace(group=other.group + 7)])
    kept = whole[torch.tensor([0, 2, 3, 4, 5])]
    table = preferred(kept)
    assert table[0, 1] == 1.0 and table[1, 0] == 0.0 and table[3, 2] == 1.0
    assert table.diagonal().tolist() == [0.5] * 5
    assert table[:2, 2:].isnan().all() and table[4, :4].isnan().all()
    without = first.replace(beats=None, wins=None, group=first.group + 9)
    mixed = preferred(join([first, without]))
    assert mixed[5:, 5:].fill_diagonal_(0).nan_to_num(0).abs().sum() == 0, "rows that nobody compared beat nobody"


def test_without_comparisons_scores_decide() -> None:
    batch = make_batch(
        reward=torch.tensor([1.0, 3.0, 1.0, 7.0]), group=torch.tensor([0, 0, 0, 1]), mask=torch.ones(4, 2)
    )  # fmt: skip
    assert WinRate()(batch).reward.tolist() == [0.25, 1.0, 0.25, 0.5]
    table = preferred(batch, scale=2.0)
    assert float(table[1, 0]) == pytest.approx(1 / (1 + math.exp(-1)))
    assert float(table[0, 1] + table[1, 0]) == 1 and table[0, 3].isnan()


@pytest.mark.parametrize("votes", [False, True])
def test_the_mean_win_rate_of_a_group_is_one_half_whatever_the_judge_says(votes: bool) -> None:
    batch = random_batch()
    found = WinRate(votes=votes)(batch)
    for g in range(3):
        assert float(found.reward[batch.group == g].mean()) == pytest.approx(0.5)
    assert torch.equal(found.reward, batch.wins) is not votes
    if votes:
        assert ((found.reward[:4] * 3) % 1 == 0).all(), "whole wins of three"
        twice = WinRate(votes=True)(batch.replace(beats=0.5 + 0.1 * (batch.beats - 0.5)))
        assert torch.equal(twice.reward, found.reward), "only who wins counts"


# Held out ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beaten", "expected"),
    [
        ([[0.5, 1.0, 0.0]], 0.5),  # always one answer
        ([[0.5, 0.5, 0.5]], 0.0),  # all three alike
        ([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]], 0.0),  # one answer to each question, but not the same
        ([[0.6, 0.4], [0.9, 0.1]], 0.25),
    ],
)
def test_an_opponent_is_the_same_in_every_question(beaten: list[list[float]], expected: float) -> None:
    assert exploited(beaten) == {"exploitability": pytest.approx(expected)}


def test_without_opponents_nothing_is_said_and_unlike_numbers_are_refused() -> None:
    assert exploited([]) == {}
    with pytest.raises(ValueError, match=r"shorter|longer"):
        exploited([[0.5], [0.5, 0.5]])
