"""The page of prefix-rl."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from pydantic import ValidationError

from policyopt.methods.guidance.prefix_rl import Prefixed, prefix_rl
from policyopt.sources.draw import DatasetReset, Group, Hinted
from tests.batches import dlogp, random_batch
from tests.cases.words._scripted import begun_mask, given_tokens
from tests.methods.shared_guidance import SOLUTION, Recorder, draw


def test_prefixes_of_no_length_and_resets_of_no_probability_are_a_group() -> None:
    plain = Recorder()
    draw(Group(size=3), plain)
    for i in range(6):
        script = Recorder()
        drawn = draw(Prefixed(size=3, low=0.0, high=0.0), script, key=(0, 0, i))
        assert script.requests[0][0] == plain.requests[0][0]
        assert not any(r.own for r in drawn)
    script = Recorder()
    assert not any(r.own for r in draw(DatasetReset(size=3, share=0.0), script))
    assert {tokens for tokens, _ in script.requests} == {(1, 2)}


def test_bad_hints_are_refused() -> None:
    for hints in ((), (0.5, 0.25), (0.0, 0.5), (0.5, 0.5)):
        with pytest.raises(ValidationError, match="the weakest first"):
            Hinted(hints=hints)
    with pytest.raises(ValidationError):
        Hinted(hints=(0.5, 1.5))
    with pytest.raises(ValidationError, match="below low"):
        Prefixed(low=0.6, high=0.5)


# Prefixes and resets --------------------------------------------------------------------------------------------------


def test_a_question_comes_with_a_few_prefixes_that_never_change() -> None:
    seen: Counter[int] = Counter()
    for i in range(80):
        group = draw(Prefixed(size=3), Recorder(), key=(i % 5, i, 0))
        [start] = {given_tokens(r) for r in group}
        assert all(r.tokens[:start] == list(SOLUTION[:start]) for r in group)
        seen[start] += 1
    assert 2 <= len(seen) <= 4, "at most three cuts, and none"
    assert 8 <= seen.pop(0) <= 34
    assert all(0.4 * 8 - 1 < start < 0.8 * 8 for start in seen)
    assert Prefixed(low=0.4, high=0.8).length(37, 0.03) == 15


def test_what_others_wrote_has_no_gradient_and_no_weight() -> None:
    """Rows that begin with a prefix train as the same rows do without it."""
    batch = random_batch(lengths=(5,) * 9)
    start = [2, 2, 2, 2, 0, 0, 0, 3, 3]
    mask = begun_mask([[1, 1, 1, 1, 1, 0]] * 9, start)
    assert mask.sum(-1).tolist() == [5 - h for h in start]
    noisy = batch.replace(mask=mask, logp=torch.where(mask > 0, batch.logp, torch.nan))
    found = dlogp(prefix_rl(), noisy)
    assert (found[mask == 0] == 0).all()
    shifted = torch.stack([row.roll(-h) for row, h in zip(batch.logp, start, strict=True)])
    rest = torch.stack([row.roll(-h) for row, h in zip(mask, start, strict=True)])
    short = dlogp(prefix_rl(), batch.replace(mask=rest, logp=shifted))
    back = torch.stack([row.roll(h) for row, h in zip(short, start, strict=True)])
    torch.testing.assert_close(found, back)
