"""KTO: single texts, a point of reference, and a value that saturates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policyopt.methods.preference.kto import kto
from policyopt.rows import Batch, make_batch
from tests.methods.preference.pairs import worked


def texts(h: list[float], label: list[float], mismatched: list[float]) -> Batch:
    """Texts of two tokens with such log-ratios and labels, then those behind other prompts."""
    n, m = len(h), len(mismatched)
    ratio = torch.tensor([*h, *mismatched], dtype=torch.float64)
    mask = torch.ones(n + m, 2, dtype=torch.float64)
    reward = torch.tensor([*label, *[0.0] * m], dtype=torch.float64)
    return make_batch(
        mask=mask, logp=ratio[:, None] / 2 * mask - 1, ref_logp=0 * mask - 1, old_logp=0 * mask - 1, reward=reward,
        group=torch.arange(n + m) % n, origin=torch.tensor([0] * n + [1] * m),
    )  # fmt: skip


def same(x: Any, y: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=1e-12, atol=1e-12)


def test_at_the_point_of_reference_a_text_loses_half_its_weight_and_pulls_hardest() -> None:
    recipe = kto(beta=0.5, desirable_weight=1.2, undesirable_weight=0.8)
    loss, gradient = worked(recipe, texts([2.0, 2.0], [1, 0], [1.0, 3.0]))
    assert loss == pytest.approx((1.2 + 0.8) / 2 / 2)
    same(gradient[:2, 0], torch.tensor([-1.2, 0.8], dtype=torch.float64) * 0.5 / 4 / 2)
    for h in (-9.0, -1.0, 5.0, 11.0):
        off = worked(recipe, texts([h, h], [1, 0], [2.0, 2.0]))[1]
        assert (off[:2].abs() < gradient[:2].abs()).all()


def test_mismatched_texts_have_no_gradient_and_no_share_in_the_mean() -> None:
    few, many = (texts([1.0, -1.0], [1, 0], m) for m in ([0.5, 1.5], [1.0] * 6))
    (a, up), (b, down) = worked(kto(), few), worked(kto(), many)
    assert a == pytest.approx(b)
    same(up[:2], down[:2])
    assert (up[2:] == 0).all()


def test_the_point_is_never_below_0() -> None:
    low, none = texts([1.0, -1.0], [1, 0], [-5.0, -7.0]), texts([1.0, -1.0], [1, 0], [0.0, 0.0])
    same(worked(kto(), low)[1][:2], worked(kto(), none)[1][:2])


def test_a_higher_point_costs_good_texts_and_relieves_bad_ones() -> None:
    losses = {z: kto().get("surrogate").losses(_credited(texts([1.0, 1.0], [1, 0], [z, z]))) for z in (0.0, 4.0)}
    assert losses[4.0][0] > losses[0.0][0] and losses[4.0][1] < losses[0.0][1]


def test_both_ends_saturate() -> None:
    gradient = worked(kto(beta=1.0), texts([40.0, -40.0, 40.0, -40.0], [1, 0, 0, 1], [0.0, 0.0]))[1]
    assert gradient.abs().max() < 1e-12  # the wrong ends too, where DPO pulls by beta


def test_with_zero_nothing_is_mismatched() -> None:
    recipe = kto(zero=True)
    assert type(recipe.source).__name__ == "Labelled"
    (a, up), (b, down) = (
        worked(recipe, texts([1.0, -1.0], [1, 0], [])),
        worked(kto(), texts([1.0, -1.0], [1, 0], [-3.0])),
    )
    assert a == pytest.approx(b)
    same(up, down[:2])


def _credited(batch: Batch) -> Batch:
    return batch.replace(advantage=batch.reward[:, None] * batch.mask)
