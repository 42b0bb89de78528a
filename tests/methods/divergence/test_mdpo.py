"""The page of mdpo."""

from __future__ import annotations

import pytest

from policyopt.methods.critic.ppo import ppo
from policyopt.methods.divergence.mdpo import mdpo
from tests.batches import dlogp, on_policy, random_batch
from tests.cases.words._scheduled import scheduled
from tests.methods.shared_surrogates import same, slope, tokens


def test_mdpo_is_the_policy_gradient_at_first_and_rests_at_the_mirror_step() -> None:
    parent = ppo(kl_coef=0.0, low=None, high=None)
    batch = on_policy(random_batch())
    for t in (0.1, 5.0):
        same(dlogp(mdpo(step_size=t), batch), dlogp(parent, batch))
    same(dlogp(mdpo(step_size=1e15), random_batch()), dlogp(parent, random_batch()))
    for t, a in ((0.7, 0.9), (0.4, -1.3)):
        below, at, above = slope(mdpo(step_size=t), tokens([t * a - 0.1, t * a, t * a + 0.1], a)).tolist()
        assert below < 0 < above and abs(at) < 1e-12


@pytest.mark.parametrize("total", [1, 7, 100])
def test_the_step_size_of_mdpo_falls_linearly_and_never_to_zero(total: int) -> None:
    recipe = mdpo(step_size=0.8, iterations=total)
    for k in range(total):
        assert 1 / scheduled(recipe, k).get("regularizers.Proximal.coef") == pytest.approx(0.8 * (1 - k / total))
    assert 1 / scheduled(recipe, 10 * total).get("regularizers.Proximal.coef") == pytest.approx(0.8 / total)
