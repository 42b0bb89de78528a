"""The page of minpro."""

from __future__ import annotations

import pytest

from policyopt.methods.ratio.minpro import PrefixMinRatio, minpro
from tests.batches import random_batch, ready
from tests.methods.shared_ratios import dlogp, same

# Prefixes and samplers -----------------------------------------------------------------------------------------------


def test_the_prefix_enters_by_its_smallest_ratio() -> None:
    batch = random_batch(seed=3, lengths=(6,) * 9, gaps=True)
    ratio = (batch.logp - batch.old_logp).exp()
    got = PrefixMinRatio()(batch).exp()
    for i in range(9):
        smallest = 1.0
        seen: list[float] = []
        for t in range(6):
            if batch.mask[i, t]:
                smallest = min(seen) if seen else 1.0
                assert float(got[i, t]) == pytest.approx(smallest * float(ratio[i, t]))
                seen.append(float(ratio[i, t]))


def test_a_token_that_has_drifted_damps_those_after_it_and_no_other() -> None:
    batch = random_batch(seed=5, lengths=(6,) * 9)
    low = batch.logp.clone()
    low[:, 2] -= 3
    before, after = PrefixMinRatio()(batch), PrefixMinRatio()(batch.replace(logp=low))
    same(after[:, :2], before[:, :2])
    assert (after[:, 3:] < before[:, 3:]).all()
    got = dlogp(minpro(), batch)
    assert (got[ready(minpro(), batch).advantage != 0] != 0).all()
