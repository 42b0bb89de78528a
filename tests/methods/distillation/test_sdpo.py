"""The page of sdpo."""

from __future__ import annotations

import torch

from policyopt.items import Attempt, Example, Verdict, user
from policyopt.methods.distillation.sdft import sdft
from policyopt.methods.distillation.sdpo import InHindsight, sdpo
from policyopt.methods.group.grpo import grpo
from tests.batches import dlogp, random_batch, ready
from tests.methods.distillation.test_sdft import looked

EXAMPLE = Example("a", user("1+1=?"), "2")
ATTEMPTS = [
    Attempt(text, Verdict(score, score >= 1, True, reason))
    for text, score, reason in (
        ("three", 0.0, "off by one"),
        ("two", 1.0, ""),
        ("2!", 1.0, "fine"),
        ("?", float("nan"), "none"),
    )
]


def seen(look: InHindsight, place: int, *places: int) -> str:
    attempts = [ATTEMPTS[i] for i in places or range(4)]
    return look.hindsight(EXAMPLE, attempts, place, (0,))[-1]["content"]


def test_the_first_other_success_is_shown() -> None:
    end = "\n\nCorrectly solve the original question.\n"
    assert seen(InHindsight(), 0) == "1+1=?\nCorrect solution:\n\ntwo\n\n" + end
    assert "2!" in seen(InHindsight(), 1) and "two" not in seen(InHindsight(), 1), "never its own"
    assert seen(InHindsight(), 0, 0, 3) == "1+1=?", "nothing to show: the plain prompt"
    assert seen(InHindsight(), 1, 0, 1) == "1+1=?"
    assert "three" in seen(InHindsight(least=0.0), 1)
    assert seen(InHindsight(least=2.0), 0) == "1+1=?"


def test_feedback_is_told_of_what_failed() -> None:
    look = InHindsight(feedback=True)
    assert "off by one" in seen(look, 0, 0, 3) and "Correct solution" not in seen(look, 0, 0, 3)
    assert "two" in seen(look, 0) and "off by one" in seen(look, 0)
    assert "fine" not in seen(look, 2)


def test_it_is_sdft_with_another_look_and_rewards_stand_beside_it() -> None:
    recipe, batch = sdpo(self_teacher="live"), random_batch()
    torch.testing.assert_close(dlogp(recipe, looked(recipe, batch)), dlogp(sdft(), looked(sdft(), batch)))
    both = sdpo(rewards=True, kl_coef=0.4)
    credit = ready(both, looked(both, batch, same=2)).advantage
    gap = 0.4 * (batch.teacher_logp - batch.old_logp) * batch.mask
    gap[:2] = 0
    torch.testing.assert_close(credit, grpo().advantage(batch) + gap)
