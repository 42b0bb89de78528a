"""The page of treepo."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policyopt.engine.local import LocalSampler
from policyopt.methods.tree.treepo import Segments, SubtreeAdvantage, repeats
from policyopt.sources.draw import Growth, Tree
from policyopt.sources.program import Response
from tests.batches import random_batch
from tests.methods.shared_trees import draw, prompt


def test_segments_fork_at_their_ends_and_restart_from_older_ones(sampler: LocalSampler, endless: LocalSampler) -> None:
    [responses] = draw(Tree(size=16, branching=Segments(depth=6)), endless)
    assert {end % 4 for r in responses for end in r.ends} == {0}
    assert 2 <= len({r.nodes[0] for r in responses}) <= 8
    [short] = draw(Tree(size=16, branching=Segments(depth=2, first_low=2, first_high=2)), sampler, prompt(budget=12))
    assert len(short) == 16, "two paths that end soon are cut until there are as many leaves as were asked for"
    assert repeats([1, 2] * 5, 4, 3) and not repeats([1, 2] * 3, 4, 3) and not repeats([], 4, 2)
    with pytest.raises(ValueError, match="first_low is 9"):
        Segments(first_low=9)


@pytest.mark.parametrize("restart", ["random", "least-likely", "block"])
def test_paths_that_have_ended_are_cut_where_it_was_said(restart: Any, sampler: LocalSampler) -> None:
    rule = Segments(depth=2, segment=6, first_low=1, first_high=1, restart=restart, block=None if restart == "random" else 2)  # fmt: skip
    tree = Growth(12, 1.0, "seed")
    tree.rows = [Response(list(range(8)), [-1.0, -9.0, -0.1, -0.1, -1.0, -2.0, -3.0, -4.0], [0.0] * 8, "eos")]
    tree.cuts, tree.rounds = {(0, 6)}, 1
    kept = [fork.kept for _ in range(300) for fork in rule(tree, 2)]
    share = {k: round(kept.count(k) / len(kept), 1) for k in sorted(set(kept))}
    # blocks of two tokens have mean log-probabilities -5, -0.1, -1.5 and -3.5
    expected = {"random": {0: 0.5, 6: 0.5}, "least-likely": {1: 1.0}, "block": {0: 0.0, 2: 0.8, 4: 0.2, 6: 0.0}}[
        restart
    ]
    assert {k: x for k, x in share.items() if x} == {k: x for k, x in expected.items() if x}
    [again] = draw(Tree(size=16, branching=rule), sampler, prompt(budget=12))
    assert len(again) == 16


def test_subtrees_of_treepo() -> None:
    batch = random_batch(groups=(8, 5))
    gain, weight = SubtreeAdvantage().terms(batch)
    torch.testing.assert_close(gain[:8, 0].sum(), torch.zeros(()).double())
    for node in (1, 2):
        inside = (batch.node[:8, 0] == node).nonzero()[:, 0]
        torch.testing.assert_close(gain[inside, 1].sum(), torch.zeros(()).double())
    assert weight[-1].tolist() == [1, 0, 0], "a leaf alone below the root keeps the term of the whole prompt"
    for form in ("average", "size"):
        advantage = SubtreeAdvantage(weight=form)(batch)  # type: ignore[arg-type]
        torch.testing.assert_close(advantage.sum(), torch.zeros(()).double(), rtol=0, atol=1e-10)
        assert float((advantage**2).sum() / (batch.mask.sum() - 1)) == pytest.approx(1.0)
    equal = batch.replace(reward=torch.cat([torch.tensor([1.0, 0.0] * 4), torch.rand(5)]).double())
    kept = SubtreeAdvantage(drop_flat=True).terms(equal)[1]
    assert kept[:8].tolist() == [[1, 0, 0]] * 8, "below the root all leaves of a tree have the same reward"
    assert SubtreeAdvantage().terms(equal)[1][:8].tolist() == [[1, 1, 1]] * 8
