"""The pages of xpo and vpo, and the source that both draw with."""

from __future__ import annotations

import asyncio

import pytest
import torch

from policyopt.methods.games.online_dpo import online_dpo
from policyopt.methods.games.vpo import vpo
from policyopt.methods.games.xpo import xpo
from policyopt.methods.preference.dpo import dpo
from policyopt.objective import objective
from policyopt.sources.draw import GroupFrom
from tests.batches import dlogp, random_batch, ready
from tests.methods.shared_surrogates import same
from tests.methods.shared_targets import Author, asked


def test_the_bonus_lowers_the_reference_whoever_won() -> None:
    batch = random_batch(groups=(2, 2)).replace(
        origin=torch.tensor([0, 1, 0, 1]), reward=torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    )
    plain, mine = dlogp(online_dpo(0.5), batch), dlogp(xpo(0.5, alpha=0.05), batch)
    same(mine - plain, 0.05 / 2 * batch.mask * (batch.origin == 1)[:, None])
    assert (mine[3] * batch.mask[3]).sum() > (plain[3] * batch.mask[3]).sum(), "against the pull of the pair"
    same(dlogp(xpo(0.5, alpha=0.0), batch), plain)
    tied = batch.replace(reward=torch.zeros(4).double())
    same(dlogp(xpo(0.5, alpha=0.05), tied), 0.05 / 2 * batch.mask * (batch.origin == 1)[:, None])


def test_xpo_is_vpo_with_alpha_over_beta() -> None:
    three = random_batch(groups=(3, 3)).replace(origin=torch.tensor([0, 0, 1] * 2))
    pairs = three.origin == 0
    term = dlogp(vpo(0.5, alpha=0.1), three)
    same(term[pairs], dlogp(online_dpo(0.5), three[pairs]))
    same(term[~pairs], 0.1 * 0.5 / 2 * three.mask[~pairs])
    same(dlogp(vpo(0.5, alpha=0.1, optimism=False), three)[~pairs], -0.1 * 0.5 / 2 * three.mask[~pairs])


def test_vpo_offline_pulls_the_chosen_side_and_is_dpo_at_alpha_0() -> None:
    batch = random_batch(groups=(2, 2)).replace(reward=torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64))
    mine, plain = (dlogp(r, batch) for r in (vpo(0.5, 0.2, False, "chosen"), dpo(0.5)))
    same(mine - plain, -0.2 * 0.5 / 2 * batch.mask * batch.reward[:, None])
    assert vpo(0.5, 0.0, False, "chosen") == dpo(0.5)
    still = batch.replace(logp=batch.ref_logp)
    one, two = vpo(0.5, 0.2, False, "chosen"), dpo(0.5)
    same(objective(one, ready(one, still)), objective(two, ready(two, still)))


def test_two_models_write_with_random_numbers_of_their_own() -> None:
    mine, theirs = Author([[5, 2]]), Author([[8, 2], [9, 2]])
    program = GroupFrom(size=3, own=1, temperature=0.7, top_k=4)
    rows = asyncio.run(program.draw(*asked(mine, program=program, samplers={"reference": theirs})))
    assert [(r.tokens, r.origin) for r in rows] == [([5, 2], 0), ([8, 2], 1), ([9, 2], 1)]
    [(_, one)], [(_, two)] = mine.requests, theirs.requests
    assert one["key"] != two["key"] and one["temperature"] == two["temperature"] == 0.7
    assert two["truncation"].top_k == 4, (
        "the run truncates the draws of the policy, the program those of the other model"
    )
    alone = GroupFrom(size=2)
    rows = asyncio.run(alone.draw(*asked(mine, program=alone, samplers={"reference": theirs})))
    assert [r.origin for r in rows] == [0, 0] and len(mine.requests) == 1
    assert alone.roles == {"reference"}
    with pytest.raises(ValueError, match="own is 2 of 2 responses, which leaves none to the teacher"):
        GroupFrom(size=2, own=2, role="teacher")
