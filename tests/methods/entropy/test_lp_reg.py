"""The page of lp-reg."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from policyopt import methods as po
from policyopt.methods.entropy.lp_reg import LeastLikely, MinPLogProb, ProxyShield
from policyopt.objective import credit
from policyopt.rows import FIXED, Batch
from tests.batches import gradients, random_batch
from tests.methods.shared_entropy import SEEDS, logits, over_vocabulary, token_mean_grpo


def test_the_least_likely_are_counted_among_tokens_of_their_sign() -> None:
    batch = random_batch(1)
    batch = batch.replace(advantage=(torch.arange(9) % 2 * 2.0 - 1)[:, None] * batch.mask)
    for sign, factor in (("negative", -1), ("positive", 1)):
        among = batch.mask.bool() & (factor * batch.advantage > 0)
        picked = LeastLikely(0.4, sign)(batch)  # type: ignore[arg-type]
        assert int(picked.sum()) == int(0.4 * int(among.sum())) > 2
        assert (picked & ~among).sum() == 0
        assert batch.logp[picked].max() < batch.logp[among & ~picked].min()
    assert not LeastLikely(0.4, least=100)(batch).any()
    assert not LeastLikely(0.0)(batch).any()


# Lp-Reg --------------------------------------------------------------------------------------------------------------


@SEEDS
def test_the_proxy_is_the_policy_without_its_tail(seed: int) -> None:
    z = logits(seed)
    p = z.softmax(-1)
    proxy = over_vocabulary(MinPLogProb(0.2), z).exp()
    torch.testing.assert_close(proxy.sum(-1), torch.ones(7, dtype=torch.float64))
    assert torch.equal(proxy > 0, p >= 0.2 * p.amax(-1, keepdim=True))
    assert (proxy[proxy > 0] >= p[proxy > 0] - 1e-12).all()
    assert (proxy == 0).any()
    fixed = over_vocabulary(MinPLogProb(0.3, relative=False), z).exp()
    assert torch.equal(fixed > 0, p >= 0.3)
    torch.testing.assert_close(over_vocabulary(MinPLogProb(0.0), z), z.log_softmax(-1))


def shield_batch(seed: int, proxy: Callable[[Batch], Tensor], part: ProxyShield) -> Batch:
    batch = credit(po.grpo(kl_coef=0.0), random_batch(seed))
    return batch.with_statistics({FIXED + part.proxy.key: proxy(batch)})


@SEEDS
def test_shielded_tokens_are_pulled_up_and_nothing_else_changes(seed: int) -> None:
    part = ProxyShield(low=0.1, high=0.1, coef=0.7, negative=0.6)
    batch = shield_batch(seed, lambda b: torch.where(torch.arange(6) % 2 == 0, b.old_logp + 0.3, -torch.inf), part)
    recipe = token_mean_grpo(low=0.1, high=0.1)
    (_, found), (_, plain) = (gradients(recipe.replace(surrogate=s), batch) for s in (part, recipe.surrogate))
    shielded = part.shielded(batch)
    assert shielded.any()
    assert (batch.advantage[shielded] < 0).all()
    assert (shielded.nonzero()[:, 1] % 2 == 0).all(), "what the proxy cuts off is no shielded token"
    assert (part.unlikely(batch) & ~shielded).any()
    assert torch.equal(found["logp"][~shielded], plain["logp"][~shielded])
    d = batch.fixed(part.proxy) - batch.logp
    unclipped = -batch.advantage * (batch.logp - batch.old_logp).exp()
    expected = (unclipped + 0.7 * (1 - d.exp())) / batch.mask.sum()
    torch.testing.assert_close(found["logp"][shielded], expected[shielded])


def test_on_policy_with_the_whole_distribution_as_proxy_nothing_is_shielded() -> None:
    part = ProxyShield(negative=1.0, positive=1.0)
    batch = shield_batch(0, lambda b: b.old_logp, part)
    assert part.unlikely(batch).any()
    assert not part.shielded(batch.replace(logp=batch.old_logp)).any()


def test_the_pull_ends_at_its_limit() -> None:
    part = ProxyShield(low=None, high=None, negative=1.0, limit=2.0)
    batch = shield_batch(0, lambda b: torch.zeros_like(b.mask), part).replace(logp=torch.full((9, 6), -20.0))
    recipe = token_mean_grpo(low=None, high=None)
    found, plain = (gradients(recipe.replace(surrogate=s), batch)[1] for s in (part, recipe.surrogate))
    assert part.shielded(batch).any()
    torch.testing.assert_close(found["logp"], plain["logp"])
