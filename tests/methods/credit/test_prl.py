"""The page of PRL."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.credit.prl import StillToPay, prl
from policyopt.methods.group.grpo import grpo
from policyopt.parts import KLPenalty, LogProb, Normalise, SeqMeanTokenSum
from tests.batches import TinyPolicy, random_batch
from tests.methods.shared_credit import same

NOTHING = Normalise(centre="none", scale="none")


def test_without_a_distance_or_a_price_it_is_grpo() -> None:
    batch, parent = random_batch(), grpo(kl_coef=0.0)
    same(prl(), parent, batch.replace(ref_logp=batch.old_logp))
    same(prl(eta=1e15, step_len=2), parent, batch)


def test_blocks_of_one_token_pay_to_go_and_a_block_for_all_pays_the_last_token() -> None:
    batch = random_batch(gaps=True)
    outcome, single = Normalise()(batch), StillToPay(eta=2.0, step_len=1)(batch)
    to_go = KLPenalty(coef=0.5)(batch.replace(reward=0 * batch.reward))
    torch.testing.assert_close(single - outcome, Normalise(centre="none", scale="none", gamma=1.0)(to_go))
    whole = StillToPay(eta=2.0, step_len=100)(batch)
    last = ((batch.old_logp - batch.ref_logp) * batch.terminal()).sum(-1, keepdim=True)
    torch.testing.assert_close(whole, (outcome - last / 2) * batch.mask)


def test_steps_are_alike_within_and_may_be_lines() -> None:
    batch = random_batch(lengths=(6,) * 9)
    pairs = StillToPay(step_len=2)(batch)
    assert torch.equal(pairs[:, ::2], pairs[:, 1::2])
    assert not torch.equal(pairs[:, 0], pairs[:, 2])
    ends = torch.tensor([[1, 3]] * 9)
    lines = StillToPay(step_len=None)(batch.replace(step_end=ends))
    torch.testing.assert_close(lines, pairs), "the rest is a step too"
    assert "step_end" in StillToPay(step_len=None).needs


@pytest.mark.parametrize(("size", "since"), [(1, "end"), (1, "start"), (2, "start")])
def test_in_expectation_it_is_the_gradient_of_reward_minus_kl(size: int, since: str) -> None:
    tiny = TinyPolicy(0)
    recipe = prl().replace(
        advantage=StillToPay(of=NOTHING, eta=2.0, step_len=size, since=since),  # type: ignore[arg-type]
        surrogate=LogProb(), aggregate=SeqMeanTokenSum(),
    )  # fmt: skip
    log_p = tiny.log_probability()
    kl = (log_p.exp() * (log_p - tiny.logp(tiny.reference).detach().sum(-1))).sum()
    target = -tiny.gradient((log_p.exp() * tiny.reward).sum() - kl / 2)
    torch.testing.assert_close(tiny.expected_gradient(recipe, 1), target)
