"""The page of epo."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from policyopt import methods as po
from policyopt.methods.entropy.epo import EntropyBand, TurnHistory, TwoPhases, two_phases
from policyopt.steering import States, control
from tests.batches import random_batch


def test_the_band_is_that_of_the_turn_and_starts_late() -> None:
    batch = random_batch(lengths=(6,) * 9)
    batch = batch.replace(entropy=torch.full_like(batch.entropy, 1.0), turn=torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2]))
    band = EntropyBand(history=(1.0, 5.0), max_turns=3, alpha=0.2, phase=0.5)
    outside = band.penalty(batch)
    assert (outside[:3] == 0).all(), "turn 0 is inside its band"
    assert (outside[3:6] == 0.1).all(), "turn 1 is below its own"
    assert (outside[6:] == 0).all(), "turn 2 has no history"
    assert not torch.equal(band.penalty(batch.replace(turn=batch.turn.roll(1))), outside)
    early = batch.replace(turn=torch.zeros_like(batch.turn))
    assert not band.applied(early)
    assert not replace(band, history=(5.0, 5.0)).penalty(early).any()


def test_with_a_lower_edge_of_zero_only_no_entropy_at_all_is_too_little() -> None:
    batch = random_batch()
    band = EntropyBand(low=0.0, high=1e9, history=(1.0,))
    assert not band.penalty(batch).any()
    assert band.penalty(batch.replace(entropy=torch.zeros_like(batch.entropy)))[batch.mask > 0].all()


def test_by_response_the_mean_entropy_decides_for_all_its_tokens() -> None:
    batch = random_batch(3)
    penalty = EntropyBand(level="sequence", history=(0.8,), low=0.9, high=1.1).penalty(batch)
    for row, mask in zip(penalty, batch.mask.bool(), strict=True):
        assert row[mask].unique().numel() == 1
    assert penalty.any()


def test_the_weight_of_the_phases() -> None:
    values = [two_phases(step, 150) for step in (0, 75, 75.001, 150)]
    assert values == pytest.approx([1, 1 - 0.2 * (1 - math.exp(-2)), 0.8, 0.8 * math.exp(-3)], rel=1e-3)
    recipe, controller = po.epo(max_epochs=4), TwoPhases("regularizers.EntropyBand.phase", 4)
    assert controller in recipe.controllers
    states: States = {}
    seen = []
    for _ in range(7):
        recipe = control(recipe, {}, states)
        seen.append(recipe.get("regularizers.EntropyBand.phase"))
    assert seen == pytest.approx([two_phases(min(s, 4), 4) for s in range(7)])


def test_the_history_of_a_turn_is_its_mean_over_the_steps_that_reached_it() -> None:
    batch = random_batch(lengths=(6,) * 9)
    recipe = po.epo(max_turns=3)
    recipe = recipe.replace(controllers=tuple(c for c in recipe.controllers if isinstance(c, TurnHistory)))
    states: States = {}
    means: list[list[float]] = [[], [], []]
    for seed, turns in enumerate(([0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0, 0, 1, 1])):
        step = batch.replace(entropy=random_batch(seed).entropy.abs() + 0.1, turn=torch.tensor(turns))
        step = step.replace(entropy=torch.where(step.mask > 0, step.entropy, torch.nan))
        said = recipe.regularizers[0].metrics(step)
        metrics = {name: float(torch.where(step.mask > 0, x, 0.0).sum() / step.mask.sum()) for name, x in said.items()}
        recipe = control(recipe, metrics, states)
        for u in set(turns):
            means[u].append(float(step.entropy[step.turn == u].mean()))
        reached = [sum(m) / len(m) for m in means if m]
        assert recipe.get("regularizers.EntropyBand.history") == pytest.approx(reached)
    assert control(recipe, {}, states) == recipe, "a step without tokens changes nothing"


def test_in_rows_that_are_episodes_each_token_is_held_against_its_own_turn() -> None:
    batch = random_batch(lengths=(6,) * 9)
    batch = batch.replace(entropy=torch.full_like(batch.entropy, 1.0), turn_end=torch.tensor([[2, 5]] * 9))
    band = EntropyBand(history=(1.0, 5.0), max_turns=2, alpha=0.2, rows="episodes")
    assert (band.penalty(batch)[:, :3] == 0).all(), "turn 0 is inside its band"
    assert (band.penalty(batch)[:, 3:] == 0.2).all(), "turn 1 is below its own"
    entropy = batch.entropy.clone()
    entropy[:, 3] = 13.0  # the mean of turn 1 is now 5
    by_turn = replace(band, level="sequence")
    assert not by_turn.penalty(batch.replace(entropy=entropy)).any()
    said = band.metrics(batch)
    assert said["turn/1/share"].sum() == 27 and said["turn/0/entropy"][:, 3:].sum() == 0
    one = batch.replace(turn_end=torch.tensor([[5]] * 9))
    assert not band.applied(one.replace(turn_end=torch.tensor([[-1]] * 9))), "one turn alone is early"
    with pytest.raises(ValueError, match="rows"):
        EntropyBand(rows="words")  # type: ignore[arg-type]
