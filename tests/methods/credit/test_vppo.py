"""The page of VPPO."""

from __future__ import annotations

import math

import torch

from policyopt.methods.clip.dapo import dapo
from policyopt.methods.credit.vppo import BlankedLines, DependencyScale, MostDependent, dependency, vppo
from policyopt.parts import TokenMean
from policyopt.rows import Batch
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_surrogates import same

LOOK = BlankedLines()


def seen(moved: bool = True) -> Batch:
    """A batch whose log-probabilities the hidden lines move, or not."""
    batch = random_batch()
    g = torch.Generator().manual_seed(3)
    shift = torch.randn(batch.mask.shape, generator=g, dtype=torch.float64) * moved
    return batch.replace(**{LOOK.column: (batch.old_logp + shift) * batch.mask})


def test_without_effect_of_what_is_hidden_nothing_is_scaled() -> None:
    batch = seen(moved=False)
    assert not dependency(batch, LOOK).any()
    assert (DependencyScale().scale(batch) == 1).all()
    plain = dapo().replace(shape=())
    free = vppo(top_ratio=1.0, scale_min=0.9, penalty=0.0, dual_clip=None)
    same(gradients(free, ready(free, batch))[1]["logp"], gradients(plain, ready(plain, batch))[1]["logp"])


def test_scales_lie_between_the_least_and_the_most_and_are_1_in_the_mean() -> None:
    part, batch = DependencyScale(least=0.7), seen()
    scale = part.scale(batch)
    assert math.isclose(float(scale.min()), 0.7) and math.isclose(float(scale.mean()), 1.0, rel_tol=1e-7)
    score = part.score(batch)
    assert int(scale.argmax()) == int(score.argmax())
    assert torch.equal(part(batch).sign(), part.inner(batch).sign()), "no advantage changes its sign"


def test_only_the_most_dependent_tokens_are_trained_and_the_divisor_counts_all() -> None:
    batch, some = seen(), vppo(penalty=0.0, top_ratio=0.4)
    picked = MostDependent(LOOK, share=0.4)(batch)
    count = [math.ceil(0.4 * n - 1e-9) for n in batch.mask.sum(1).tolist()]
    assert picked.sum(1).tolist() == count and not (picked & (batch.mask == 0)).any()
    strength = dependency(batch, LOOK)
    for row, chosen, mask in zip(strength, picked, batch.mask.bool(), strict=True):
        rest = row[mask & ~chosen]
        assert not len(rest) or row[chosen].min() >= rest.max()
    every = some.replace(weight=())
    same(
        gradients(some, ready(some, batch))[1]["logp"],
        torch.where(picked, gradients(every, ready(every, batch))[1]["logp"], 0.0),
    )
    assert isinstance(some.aggregate, TokenMean)


def test_lines_are_emptied_by_chance_and_the_one_that_asks_stays() -> None:
    told = [{"role": "system", "content": "a\nb"}, {"role": "user", "content": "c8\nb1\nd2\ng6\nd?"}]
    found = [BlankedLines().messages(told, (0, i)) for i in range(400)]
    lines = [m[1]["content"].split("\n") for m in found]
    assert all(m[0] == told[0] and len(x) == 5 and x[-1] == "d?" for m, x in zip(found, lines, strict=True))
    empty = torch.tensor([[line == "" for line in x[:-1]] for x in lines]).double().mean(0)
    assert (abs(empty - 0.5) < 0.1).all()
    assert found[7] == BlankedLines().messages(told, (0, 7)), "the key says all"
    assert BlankedLines(share=1.0).messages([{"role": "user", "content": "1+1?"}], (0,))[0]["content"] == ""
    assert BlankedLines(share=0.0).messages(told, (0,)) == told
