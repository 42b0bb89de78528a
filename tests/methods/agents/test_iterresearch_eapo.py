"""The page of iterresearch-eapo."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from policyopt.environments.world import Action, Environment, Observation
from policyopt.methods.agents.iterresearch_eapo import RoundDiscount, WholeMultiple, Workspace, iterresearch_eapo
from policyopt.objective import shaped
from policyopt.rows import Batch, make_batch
from tests.batches import random_batch
from tests.played import TEXT, Scripted, as_batch, play


class Rounds(Environment):
    """Ends after as many rounds as its class says."""

    instant: ClassVar[bool] = True
    last: ClassVar[int] = 4

    def reset(self, seed: int, row: Any) -> Observation:
        self.turn = 0
        return Observation()

    def step(self, action: Action) -> Observation:
        self.turn += 1
        return Observation(f"found {self.turn}", reward=float(self.turn == self.last), done=self.turn == self.last)


def says(context: str, key: tuple[int, ...]) -> str:
    if "found 2" in context:
        return "look again"
    return f"<report>know {len(context)}</report>look"


def test_every_round_has_a_context_of_its_own() -> None:
    sampler = Scripted(says)
    found = play(Workspace(size=1), sampler, Rounds)
    assert len(found) == 4 and [r.turn for r in found] == [0, 1, 2, 3]
    assert all(r.finished and not r.own for r in found), "the policy wrote every token of every row"
    read = [TEXT.decode(r.context) for r in found]
    assert "found 1" in read[1] and "know" in read[1] and "Last action: look" in read[1]
    assert "found 1" not in read[2] and "found 2" in read[2]
    report = read[2].split("Report: ")[1].split("\n")[0]
    assert f"Report: {report}" in read[3], "who writes no report keeps the one there was"
    assert max(map(len, read[1:])) - min(map(len, read[1:])) <= 8, "prompts do not grow"
    assert all(r.verdict is not None and r.verdict.score == 1 for r in found)


def rounds(*lengths: int, reward: tuple[float, ...]) -> Batch:
    rows = [(j, t) for j, n in enumerate(lengths) for t in range(n)]
    mask = torch.ones(len(rows), 2, dtype=torch.float64)
    return make_batch(
        mask=mask, group=torch.zeros(len(rows), dtype=torch.long), episode=torch.tensor([j for j, _ in rows]),
        turn=torch.tensor([t for _, t in rows]), reward=torch.tensor([reward[j] for j, _ in rows], dtype=torch.float64),
    )  # fmt: skip


def test_early_rounds_of_long_episodes_are_worth_less() -> None:
    found = RoundDiscount(gamma=0.5)(rounds(3, 2, 2, reward=(1.0, 1.0, 0.0))).reward.tolist()
    assert found == [0.25, 0.5, 1.0, 0.5, 1.0, 0.0, 0.0]
    assert RoundDiscount(gamma=1.0)(rounds(3, reward=(0.7,))).reward.tolist() == [0.7] * 3


def test_one_round_is_gspo() -> None:
    batch = random_batch()
    batch = batch.replace(turn=torch.zeros(len(batch), dtype=torch.long), episode=torch.arange(len(batch)))
    torch.testing.assert_close(shaped(iterresearch_eapo(), batch).reward, batch.reward)


def test_rows_are_trimmed_by_chance() -> None:
    noise = torch.rand(21, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = make_batch(mask=torch.ones_like(noise), noise=noise)
    kept = WholeMultiple(of=8)(batch)
    assert int(kept.sum()) == 16 and not kept[:16].all()
    order = torch.randperm(21, generator=torch.Generator().manual_seed(1))
    assert torch.equal(WholeMultiple(of=8)(batch[order]), kept[order]), (
        "which ones follows from the rows, not from their order"
    )


def test_rows_make_a_batch() -> None:
    batch = as_batch(play(Workspace(size=2), Scripted(says), Rounds), iterresearch_eapo(multiple=2).needs)
    assert batch.episode.tolist() == [0] * 4 + [1] * 4 and batch.turn.tolist() == [0, 1, 2, 3] * 2
    assert len({int(n) for n in batch.prompt_mask.sum(1)}) > 1
