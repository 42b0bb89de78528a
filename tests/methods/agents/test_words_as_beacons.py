"""The page of Words as Beacons."""

from __future__ import annotations

import asyncio

import pytest
import torch

from policyopt.methods.agents.words_as_beacons import OrderedSubgoals, words_as_beacons
from policyopt.methods.critic.ppo import ppo
from policyopt.rows import Batch, make_batch
from policyopt.schema import member
from policyopt.training.rows import to_batch
from tests.batches import dlogp, random_batch
from tests.methods.agents.playing import played


def episode(key: list[int], door: list[int], **fields: float) -> list[float]:
    counts = {"key": key, "door": door}
    n = len(key)
    batch: Batch = make_batch(
        mask=torch.ones(1, n), reward=torch.ones(1), turn_end=torch.arange(n)[None], group=torch.zeros(1, dtype=torch.long)
    )  # fmt: skip
    batch = batch.replace(**{member("turn_number", name): torch.tensor([x]).float() for name, x in counts.items()})
    found: list[float] = OrderedSubgoals(max_turns=10, **fields).bonus(batch)[0].tolist()  # type: ignore[arg-type]
    return found


def test_each_subgoal_pays_once_in_its_order() -> None:
    assert episode([0, 1, 1, 0], [1, 0, 0, 1]) == pytest.approx([0, 0.2 * 0.8, 0, 0.2 * 0.8])
    assert episode([1, 0, 0, 0], [1, 0, 0, 1]) == pytest.approx([0.2 * 0.9, 0, 0, 0.2 * 0.7]), "one in a turn"
    assert episode([0, 0, 0, 0], [1, 1, 1, 1]) == [0, 0, 0, 0]


def test_sooner_pays_more_and_never_more_than_alpha_each() -> None:
    early, late = sum(episode([1, 0, 0], [0, 1, 0])), sum(episode([0, 1, 0], [0, 0, 1]))
    assert 0 < late < early < 2 * 0.2


def test_without_a_bonus_and_decay_it_is_ppo() -> None:
    recipe = words_as_beacons(subgoals=("goal",), decay=0.0)
    batch = random_batch(needs=recipe.needs)
    assert torch.equal(dlogp(recipe, batch), dlogp(ppo(kl_coef=0.0, entropy_coef=5e-4), batch))
    silent = words_as_beacons(alpha=0.0, decay=0.0)
    assert torch.equal(dlogp(silent, random_batch(needs=silent.needs)), dlogp(recipe, batch))


def test_what_a_world_counts_in_a_turn_arrives_turn_by_turn() -> None:
    responses = asyncio.run(played(["a", "bcd", "ef"]))
    need = member("turn_number", "letters")
    batch = to_batch([(1,)], responses, [responses[0].verdict], [0], 40, needs=frozenset({need}))  # type: ignore[list-item]
    assert batch.members("turn_number")["letters"].tolist() == [[1, 3, 2]]
    assert batch.component("letters").tolist() == [6]
    never = to_batch([(1,)], responses, [responses[0].verdict], [0], 40, needs=frozenset({"turn_number[key]"}))  # type: ignore[list-item]
    assert never.members("turn_number")["key"].tolist() == [[0, 0, 0]], "as wide as there are turns"
    assert batch.turn_end is not None
    assert not to_batch([(1,)], responses, [responses[0].verdict], [0], 40).members("turn_number")  # type: ignore[list-item]
