"""The page of aepo."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import torch

from policyopt import methods as po
from policyopt.methods.entropy.aepo import GroupWithAuxiliary, ReplaceByAuxiliary, RewardedAuxiliary
from policyopt.sources.program import Response
from tests.asking import ask
from tests.batches import random_batch
from tests.methods.shared_entropy import SEEDS

# AEPO and DCPO -------------------------------------------------------------------------------------------------------


@SEEDS
def test_auxiliary_rows_are_a_group_of_their_own_and_worth_a_constant_or_nothing(seed: int) -> None:
    batch = random_batch(seed, groups=(6, 6), lengths=(3,) * 12)
    origin = torch.tensor([0, 0, 0, 0, 1, 1] * 2)
    found = RewardedAuxiliary(constant=2.0, threshold=0.05)(batch.replace(origin=origin))
    main = origin == 0
    torch.testing.assert_close(found[main], po.grpo().advantage(batch[main]))
    for g in (0, 1):
        own = (batch.group == g) & ~main
        best = batch.reward[own] == batch.reward[own].max()
        assert torch.equal(found[own], 2.0 * best[:, None] * batch.mask[own])


def test_rewarded_auxiliary_rows_replace_as_many_of_the_main_program() -> None:
    batch = random_batch(lengths=(2,) * 9).replace(origin=torch.tensor([0, 0, 1, 0, 1, 1, 0, 1, 0]), noise=None)
    batch = batch.replace(advantage=torch.tensor([0.0, -1, 1, 0, 0, 1, 3, 1, -2])[:, None] * batch.mask)
    rule = ReplaceByAuxiliary(limit=2)
    assert rule(batch).nonzero()[:, 0].tolist() == [2, 3, 5, 6, 8]
    assert replace(rule, limit=0)(batch).nonzero()[:, 0].tolist() == [0, 1, 3, 6, 8]
    assert replace(rule, limit=9, share=0.5)(batch).nonzero()[:, 0].tolist() == [1, 2, 3, 6, 8]
    assert rule(batch.replace(origin=None)).all()
    turn = torch.tensor([0.5, 0.4, 0.9, 0.1, 0.0, 0.2, 0.3, 0.3, 0.9])
    drawn = batch.replace(noise=turn[:, None] * batch.mask)
    assert rule(drawn).nonzero()[:, 0].tolist() == [0, 1, 5, 7, 8], "those whose turn comes first, of either kind"
    order = torch.tensor([4, 8, 0, 3, 7, 1, 2, 6, 5])
    assert torch.equal(rule(drawn[order]), rule(drawn)[order]), "whatever the order of rows"


class Spy:
    """A sampler that only writes down what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, tuple[int, ...]]] = []

    async def generate(
        self, tokens: tuple[int, ...], *, n: int, max_tokens: int, temperature: float, key: tuple[int, ...]
    ) -> list[Response]:
        self.calls.append((temperature, key))
        return [Response([1], [-0.5], [0.5], "eos", temperature=temperature) for _ in range(n)]


def test_one_prompt_in_four_is_answered_at_another_temperature_but_scored_at_the_main_one() -> None:
    rollout = GroupWithAuxiliary(size=3, temperature=0.9, auxiliary_temperature=1.3)
    spy = Spy()
    sizes = []
    for i in range(8):
        drawn = asyncio.run(rollout.draw(*ask(spy, (1, 2), 5, (0, 0, i))))
        sizes.append(len(drawn))
        assert [r.origin for r in drawn] == [0] * 3 + [1] * (len(drawn) - 3)
        assert {r.temperature for r in drawn} == {0.9}
    assert sizes == [6, 3, 3, 3] * 2
    assert sorted(t for t, _ in spy.calls) == [0.9] * 8 + [1.3] * 2
    assert len({key for _, key in spy.calls}) == 10, "no two draws share their randomness"
    assert "rollout_logp" in rollout.needs, "the sampler's log-probabilities are of the wrong temperature"
