"""The page of supo."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from policyopt.environments.world import Action, Environment, Observation
from policyopt.methods.agents.supo import Summarised, supo
from policyopt.objective import credit, selected
from policyopt.sources.program import Response
from tests.batches import gradients, random_batch, ready
from tests.played import TEXT, Scripted, as_batch, play


class Long(Environment):
    """Five turns, in each of which it says thirty characters; the reward comes with the last one."""

    instant: ClassVar[bool] = True
    last: ClassVar[int] = 5

    def reset(self, seed: int, row: object) -> Observation:
        self.turn, self.heard = 0, list[str]()
        return Observation()

    def step(self, action: Action) -> Observation:
        self.turn += 1
        self.heard.append(str(action))
        return Observation("x" * 30, reward=float(self.turn == self.last), done=self.turn == self.last, correct=True)


def says(context: str, key: tuple[int, ...]) -> str:
    return "sum of it" if context.endswith("Sum up.") else "go"


def rows(budget: int = 100) -> tuple[list[Response], Scripted]:
    sampler = Scripted(says)
    program = Summarised(size=1, request="Sum up.")
    return play(program, sampler, Long, budget=budget), sampler


def test_an_episode_that_fits_is_one_row() -> None:
    found, sampler = rows(budget=1000)
    assert len(found) == 1 and found[0].context == () and found[0].finished
    assert found[0].columns["episode"] == 0 and len(found[0].columns["turn_end"]) == 5  # type: ignore[arg-type]
    assert not any("Sum up." in context for context in sampler.contexts)


def test_a_full_context_is_summed_up_and_begun_anew() -> None:
    found, _ = rows()
    assert len(found) > 1 and [r.turn for r in found] == list(range(len(found)))
    assert all(len(r.tokens) <= 100 and r.finished for r in found)
    assert all(r.verdict is not None and r.verdict.score == 1.0 and r.verdict.correct for r in found), "one verdict"
    first, second = found[:2]
    wrote = TEXT.decode([t for t, own in zip(first.tokens, first.own, strict=True) if own])
    assert wrote.endswith("sum of it"), "the summary is the policy's own in the row that wrote it"
    assert TEXT.decode(second.context) == "q?\nSo far: sum of it"
    assert "x" not in TEXT.decode(second.context), "the rest is forgotten"
    columns: list[Any] = [r.columns for r in found]
    turns = sum(len(c["turn_end"]) for c in columns)
    assert turns == 5 + len(found) - 1, "five turns and the summaries"
    assert sum(sum(c["turn_reward"]) for c in columns) == 1.0


def test_without_summaries_left_an_episode_is_cut_off() -> None:
    class Longer(Long):
        last: ClassVar[int] = 9

    found = play(Summarised(size=1, summaries=1, request="Sum up."), Scripted(says), Longer, budget=100)
    assert len(found) == 2 and not found[-1].finished
    batch = as_batch(found, supo().needs)
    assert not selected(supo(), credit(supo(), batch)).any(), "its first row teaches nothing either"
    assert selected(supo(overlong_mask=False), credit(supo(), batch)).all()


def test_an_episode_counts_once_however_many_rows_it_has() -> None:
    batch = random_batch(groups=(4, 3), lengths=(6,) * 7)
    one = batch.replace(episode=torch.arange(7), truncated=0 * batch.truncated)
    several = torch.tensor([0, 0, 0, 1, 2, 3, 4, 4, 5, 6])
    torn = one[several].replace(episode=several)
    recipe = supo()
    torch.testing.assert_close(credit(recipe, torn).advantage[:, 0], credit(recipe, one).advantage[several][:, 0])


def test_rows_of_the_same_tokens_have_the_same_loss() -> None:
    batch = random_batch(groups=(3,), lengths=(6,) * 3)
    batch = batch.replace(episode=torch.arange(3), truncated=0 * batch.truncated)
    halves = batch[torch.tensor([0, 0, 1, 2])]
    mask = halves.mask.clone()
    mask[0, 3:], mask[1, :3] = 0, 0
    torn = halves.replace(mask=mask)
    (loss, got), (other, wanted) = (gradients(supo(), ready(supo(), b)) for b in (torn, batch))
    torch.testing.assert_close(loss, other)
    torch.testing.assert_close(got["logp"][0] + got["logp"][1], wanted["logp"][0])


def test_a_judge_says_of_the_last_row_what_the_episode_was_worth() -> None:
    class Silent(Long):
        def step(self, action: Action) -> Observation:
            said = super().step(action)
            return Observation(said.text, done=said.done)

    program = Summarised(size=2, request="Sum up.")
    found = play(program, Scripted(says), Silent, budget=100, judged=True)
    for number in (0, 1):
        mine = [r for r in found if r.columns["episode"] == number]
        assert {r.verdict.score for r in mine if r.verdict} == {float(len(mine[-1].tokens))}


@pytest.mark.parametrize("full", [0.3, 0.9])
def test_tokens_of_a_row_never_exceed_its_budget(full: float) -> None:
    program = Summarised(size=1, full=full, request="Sum up.", summaries=9)
    assert all(len(r.tokens) <= 90 for r in play(program, Scripted(says), Long, budget=90))
