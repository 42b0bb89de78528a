"""Targets of likelihood beside the responses, and guides that write a part of them: ExPO, GRAO, RLGF."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.guidance.rlgf import GuidedValueLoss, WithGuide, rlgf
from policyopt.methods.target.expo import SelfExplained, expo
from policyopt.methods.target.grao import PromptMean, WithReference, grao
from policyopt.objective import credit, objective
from policyopt.parts import FromProgram, Likelihood, LogProb, Normalise, OwnTokens, SeqMeanTokenMean
from policyopt.parts.surrogate.contrast import row_credit
from policyopt.recipe import Recipe
from policyopt.rows import Batch, join
from policyopt.sources.draw import DatasetReset
from policyopt.sources.program import Response
from policyopt.steering import scheduled
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.rows import to_batch
from policyopt.training.run import run
from tests.asking import Asked, ask
from tests.batches import dlogp, gradients, poisoned, random_batch, ready
from tests.cases.words._scripted import Script, given_tokens, verdict
from tests.commands import lines, write_rows
from tests.engine.test_local import assert_same_for_any_partition, drawn, engine_of
from tests.tiny import load_tiny

SOLUTION = (11, 12, 13, 14, 15, 2)
SOURCE = torch.tensor([0, 0, 0, 1, 0, 1, 0, 0, 1, 1])
"""Two prompts with one target each, one with two."""
GROUPS = (4, 2, 4)


def with_targets(seed: int = 0, **changes: Any) -> Batch:
    return random_batch(seed, groups=GROUPS, **changes).replace(origin=SOURCE)


def with_guide(seed: int = 0) -> Batch:
    """Rows that a guide finished after 0, 1 or 2 tokens, and targets."""
    batch = with_targets(seed, lengths=(5, 6, 3, 4, 2, 6, 4, 1, 5, 3))
    begun = torch.tensor([2, 1, 0, 9, 1, 9, 2, 0, 9, 9])
    return batch.replace(guided=(torch.arange(6) >= begun[:, None]).double() * batch.mask)


def main(batch: Batch) -> Batch:
    return batch[batch.origin == 0]


# Shares -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [expo, grao, rlgf])
@pytest.mark.parametrize("seed", range(2))
def test_neither_padding_nor_the_order_of_rows_is_of_account(make: Any, seed: int) -> None:
    recipe: Recipe = make()
    batch = with_guide(seed) if recipe.critic else with_targets(seed)
    loss, found = gradients(recipe, ready(recipe, batch))
    for poison in (float("nan"), 1e6):
        wide = poisoned(batch, poison, extra=2)
        again, g = gradients(recipe, ready(recipe, wide))
        torch.testing.assert_close(again, loss)
        torch.testing.assert_close(g["logp"][:, :6], found["logp"])
        assert not g["logp"][:, 6:].any()
    order = torch.tensor([9, 2, 0, 5, 1, 3, 4, 7, 6, 8])
    again, g = gradients(recipe, ready(recipe, batch[order]))
    torch.testing.assert_close(again, loss)
    for leaf in ("logp", "value"):
        torch.testing.assert_close(g[leaf], found[leaf][order])


@pytest.mark.parametrize("make", [expo, grao, rlgf])
def test_any_micro_batches_give_the_same_gradient(make: Any, tiny_model: Path) -> None:
    recipe: Recipe = make()
    engine = engine_of(tiny_model, recipe)
    batch = drawn(engine, recipe).replace(origin=torch.tensor([0, 0, 1, 0, 0, 0, 1]))
    if recipe.critic:
        guide = torch.zeros_like(batch.mask)
        guide[1, 4:] = guide[4, 0:] = 1
        batch = batch.replace(guided=guide * batch.mask)
    assert_same_for_any_partition(engine, recipe, credit(recipe, batch))


def test_targets_have_no_share_and_count_in_no_denominator() -> None:
    batch = with_targets()
    share = OwnTokens(inner=SeqMeanTokenMean())(batch)
    torch.testing.assert_close(share[SOURCE == 0], SeqMeanTokenMean()(main(batch)), rtol=0, atol=0)
    assert not share[SOURCE == 1].any()
    assert OwnTokens()(batch).sum() == pytest.approx(1)
    torch.testing.assert_close(OwnTokens()(batch.replace(origin=None)), batch.mask / batch.mask.sum())
    assert OwnTokens()(batch[SOURCE == 1]).sum() == 0, "nothing but targets"
    guided = with_guide()
    assert ((OwnTokens()(guided) > 0) == (main_mask(guided) * (1 - guided.guided) > 0)).all()


def main_mask(batch: Batch) -> Tensor:
    return batch.mask * (batch.origin == 0)[:, None]


def test_the_log_averages_over_the_tokens_that_count(tiny_model: Path) -> None:
    recipe = expo(low=0.01, high=0.01)
    engine = engine_of(tiny_model, recipe, micro_batch=3)
    batch = drawn(engine, recipe).replace(origin=torch.tensor([0, 0, 1, 0, 0, 0, 1]))
    batch = credit(recipe, batch)
    sums = engine.gradient(recipe, batch).sums
    alone = engine.gradient(grpo(low=0.01, high=0.01), credit(grpo(), main(batch))).sums
    assert sums["tokens"] == alone["tokens"] < batch.mask.sum()
    for name in ("clip_fraction/low", "clip_fraction/high"):
        assert sums[name] == alone[name]
    assert sums["signal/positive"] > alone["signal/positive"], "targets pull too"


# ExPO ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_expo_is_grpo_and_the_likelihood_of_explanations(seed: int) -> None:
    batch = with_targets(seed)
    parent, mine = dlogp(grpo(), main(batch)), dlogp(expo(sft_coef=0.3), batch)
    torch.testing.assert_close(mine[SOURCE == 0], parent, rtol=0, atol=0)
    each = torch.tensor([1.0, 1.0, 0.5, 0.5], dtype=torch.float64)  # the last prompt has two
    expected = -0.3 / 3 * each[:, None] * batch.mask[SOURCE == 1]
    torch.testing.assert_close(mine[SOURCE == 1], expected)
    without = dlogp(expo(sft_coef=0.0), batch)
    torch.testing.assert_close(without[SOURCE == 0], parent, rtol=0, atol=0)
    assert not without[SOURCE == 1].any()
    torch.testing.assert_close(
        objective(expo(sft_coef=0.0), ready(expo(sft_coef=0.0), batch)), objective(grpo(), ready(grpo(), main(batch)))
    )


def test_a_group_that_fails_learns_from_its_explanation_alone() -> None:
    batch = random_batch(groups=(4,)).replace(origin=torch.tensor([0, 0, 0, 1]))
    failed = batch.replace(reward=torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64))
    found = dlogp(expo(sft_coef=0.1, kl_coef=0.0), failed)
    assert not found[:3].any()
    torch.testing.assert_close(found[3], -0.1 * batch.mask[3])


def test_the_weight_of_explanations_can_fall_to_nothing() -> None:
    recipe = expo(sft_coef=0.2, anneal_steps=4)
    assert [scheduled(recipe, s).get("regularizers.Likelihood.coef") for s in (0, 2, 4, 9)] == [0.2, 0.1, 0.0, 0.0]
    assert not expo().controllers


@pytest.mark.parametrize("mean", ["token", "prompt"])
def test_the_likelihood_of_no_rows_is_nothing(mean: Any) -> None:
    part = Likelihood(rows=FromProgram(main=False), mean=mean)
    assert part(random_batch()) == 0
    assert part(with_targets()[torch.zeros(10, dtype=torch.bool)]) == 0
    empty = with_targets(lengths=(2, 2, 2, 0, 2, 3, 2, 2, 0, 0))
    assert part(empty).isfinite() and part(empty) > 0


class Author(Script):
    """Writes given texts of characters, one after the other, and remembers what it was asked."""

    def __init__(self, texts: Sequence[Sequence[int]], verdicts: Sequence[Any] = ()) -> None:
        super().__init__(())
        self.texts, self.verdicts, self.requests = list(texts), list(verdicts), list[tuple[tuple[int, ...], Any]]()

    async def generate(self, tokens: Sequence[int], *, n: int = 1, **how: Any) -> list[Response]:
        self.requests.append((tuple(tokens), how))
        out = []
        for _ in range(n):
            text = list(self.texts[self.asked % len(self.texts)])[: how["max_tokens"]]
            found = self.verdicts[self.asked] if self.asked < len(self.verdicts) else verdict(0.0)
            out.append(
                Response(
                    text, [-1.0] * len(text), [1.0] * len(text), "eos" if text[-1] == 2 else "length", verdict=found
                )
            )
            self.asked += 1
        return out

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        n = len(written)
        return Response(
            list(written),
            [-3.0] * n,
            [0.5] * n,
            "eos" if written[-1] == 2 else "length",
            versions=[7] * n,
            temperature=temperature,
        )


def characters(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def asked(sampler: Author, key: tuple[int, ...] = (0, 0, 0), budget: int = 40, **how: Any) -> Asked:
    return ask(
        sampler, characters("1+1?"), budget, key, sampler.judge, how.pop("solution", SOLUTION), encode=characters,
        decode=lambda ids: "".join(chr(i) for i in ids if i != 2), end=(2,), text="1+1?", frame=characters,
        **{"answer": "2", **how},
    )  # fmt: skip


def test_explanations_stand_behind_the_plain_question_and_end_with_the_truth() -> None:
    right, wrong, silent = "so 2\n#### 2", "so 3\n#### 3", "so so"
    texts = [(*characters("no\n#### 9"), 2), *((*characters(t), 2) for t in (right, wrong)), characters(silent)]
    sampler = Author(texts, [verdict(0.0), verdict(1.0), verdict(0.0), verdict(0.0)])
    prompt = asked(sampler)
    rows = asyncio.run(
        SelfExplained(size=1, explanations=3, temperature=0.7, request="{question} {answer}").draw(*prompt)
    )
    assert [r.origin for r in rows] == [0, 1, 1, 1]
    written = ["".join(map(chr, r.tokens)) for r in rows[1:]]
    assert written == ["so 2\n#### 2\x02", "so 3\n#### 2\x02", "so so\n#### 2\x02"]
    (plain, _), (told, how) = sampler.requests
    assert plain == characters("1+1?") and told == characters("1+1? 2")
    assert how["temperature"] == 0.7 and how["key"] != (0, 0, 0)
    assert all(r.logp == [-3.0] * len(r.tokens) and not r.context and r.finished for r in rows[1:])
    assert prompt[1].tally == {"explanations": 3, "explanations_right": 1}
    tight = asked(sampler, budget=9)
    assert len(SelfExplained().corrected(*tight, Response([*characters("a long way\n#### 7")], [], [], "eos"))) == 9
    sampler.verdicts = []
    assert len(asyncio.run(SelfExplained(size=2).draw(*asked(sampler, answer="")))) == 2, "nothing to explain"
    assert len(asyncio.run(SelfExplained(size=2).draw(*asked(sampler, room=6)))) == 2, "no room to tell it"
    with pytest.raises(ValidationError, match="never says"):
        SelfExplained(request="explain {question}")


# GRAO ---------------------------------------------------------------------------------------------------------------


def grao_by_hand(batch: Batch, logp: Tensor, beta: float, lam: float, joint: bool) -> Tensor:
    """The loss, term by term as printed."""
    total = torch.zeros((), dtype=torch.float64)
    mean_logp = (logp * batch.mask).sum(-1) / batch.mask.sum(-1)
    for q in batch.group.unique():
        samples, targets = (((batch.group == q) & (batch.origin == s)).nonzero()[:, 0].tolist() for s in (0, 1))
        pool = batch.reward[samples + targets if joint else samples]
        mu, sigma = pool.mean(), pool.std(unbiased=False) + 1e-6
        value = ((batch.reward - mu) / sigma).tolist()
        k = len(samples)
        total = total - sum(value[i] * mean_logp[i] for i in samples) / k
        for y in targets:
            imitation = beta * value[y] * mean_logp[y]
            apart = lam * sum(value[i] * (mean_logp[i] - mean_logp[y]) for i in samples) / k
            total = total - (imitation + apart) / len(targets)
    return total / len(batch.group.unique())


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_grao_is_its_formula(joint: bool, seed: int) -> None:
    batch = with_targets(seed)
    recipe = grao(beta=0.7, lam=0.4, target_in_group=joint)
    logp = batch.logp.clone().requires_grad_()
    by_hand = grao_by_hand(batch, logp, 0.7, 0.4, joint)
    loss, found = gradients(recipe, ready(recipe, batch))
    torch.testing.assert_close(loss, by_hand.detach())
    torch.testing.assert_close(found["logp"], torch.autograd.grad(by_hand, logp)[0])


def test_grao_without_imitation_is_reinforce_in_groups() -> None:
    batch = random_batch(groups=(4, 4)).replace(origin=torch.tensor([0, 0, 0, 1] * 2))
    plain = grao().replace(
        advantage=Normalise(ddof=0), surrogate=LogProb(), aggregate=SeqMeanTokenMean(), source=grpo().source
    )
    mine = dlogp(grao(beta=0.0, lam=0.0, target_in_group=False), batch)
    torch.testing.assert_close(mine[batch.origin == 0], dlogp(plain, main(batch)))
    assert not mine[batch.origin == 1].any()


def test_a_reference_is_imitated_while_it_is_better_and_pushed_away_after() -> None:
    batch = random_batch(groups=(3,), lengths=(3, 4, 2)).replace(origin=torch.tensor([0, 0, 1]))

    def found(*reward: float, **how: Any) -> Tensor:
        return dlogp(grao(**how), batch.replace(reward=torch.tensor(reward, dtype=torch.float64)))

    assert (found(0.2, 0.4, 0.9)[2, :2] < 0).all(), "the loss falls as it becomes likelier"
    assert (found(0.6, 0.4, 0.1)[2, :2] > 0).all()
    assert not found(0.7, 0.7, 0.7).any(), "equal rewards teach nothing"
    credited = grao().advantage(batch.replace(reward=torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)))
    assert row_credit(batch.replace(advantage=credited)).sum() == pytest.approx(0, abs=1e-12)
    alone = Normalise(rows=FromProgram())(batch.replace(origin=torch.ones(3)))
    assert not alone.any(), "without samples there is nothing to compare with"
    torch.testing.assert_close(Normalise(rows=FromProgram())(batch.replace(origin=None)), Normalise()(batch))


def test_every_prompt_weighs_the_same() -> None:
    batch = with_targets(lengths=(1, 2, 3, 4, 5, 6, 1, 2, 3, 4))
    share = PromptMean()(batch).sum(-1)
    for origin in (0, 1):
        for group in range(3):
            assert share[(batch.group == group) & (origin == SOURCE)].sum() == pytest.approx(1 / 3)


def test_the_reference_stands_beside_the_group() -> None:
    sampler = Author([[5, 2]])
    rows = asyncio.run(WithReference(size=2, temperature=0.7).draw(*asked(sampler)))
    assert [(r.origin, r.tokens) for r in rows] == [(0, [5, 2]), (0, [5, 2]), (1, list(SOLUTION))]
    assert rows[2].temperature == 0.7 and rows[2].verdict is None, "judged later, as the others are"
    tight = asked(sampler, budget=4)
    assert asyncio.run(WithReference(size=1).draw(*tight))[1].tokens == list(SOLUTION[:4])
    assert tight[1].tally == {"solutions_cut": 1}
    assert len(asyncio.run(WithReference(size=2).draw(*asked(sampler, solution=())))) == 2


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


def test_a_guide_in_one_round_alone() -> None:
    response = Response([1, 2], [-1.0] * 2, [0.0] * 2, "eos")
    marked = Response([1, 2, 3], [-1.0] * 3, [0.0] * 3, "eos", guided=[False, True, True])
    one, two = (to_batch([(5,)], [r], [verdict(1.0)], [i], 4) for i, r in enumerate((response, marked)))
    both = join([one, two])
    assert both.guided.tolist() == [[0, 0, 0], [0, 1, 1]]
    assert both.own().tolist() == [[1, 1, 0], [1, 0, 0]]
    assert join([one, one]).guided is None


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


# Whole steps --------------------------------------------------------------------------------------------------------

JUDGE = """
def three(prompt, response, answer):
    return {"score": len(response) / 10, "correct": response.endswith("#### 3")}
