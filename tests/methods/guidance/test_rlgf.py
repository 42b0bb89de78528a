"""The page of rlgf."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.guidance.rlgf import GuidedValueLoss, WithGuide, rlgf
from policyopt.sources.draw import DatasetReset
from policyopt.sources.program import Response
from policyopt.training.rows import to_batch
from tests.asking import ask
from tests.batches import gradients, random_batch, ready
from tests.cases.words._scripted import given_tokens, verdict
from tests.methods.shared_targets import SOLUTION, Author, asked, characters, main_mask, with_guide
from tests.tiny import load_tiny

# RLGF ---------------------------------------------------------------------------------------------------------------


def draw(program: WithGuide, sampler: Author, guide: Author | None, key: tuple[int, ...] = (0, 0, 0)) -> list[Response]:
    return asyncio.run(
        program.draw(*asked(sampler, key, program=program, samplers={} if guide is None else {"teacher": guide}))
    )


@pytest.mark.parametrize("seed", range(2))
def test_rlgf_without_a_guide_and_targets_is_ppo(seed: int) -> None:
    mine = rlgf(share=0.0, target_coef=0.0)
    parent = ppo(vf_coef=0.5, kl_coef=0.001, gamma=0.99, epochs=5)
    batch = random_batch(seed)
    loss, found = gradients(mine, ready(mine, batch))
    expected, theirs = gradients(parent, ready(parent, batch))
    torch.testing.assert_close(loss, expected)
    for leaf in ("logp", "value"):
        torch.testing.assert_close(found[leaf], theirs[leaf], rtol=1e-12, atol=1e-15)
        assert found[leaf].abs().max() > 1e-3
    policy, guide = Author([[5, 6, 2]]), Author([[8, 2]])
    rows = draw(mine.source, policy, guide)  # type: ignore[arg-type]
    assert [(r.tokens, r.own, r.guided) for r in rows] == [([5, 6, 2], [], [])]
    assert not guide.requests


def test_ppo_plus_plus_with_stored_references_is_dr_po() -> None:
    for i in range(20):
        one, two = Author([[5, 6, 2]]), Author([[5, 6, 2]])
        mine = draw(WithGuide(size=3, share=0.7, targets=False), one, Author([SOLUTION]), (0, i, 0))
        theirs = asyncio.run(DatasetReset(size=3, share=0.7).draw(*asked(two, (0, i, 0))))
        assert [(r.tokens, r.own, r.logp) for r in mine] == [(r.tokens, r.own, r.logp) for r in theirs]
        assert one.requests == two.requests


def test_the_settings_share_out_the_tokens_of_a_response() -> None:
    """What the policy learns from in the one setting, it does not in the other."""
    seen = set()
    for i in range(40):
        policy, guide = Author([[5, 6, 7, 5, 6, 2]]), Author([[8, 9, 8, 9, 8, 2]])
        how: dict[str, Any] = {"size": 1, "share": 0.8, "targets": False}
        batches, h = {}, {}
        for setting in ("ppo++", "aggrevated"):
            [row] = draw(WithGuide(algorithm=setting, **how), policy, guide, (0, i, 0))
            batches[setting] = to_batch([()], [row], [verdict(1.0)], [0], 40)
            h[setting] = given_tokens(row) if setting == "ppo++" else row.guided.index(True)
        (_, over), (_, under) = batches.items()
        assert h["ppo++"] == h["aggrevated"], "the same chances"
        seen.add(h["ppo++"])
        assert over.mask[0].tolist() == [0.0] * h["ppo++"] + [1.0] * 6, "the guide's beginning is context"
        assert under.own()[0].tolist() == [1.0] * h["ppo++"] + [0.0] * 6
        assert under.mask.all(), "scored and valued to the end"
        assert GuidedValueLoss().learned(under).tolist() == (under.mask - under.own()).tolist()
        assert GuidedValueLoss().learned(over).tolist() == over.mask.tolist()
    assert seen == {0, 1, 2, 3, 4, 5}, "at least the last of six is left to the other"


def test_the_guide_goes_on_where_the_policy_stopped() -> None:
    policy, guide = Author([[5, 6, 7, 2]]), Author([[8, 9, 2]])
    [row, target] = draw(WithGuide(algorithm="aggrevated", size=1, share=1.0, temperature=0.6), policy, guide)
    h = row.guided.index(True)
    assert row.tokens == [*[5, 6, 7, 2][:h], 8, 9, 2] and 1 <= h <= 3
    assert row.logp == [-1.0] * h + [-3.0] * 3, "its tokens have the policy's log-probabilities"
    assert row.finished and not row.own and row.temperature == 0.6
    assert guide.requests[0][0] == (*characters("1+1?"), *[5, 6, 7, 2][:h])
    assert guide.requests[0][1]["max_tokens"] == 40 - h
    assert (target.origin, target.tokens) == (1, list(SOLUTION))
    with pytest.raises(UserError, match="--teacher"):
        draw(WithGuide(size=1), policy, None)


def test_lols_draws_its_steps_and_d2lols_switches_once() -> None:
    lols, late = WithGuide(algorithm="lols", tau=0.3, size=1, share=1.0), WithGuide(algorithm="d2lols", tau=5, size=1)
    settings = [late.setting(step, 0.5) for step in range(12)]
    assert settings == ["aggrevated"] * 5 + ["ppo++"] * 7
    first: dict[int, set[bool]] = {}
    for step in range(200):
        for prompt in range(2):
            [row, _] = draw(lols, Author([[5, 5, 2]]), Author([[8, 8, 2]]), (0, step, prompt))
            first.setdefault(step, set()).add(row.tokens[0] == 8)
    assert all(len(kinds) == 1 for kinds in first.values()), "all prompts of a step have the same setting"
    assert 0.2 < sum(kinds == {True} for kinds in first.values()) / 200 < 0.4


@pytest.mark.parametrize("seed", range(2))
def test_the_tokens_of_a_guide_carry_value_and_never_policy_gradient(seed: int) -> None:
    batch, recipe = with_guide(seed), rlgf("aggrevated")
    guided, own = main_mask(batch) * batch.guided, main_mask(batch) * (1 - batch.guided)
    _, found = gradients(recipe, ready(recipe, batch))
    assert not found["logp"][guided > 0].any()
    assert found["logp"][(own > 0) & (batch.guided == 0)].any()
    targets = batch.mask * (batch.origin == 1)[:, None]
    torch.testing.assert_close(found["logp"] * targets, -0.1 * targets / targets.sum())
    assert ((found["value"] != 0) <= (guided > 0)).all(), "every row has tokens of the guide, so these alone"
    assert found["value"].any()
    later = ready(recipe, batch.replace(old_value=batch.old_value + guided))
    raw = rlgf("aggrevated").set("advantage.inner.whiten", False)
    moved = (raw.advantage(later) - raw.advantage(ready(recipe, batch))) * own
    assert moved.abs().max() > 0.1, "what the critic thinks of the guide's text credits the policy's"
    whitened = ready(recipe, batch).advantage[own > 0]
    assert float(whitened.mean()) == pytest.approx(0, abs=1e-9), "over the policy's own tokens"


def test_the_critic_has_a_mean_of_its_own() -> None:
    batch = with_guide()
    critic = GuidedValueLoss(coef=1.0, clip=None)
    full = batch.replace(returns=torch.zeros_like(batch.mask))
    learned = main_mask(batch) * batch.guided
    expected = 0.5 * (batch.value**2 * learned).sum() / learned.sum()
    torch.testing.assert_close(critic(full), expected)
    plain = full.replace(guided=None, origin=None)
    torch.testing.assert_close(critic(plain), 0.5 * (batch.value**2 * batch.mask).sum() / batch.mask.sum())


def test_a_guide_and_a_policy_of_one_model_write_as_the_policy_does(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    sampler, guide = LocalSampler.of(policy), LocalSampler.of(policy)
    prompts = [
        ask(sampler, (40, 41, 42 + i), 12, (0, 0, i), None, (50, 51, 2), samplers={"teacher": guide}) for i in range(4)
    ]
    for setting in ("ppo++", "aggrevated"):
        program = WithGuide(algorithm=setting, share=0.9, size=2, temperature=0.8)
        found = sampler.run([program.draw(*p) for p in prompts])
        again = sampler.run([program.draw(*p) for p in prompts])
        assert [[r.tokens for r in rows] for rows in found] == [[r.tokens for r in rows] for rows in again]
        for (question, _), rows in zip(prompts, found, strict=True):
            whole = sampler.run([sampler.logprobs(question.tokens, tuple(r.tokens), temperature=0.8) for r in rows])
            for row, scored in zip(rows, whole, strict=True):
                own = row.own or [True] * len(row.tokens)
                mine = [x for x, ours in zip(row.logp, own, strict=True) if ours]
                theirs = [x for x, ours in zip(scored.logp, own, strict=True) if ours]
                assert mine == pytest.approx(theirs, abs=1e-6)
                assert len(row.tokens) <= 12 and row.temperature == 0.8
