"""The pages of chipseek-r1, verireason and duration-aware-mle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from policyopt.items import Verdict
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.programs.chipseek_r1 import GatedTiers, chipseek_r1
from policyopt.methods.programs.duration_aware_mle import DurationWeight, Improving, PartialCredit, duration_aware_mle
from policyopt.methods.programs.verireason import TestsElseStructure, verireason
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Response
from tests.asking import ask
from tests.batches import dlogp, random_batch
from tests.methods.shared_judges import same, with_components
from tests.methods.shared_words import Scribe, ids_of, text_of


def rows(n: int, **components: list[float]) -> Batch:
    return with_components(random_batch(groups=(n,), lengths=tuple(range(1, n + 1))), **components)


# Tiers ---------------------------------------------------------------------------------------------------------------


def test_without_parts_of_a_judge_all_are_their_parents() -> None:
    batch = random_batch()
    for recipe in (chipseek_r1(group_size=2), verireason(group_size=2)):
        same(dlogp(recipe, batch), dlogp(grpo(group_size=2, kl_coef=0.04), batch))
    for recipe in (duration_aware_mle(improve=0.0),):
        same(dlogp(recipe, batch), dlogp(ppo(), batch))
        assert recipe.source == ppo().source


def test_no_cost_makes_up_for_a_failing_gate() -> None:
    batch = rows(
        6, compiles=[0, 1, 1, 1, 1, 1], passes=[1, 0, 1, 1, 1, 1], synthesises=[1, 1, 0, 1, 1, 1],
        cost=[1e-9, 1e-9, 1e-9, 10, 5, 0], reference_cost=[1.0, 1, 1, 5, 5, 5],
    )  # fmt: skip
    found = GatedTiers()(batch).reward.tolist()
    assert found[1] == pytest.approx(0.2) and found[2] == pytest.approx(1.0), "the gates before quality"
    assert found[3:] == pytest.approx([1.41, 1.41, 1.4]), "dearer and equal get the floor, and no report nothing"
    assert max(found[1], 0.2) < min(found[2:])
    free = rows(2, compiles=[1, 1], passes=[1, 1], synthesises=[1, 1], cost=[1, 0], reference_cost=[0.0, 0])
    assert GatedTiers()(free).reward.tolist() == pytest.approx([1.5, 1.5])


def test_costs_count_by_their_ratio_alone() -> None:
    gates: dict[str, list[float]] = {name: [1.0, 1.0] for name in ("compiles", "passes", "synthesises")}
    one = GatedTiers()(rows(2, cost=[4.0, 2.0], reference_cost=[5.0, 5.0], **gates)).reward
    ten = GatedTiers()(rows(2, cost=[40.0, 20.0], reference_cost=[50.0, 50.0], **gates)).reward
    torch.testing.assert_close(one, ten)
    assert one.tolist() == pytest.approx([1.4 + 0.25, 2.0]), "lower is better, up to a bound"


def test_what_passes_is_above_all_that_fails() -> None:
    batch = rows(
        5, compiles=[1, 1, 1, 0, 1], vectors=[0.99, 0.98, 0.0, 1.0, 0.0], similarity=[0.0, 0.9, 0.9, 1.0, 1.0],
        coverage=[0.0, 0.5, 0.5, 1.0, 1.0], redundancy=[1.0, 0.1, 0.1, 0.0, 0.0],
    ).replace(formatted=torch.tensor([0.0, 0, 0, 1, 1], dtype=torch.float64))  # fmt: skip
    found = TestsElseStructure()(batch).reward.tolist()
    assert found[0] == pytest.approx(2.1) and found[0] > max(found[1:])
    assert found[1] == pytest.approx(found[2]) == pytest.approx(0.1 + 0.63 + 0.15 - 0.02), (
        "98 % of the lines are worth nothing"
    )
    assert found[3] == pytest.approx(0.1), "a syntax error has the format alone, whatever its likeness"
    assert found[4] == pytest.approx(0.1 + 1.0 + 0.1), "a copy of the reference that fails"


# Durations -----------------------------------------------------------------------------------------------------------


def test_equal_durations_are_ppo_and_units_are_of_no_account() -> None:
    batch = random_batch()
    recipe = duration_aware_mle(kl_coef=0.0)
    equal = with_components(batch, seconds=[7.0] * 9)
    same(dlogp(recipe, equal), dlogp(ppo(kl_coef=0.0), batch))
    seconds = [1.0, 2, 30, 4, 5, 0.5, 7, 8, 9]
    one, other = (with_components(batch, seconds=[k * x for x in seconds]) for k in (1.0, 60.0))
    torch.testing.assert_close(dlogp(recipe, one), dlogp(recipe, other))
    assert float(DurationWeight().weight(one).mean()) == pytest.approx(1.0)
    assert not torch.allclose(dlogp(recipe, one), dlogp(recipe, equal))


def test_what_never_ran_counts_as_one_of_mean_duration() -> None:
    weight = DurationWeight().weight(rows(3, seconds=[0.0, 1.0, 3.0]))
    assert weight.tolist() == pytest.approx([1.0, 0.5, 1.5])
    assert DurationWeight().weight(rows(2, seconds=[0.0, 0.0])).tolist() == [1.0, 1.0]


def test_two_actions_drift_alike_in_the_same_time() -> None:
    """In a unit of time an action of duration d is sampled 1/d as often; with the weight both push alike."""
    seconds = [1.0] * 10 + [10.0]  # what two actors that do not wait bring in ten seconds
    weight = DurationWeight().weight(rows(11, seconds=seconds))
    assert float(weight[:10].sum()) == pytest.approx(float(weight[10:].sum()))


def test_every_failing_program_is_below_every_one_that_ends() -> None:
    batch = rows(4, valid=[0, 0, 1, 1], prints=[0, 7, 0, 7], lower=[0, 0, 1, 0]).replace(
        reward=torch.tensor([5.0, 5.0, 2.0, -1.0], dtype=torch.float64)
    )
    assert PartialCredit()(batch).reward.tolist() == pytest.approx([-10.0, -9.3, -2.0, -1.0])
    bare = rows(2, valid=[0, 1]).replace(reward=torch.tensor([1.0, 1.0], dtype=torch.float64))
    assert PartialCredit()(bare).reward.tolist() == [-10.0, 1.0], "prints and lower need not be said"


# Improving -----------------------------------------------------------------------------------------------------------


def step(
    rollout: Improving, notes: dict[str, Any], number: int, texts: list[str], room: int = 1 << 20
) -> tuple[list[Response], Scribe, Any]:
    async def judge(responses: list[Response]) -> list[Verdict]:
        return [Verdict(float(len(text_of(r.tokens))), False, True, "said so") for r in responses]

    scribe = Scribe(lambda _, i: texts[i])
    asked = ask(
        scribe, ids_of("[task]"), 40, (0, number, 0), judge, encode=ids_of, decode=text_of, text="task", answer="",
        frame=lambda text: ids_of(f"[{text}]"), room=room, program=rollout, notes=notes,
    )  # fmt: skip
    return asyncio.run(rollout.draw(*asked)), scribe, asked[1]  # type: ignore[arg-type]


def test_the_best_earlier_program_is_improved() -> None:
    rollout, notes = Improving(size=2, share=1.0), dict[str, Any]()
    first, scribe, _ = step(rollout, notes, 1, ["ab", "abcd"])
    assert scribe.asked == [("[task]", 2)] and all(r.context == () and r.origin == 0 for r in first)
    second, scribe, context = step(rollout, notes, 2, ["x", "y"])
    words = "[task\n\nabcd\n\nImprove this program. It said: said so]"
    assert scribe.asked == [(words, 2)] and context.tally["improvements_asked"] == 1
    assert all(r.context == ids_of(words) and r.origin == 1 for r in second), "trained on behind what was asked"
    _, scribe, _ = step(rollout, notes, 3, ["abcdef", "z"])
    assert "abcd" in scribe.asked[0][0], "the best is kept, not the last"
    _, scribe, _ = step(rollout, notes, 4, ["a", "b"])
    assert "abcdef" in scribe.asked[0][0]


def test_what_leaves_no_room_is_asked_as_the_task_alone() -> None:
    rollout, notes = Improving(size=1, share=1.0), dict[str, Any]()
    step(rollout, notes, 1, ["ab"])
    _, scribe, context = step(rollout, notes, 2, ["ab"], room=10)
    assert scribe.asked == [("[task]", 1)] and context.tally["improvements_without_room"] == 1


def test_half_of_the_prompts_are_of_each_kind_and_few_are_remembered() -> None:
    rollout, notes = (
        Improving(size=1, share=0.5, keep=1),
        {"improving": {"other": {"text": "", "said": "", "score": 9.0}}},
    )
    step(rollout, notes, 0, ["ab"])
    assert len(notes["improving"]) == 1 and "other" not in notes["improving"]
    kinds = [len(step(rollout, notes, n, ["a"])[0][0].context) > 0 for n in range(1, 200)]
    assert 70 < sum(kinds) < 130
    assert isinstance(duration_aware_mle().source, Improving) and isinstance(Improving(), Group)
