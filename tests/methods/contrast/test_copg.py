"""The page of copg."""

from __future__ import annotations

from policyopt.methods.baseline.rloo import rloo
from policyopt.methods.contrast.copg import copg
from tests.batches import dlogp, on_policy, random_batch
from tests.methods.shared_surrogates import same


def test_copg_two_forms_one_gradient_and_twice_rloo_at_the_reference() -> None:
    batch = random_batch()
    square = copg().set("surrogate.link.square", True)
    same(dlogp(copg(), batch), dlogp(square, batch))
    pairs = random_batch(groups=(2, 2, 2))
    still = on_policy(pairs).replace(ref_logp=pairs.old_logp)
    same(dlogp(copg(beta=0.7), still) / 2, dlogp(rloo(kl_coef=0.0, group_size=2), still))


def test_copg_rests_at_the_tilted_reference_whoever_sampled() -> None:
    batch = random_batch(lengths=(1,) * 9)
    tilt = batch.ref_logp + (batch.reward / 0.4 + batch.group * 1.7)[:, None]
    assert dlogp(copg(beta=0.4), batch.replace(logp=tilt)).abs().max() < 1e-12
    assert dlogp(copg(beta=0.5), batch.replace(logp=tilt)).abs().max() > 1e-2
