"""The page of gkd."""

from __future__ import annotations

import torch

from policyopt.methods.distillation.gkd import gkd
from policyopt.objective import objective
from policyopt.rows import make_batch
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_divergence import distributions


def test_sampled_distillation_follows_the_reverse_kl_in_expectation() -> None:
    recipe, logits, teacher = gkd(form="sampled"), distributions(6).requires_grad_(), distributions(6, seed=1)
    logp, other = logits.log_softmax(-1), teacher.log_softmax(-1)
    whole = torch.autograd.grad((logp.exp() * (logp - other)).sum(), logits, retain_graph=True)[0]
    total = torch.zeros(6, dtype=torch.float64)
    for token in range(6):
        row = make_batch(
            mask=torch.ones(1, 1, dtype=torch.float64),
            group=torch.zeros(1),
            reward=torch.ones(1, dtype=torch.float64),
            correct=torch.ones(1, dtype=torch.float64),
            old_logp=logp[token].detach().view(1, 1),
            teacher_logp=other[token].view(1, 1),
            logp=logp[token].view(1, 1),
        )
        loss = objective(recipe, ready(recipe, row).replace(logp=logp[token].view(1, 1)))
        total += logp[token].exp().detach() * torch.autograd.grad(loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(total, whole)


def test_gkd_reads_neither_rewards_nor_ratios() -> None:
    recipe, batch = gkd(), random_batch()
    loss, found = gradients(recipe, ready(recipe, batch))
    changed = batch.replace(reward=-batch.reward, old_logp=batch.old_logp - 1)
    stat = ready(recipe, batch).members("statistic")
    again, other = gradients(recipe, ready(recipe, changed).with_statistics(stat))
    assert float(loss) == float(again)
    assert not found["logp"].any()
    torch.testing.assert_close(found[recipe.live[0].key], recipe.aggregate(batch))
    assert other.keys() == found.keys()
