"""Self-distillation, by the functions of TRL's own trainers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="needs TRL (pip install 'policyopt[trl]')")

from policyopt.objective import objective
from policyopt.registry import get_method
from tests.batches import random_batch, ready


@pytest.mark.parametrize("name", ["sdft", "sdpo"])
def test_the_loss_has_the_gradient_of_trls(name: str) -> None:
    """TRL measures the gap to the policy that is trained, here it is to the one that drew: where the gaps are the same, all is."""
    theirs: Any = pytest.importorskip(f"trl.experimental.{name}.loss_utils")
    recipe, batch = get_method(name)(self_teacher="live"), random_batch(drift=0.8)
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(7, batch.mask.shape, generator=g)
    student, teacher = (torch.randn(*ids.shape, 7, generator=g, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    logp = student.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    said = teacher.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    old = logp.detach() - 0.7 * torch.randn(ids.shape, generator=g, dtype=torch.float64)
    loss = theirs.compute_sampled_token_self_distillation_loss(student, teacher, ids, distillation_alpha=1.0)
    loss = theirs.apply_importance_sampling_clipping(loss, logp, old, 2.0)
    loss = ((loss * batch.mask).sum(-1) / batch.mask.sum(-1).clamp(min=1)).mean()
    expected = torch.autograd.grad(loss, student, retain_graph=True)[0]
    [look] = recipe.looks
    batch = batch.replace(old_logp=old, **{look.column: old + said - logp.detach()})
    found = torch.autograd.grad(objective(recipe, ready(recipe, batch).replace(logp=logp)), student)[0]
    torch.testing.assert_close(found, expected)
