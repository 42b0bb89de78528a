"""The page of TW-GRPO."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.methods.credit.tw_grpo import Disagreement, several, subset_credit, tw_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise, TokenMean
from policyopt.parts.statistic.group import from_logits
from policyopt.rows import Batch
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_surrogates import same


def drawn() -> tuple[Batch, Tensor]:
    """A group of four that ends after five tokens, one of three that does after two, and a row alone; their logits."""
    batch = random_batch(groups=(4, 3, 1), lengths=(5, 3, 4, 1, 2, 1, 2, 3))
    return batch, torch.randn(*batch.mask.shape, 7, generator=torch.Generator().manual_seed(1)).double()


def test_weights_run_from_1_to_alpha_within_each_group_and_are_shared_at_a_position() -> None:
    batch, logits = drawn()
    found = from_logits(Disagreement(), batch, logits)
    for group, width in ((0, 5), (1, 2)):
        rows, mask = found[batch.group == group], batch.mask[batch.group == group]
        shared = rows.amax(0)
        assert torch.equal(rows, shared * mask) and not shared[width:].any()
        assert float(shared[:width].max()) > 1 - 1e-6 and float((rows + 2 * (1 - mask)).min()) == 0
    assert not found[batch.group == 2].any(), "one response agrees with itself"


def test_where_all_say_the_same_nothing_is_added_and_the_order_does_not_matter() -> None:
    batch, logits = drawn()
    same_words = logits.clone()
    same_words[:4, 0] = logits[0, 0]
    found = from_logits(Disagreement(), batch, same_words)
    assert not found[:4, 0].any()
    order = [2, 0, 3, 1, 7, 5, 6, 4]
    same(from_logits(Disagreement(), batch[order], same_words[order]), found[order])
    rich = batch.replace(reward=batch.reward + 3)
    assert torch.equal(from_logits(Disagreement(), rich, same_words), found), "rewards are not seen"


def test_alpha_1_is_grpo_with_a_token_mean() -> None:
    batch = random_batch()
    plain = grpo(kl_coef=0.0).replace(aggregate=TokenMean(), advantage=Normalise(eps=1e-4))
    same(
        gradients(tw_grpo(1.0), ready(tw_grpo(1.0), batch))[1]["logp"], gradients(plain, ready(plain, batch))[1]["logp"]
    )
    more, less = (gradients(r, ready(r, batch))[1]["logp"].abs() for r in (tw_grpo(), plain))
    assert (more >= less - 1e-15).all() and (more > 1.2 * less).any()


def test_one_wrong_option_takes_all_credit() -> None:
    right = frozenset("ACD")
    assert [subset_credit(frozenset(x), right) for x in ("A", "AC", "ACD", "AB", "ABCD", "")] == [
        1 / 3,
        2 / 3,
        1,
        0,
        0,
        0,
    ]
    assert several("", "#### A, C", "A, C, D") == {"score": 1 + 2 / 3, "correct": False, "formatted": True}
    assert several("", "B it is not", "A") == {"score": 0.0, "correct": False, "formatted": False}
