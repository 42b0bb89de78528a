"""The page of hicra."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.credit.hicra import GRAMS, PlanningCredit, hicra, semantic_entropy, strategic_grams
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise, Phrases, TokenMean
from tests.batches import random_batch
from tests.methods.shared_credit import same

COLUMN = Phrases().column


def test_without_alpha_or_without_plans_it_is_grpo_without_the_spread() -> None:
    batch = random_batch(needs=[COLUMN])
    parent = grpo(kl_coef=0.0).replace(advantage=Normalise(scale="none"), aggregate=TokenMean())
    same(hicra(alpha=0.0), parent, batch)
    same(hicra(alpha=0.7), parent, batch.replace(**{COLUMN: torch.zeros_like(batch.mask)}))


def test_planning_gets_more_credit_and_less_blame() -> None:
    batch = random_batch(needs=[COLUMN])
    span, plain = batch.span("Phrases") > 0, Normalise(scale="none")(batch)
    found = PlanningCredit(alpha=0.2)(batch)
    assert span.any() and not span[batch.mask > 0].all()
    torch.testing.assert_close(found[span], torch.where(plain > 0, 1.2, 0.8)[span] * plain[span])
    assert torch.equal(found[~span], plain[~span])
    whole = PlanningCredit(alpha=1.0)(batch)
    assert not whole[span & (plain < 0)].any(), "planning in a wrong response is not blamed"
    assert (whole * plain >= 0).all()


def test_the_entropy_of_grams() -> None:
    assert float(semantic_entropy(torch.full((7,), 3.0))) == pytest.approx(math.log(7))
    assert float(semantic_entropy(torch.tensor([4.0, 0.0]))) == float(semantic_entropy(torch.zeros(3))) == 0


def test_strategic_grams_are_in_many_solutions_and_in_none_often() -> None:
    texts = [f"first we need x{i} and it is {i} and it is {i} and it is {i} so let me check" for i in range(8)]
    found = strategic_grams(texts, share=0.05)
    assert {"first we need", "let me check"} <= {*found}
    assert not any("is" in gram.split() for gram in found), (
        "what one solution has often is how it goes on, not how it plans"
    )
    assert strategic_grams(texts, share=1.0, cluster=lambda phrases: [0] * len(phrases)) == (), (
        "as one meaning, all too often"
    )
    assert strategic_grams([]) == ()
    assert Phrases(found)(texts[0]) and Phrases(GRAMS)("So LET ME check this.")