"""


@pytest.mark.parametrize("recipe", [rlgf("aggrevated"), rlgf("d2lols", tau=1), expo(sft_coef=0.1, anneal_steps=2)])
def test_steps_with_guides_and_targets(recipe: Recipe, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    rows = ({"prompt": f"{i}?", "answer": "3", "solution": "1+2\n#### 3"} for i in range(32))
    config = TrainConfig(
        recipe=recipe, model=str(tiny_model), steps=2, batch=8 * recipe.source.size, max_tokens=12, device="cpu",
        teacher=str(tiny_model) if "teacher" in recipe.roles else None, out=tmp_path / "run",
        task=str(write_rows(tmp_path / "data.jsonl", rows)), judge=f"{tmp_path / 'judge.py'}:three",
        optim=Optim(lr=1e-3), eval=Evaluation(prompts=4, samples=0), log_samples=100, checkpoints=Checkpoints(keep=1),
    )  # fmt: skip
    out = run(config, quiet=True).out
    for row in (row for row in lines(out / "metrics.jsonl") if row["step"]):
        assert row["grad_norm"] > 0 and row["update/skipped"] == 0 and row["mismatch/max"] < 1e-4
    trained = [row for row in lines(out / "samples.jsonl") if row["phase"] == "train" and row["step"] == 1]
    targets = [row for row in trained if row["response"].endswith("#### 3")]
    assert len(targets) == 8, "one for each prompt"
    assert all(w > 0 for row in targets for w in row["weights"])
