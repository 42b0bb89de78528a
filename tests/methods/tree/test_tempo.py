"""The page of tempo."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.tree.tempo import prefix_values, tempo
from policyopt.parts import Normalise, PPOClip, TokenMean
from policyopt.recipe import Update
from policyopt.sources.draw import Levels, Tree
from tests.batches import random_batch


def test_prefix_values_of_tempo() -> None:
    batch = random_batch(groups=(6, 4), lengths=(6, 5, 4, 3, 6, 2, 6, 6, 1, 4))
    value, mask = prefix_values(batch), batch.mask.bool()
    for i in range(10):
        for k in range(int(mask[i].sum()) + 1):
            begins = [
                j for j in range(10)
                if batch.group[j] == batch.group[i] and mask[j].sum() >= k
                and batch.tokens[j, :k].tolist() == batch.tokens[i, :k].tolist()
            ]  # fmt: skip
            assert float(value[i, k]) == pytest.approx(float(batch.reward[begins].mean()), abs=1e-12)
    unique = batch.replace(tokens=torch.arange(60).reshape(10, 6))
    td = tempo().advantage.difference(unique)  # type: ignore[attr-defined]
    gain = Normalise(scale="none")(unique)
    torch.testing.assert_close(td[:, 0], gain[:, 0])
    assert not td[:, 1:].any(), "responses that differ at once are GRPO's from the second token on"
    alike = batch.replace(tokens=batch.tokens * 0, mask=torch.ones_like(batch.mask))
    assert not tempo().advantage.difference(alike).any()  # type: ignore[attr-defined]
    branching = tempo(widths=(2, 3), segment=5).source
    assert branching == Tree(size=6, branching=Levels(widths=(2, 3), segment=5))


def test_tempo_has_its_authors_defaults() -> None:
    recipe = tempo()
    assert (recipe.surrogate, recipe.aggregate) == (PPOClip(low=0.2, high=0.28), TokenMean())
    assert (recipe.regularizers, recipe.update) == ((), Update(minibatches=8))
