"""The page of sdft."""

from __future__ import annotations

import pytest
import torch

from policyopt.errors import UserError
from policyopt.items import Example
from policyopt.methods.distillation.sdft import BehindDemonstration, sdft
from policyopt.part import Look
from policyopt.parts import EMA, Frozen
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.schema import member
from tests.batches import dlogp, gradients, random_batch, ready


def looked(recipe: Recipe, batch: Batch, same: int = 0) -> Batch:
    """The batch with what the recipe's look finds: the teacher's log-probabilities; the first rows are looked at behind their prompt."""
    [look] = recipe.looks
    prompt = torch.where(batch.prompt_mask.bool(), batch.prompt, -1)
    other = torch.nn.functional.pad(prompt, (0, 2), value=-1)
    other[same:, 0] += 1
    return batch.replace(**{look.column: batch.teacher_logp, member("context", look.key): other})


def test_the_gradient_is_that_of_trl_and_of_prime_rl_on_policy() -> None:
    """TRL: (student - teacher).detach() * student * min(ratio, 2), row means; in scalars, the gap to the policy that drew."""
    recipe = sdft(kl_coef=0.6)
    batch = looked(recipe, random_batch())
    far = torch.sin(torch.arange(batch.mask.numel(), dtype=torch.float64)).view_as(batch.mask)
    batch = batch.replace(logp=batch.old_logp + far * batch.mask)
    expected, clipped = torch.zeros_like(batch.mask), 0
    for i, t in batch.mask.nonzero().tolist():
        ratio = float((batch.logp[i, t] - batch.old_logp[i, t]).exp())
        gap = float(batch.old_logp[i, t] - batch.teacher_logp[i, t])
        expected[i, t] = 0.6 * gap * min(ratio, 2.0) / float(batch.mask[i].sum()) / len(batch)
        clipped += ratio > 2
    assert clipped
    torch.testing.assert_close(dlogp(recipe, batch), expected)


def test_a_row_behind_its_own_prompt_has_no_teacher() -> None:
    recipe = sdft()
    found = dlogp(recipe, looked(recipe, random_batch(), same=3))
    assert not found[:3].any() and (found[3:].abs().sum(1) > 0).all()


def test_rewards_are_not_read() -> None:
    recipe = sdft()
    batch = looked(recipe, random_batch())
    loss = gradients(recipe, ready(recipe, batch))[0]
    assert float(loss) == float(gradients(recipe, ready(recipe, batch.replace(reward=-batch.reward)))[0])


def test_who_the_teacher_is() -> None:
    def teacher(kind: str) -> Look:
        return sdft(self_teacher=kind).looks[0]  # type: ignore[arg-type]

    assert [teacher(kind).role for kind in ("live", "ema", "start")] == ["policy", "reference", "reference"]
    assert sdft(self_teacher="ema", rate=0.1).reference == EMA(decay=0.9)
    assert sdft(self_teacher="start").reference == sdft().reference == Frozen()
    assert "reference" not in sdft().roles


def test_the_teacher_sees_the_demonstration_and_the_system_prompt_stays() -> None:
    prompt = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "1+1=?"})
    look = BehindDemonstration(request="{question} as in: {demonstration}")
    shown = look.hindsight(Example("a", prompt, "2", solution="one and one\n#### 2"), (), 0, (0,))
    assert shown[0] == prompt[0] and shown[1]["content"] == "1+1=? as in: one and one\n#### 2"
    assert look.hindsight(Example("a", prompt, "2", completion="two"), (), 0, (0,))[1]["content"] == "1+1=? as in: two"
    with pytest.raises(
        UserError, match="row-7 has no demonstration for the teacher: give every row of the task a 'solution'"
    ):
        look.hindsight(Example("row-7", prompt, "2"), (), 0, (0,))
    with pytest.raises(ValueError, match="never shows the"):
        BehindDemonstration(request="{question}")
