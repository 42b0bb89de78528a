"""Rows: columns by name, and their texts with them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from policyopt.lens.random_batch import random_batch
from policyopt.methods.entropy.siren import NucleusEntropy
from policyopt.rows import Batch, join, make_batch


def small(rows: int = 3, width: int = 2, **columns: Any) -> Batch:
    """Rows of ones, each with a record of its number."""
    given = {"mask": torch.ones(rows, width), "group": torch.arange(rows), "reward": torch.arange(rows) / 1.0}
    return make_batch([{"id": i} for i in range(rows)], **(given | columns))


def ids(batch: Batch) -> list[int]:
    assert batch.records is not None
    return [r["id"] for r in batch.records]


def test_a_column_that_is_not_there_is_none_and_a_name_that_is_none_is_refused() -> None:
    batch = small()
    assert batch.advantage is None and batch.ref_logp is None
    for misspell in (
        lambda: batch.advantge,
        lambda: batch.replace(advantge=batch.mask),
        lambda: small(advantge=batch.mask),
    ):
        with pytest.raises(
            AttributeError, match=r"batch\.advantge: no column of a batch has this name; nearest: advantage"
        ):
            misspell()
    assert not hasattr(batch, "items")
    assert "advantage" in dir(batch) and "replace" in dir(batch)


def test_columns_of_other_rows_are_refused() -> None:
    batch = small()
    with pytest.raises(ValueError, match=r"column 'reward' has shape \[2\], but the batch has 3 rows"):
        batch.replace(reward=torch.zeros(2))
    with pytest.raises(ValueError, match="2 records for 3 rows"):
        batch.with_records([{}, {}])
    with pytest.raises(TypeError, match=r"take batch\[1:2\]"):
        batch[1]


def test_a_batch_is_never_changed() -> None:
    batch = small()
    with pytest.raises(AttributeError, match=r"batch.replace\(reward=\.\.\.\) gives another one"):
        batch.reward = torch.zeros(3)
    other = batch.replace(reward=None, returns=batch.mask)
    assert batch.reward is not None and batch.returns is None
    assert other.reward is None and other.returns is batch.mask and ids(other) == [0, 1, 2]
    batch.columns().clear()
    assert batch.reward is not None
    mine = batch.clone()
    mine.reward.zero_()
    assert batch.reward.sum() == 3
    assert copy.copy(batch).reward is batch.reward and ids(copy.deepcopy(batch)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (torch.tensor([4, 0, 0]), [4, 0, 0]),
        ([3, 1], [3, 1]),
        (slice(1, 3), [1, 2]),
        (torch.tensor([True, False, False, True, True]), [0, 3, 4]),
        (torch.zeros(5, dtype=torch.bool), []),
    ],
)
def test_texts_are_cut_with_their_rows(rows: Any, expected: list[int]) -> None:
    batch = small(5)[rows]
    assert len(batch) == len(expected) and batch.reward.tolist() == ids(batch) == expected


def test_texts_stay_with_their_rows_through_many_cuts() -> None:
    batch = small(9)
    for rows in (torch.randperm(9), slice(2, None), torch.tensor([5, 5, 0, 3]), torch.tensor([1, 0, 1, 1]).bool()):
        batch = batch[rows].replace(advantage=torch.zeros(1).expand(len(batch[rows]), 2)).to("cpu").clone()
        assert batch.reward.tolist() == [float(i) for i in list(map(int, batch.group))]
    assert ids(batch) == batch.group.tolist()
    assert make_batch(mask=torch.ones(3, 1))[:1].records is None


def test_families_are_flat_columns() -> None:
    batch = small(**{"component[style]": torch.tensor([0.1, 0.2, 0.3])})
    assert list(batch.members("component")) == ["style"] and batch.component("style")[1] == 0.2
    entropy = NucleusEntropy()
    batch = batch.with_statistics({entropy.key: batch.mask, "scored:" + entropy.key: 2 * batch.mask})
    assert batch.stat(entropy) is batch.mask and batch.scored(entropy).sum() == 12
    batch = batch.with_leaves({"logp": batch.mask, entropy.key: 3 * batch.mask})
    assert batch.logp is batch.mask and batch.stat(entropy).sum() == 18
    assert batch[:1].stat(entropy).shape == (1, 2)
    with pytest.raises(KeyError):
        batch.stat(NucleusEntropy(p=0.5))


# Joining -------------------------------------------------------------------------------------------------------------


def test_what_one_piece_lacks_is_made_up_as_the_column_says() -> None:
    wide = torch.ones(1, 3)
    plain = small(2)
    rich = small(
        1, 3, present=wide, guided=0 * wide + 1, step_reward=wide[:, :1], step_end=torch.tensor([[2]]),
        node=torch.tensor([[1, 2]]), node_value=torch.tensor([[0.5, 0.5]]), history=torch.ones(1, 4),
        cut=torch.tensor([1]), consistency=torch.ones(1), **{"component[style]": torch.ones(1)},
    )  # fmt: skip
    for pieces in ([plain, rich], [rich, plain]):
        both, first = join(pieces), len(pieces[0])
        there = torch.arange(3) >= first if pieces[0] is plain else torch.arange(3) < first
        old = both[~there]
        assert ids(both) == ids(pieces[0]) + ids(pieces[1])
        assert old.present.tolist() == [[1, 1, 0]] * 2 == old.mask.tolist()
        assert not old.guided.any() and not old.component("style").any() and not old.consistency.any()
        assert old.step_end.tolist() == [[-1], [-1]] and old.step_reward.tolist() == [[0], [0]]
        assert not old.node.any() and old.node_value.isnan().all() and old.history.isnan().all()
        assert old.cut.tolist() == [-1, -1]
        new = both[there]
        for name, x in rich.columns().items():
            assert torch.equal(getattr(new, name), x), name


def test_padding_of_a_joined_column_is_what_the_column_says() -> None:
    one = small(1, 1, step_end=torch.tensor([[0]]), temperature=torch.tensor([0.5]))
    two = small(1, 3, step_end=torch.tensor([[0, 2]]), temperature=torch.tensor([[0.7, 0.8, 0.9]]))
    both = join([one, two])
    assert both.step_end.tolist() == [[0, -1], [0, 2]]
    torch.testing.assert_close(both.temperature, torch.tensor([[0.5, 1.0, 1.0], [0.7, 0.8, 0.9]]))
    assert join([one]) is one


def test_what_nothing_can_stand_in_for_is_refused_or_left_out() -> None:
    with pytest.raises(ValueError, match="one of them has no column 'old_logp', and nothing stands in for it"):
        join([small(old_logp=torch.ones(3, 2)), small()])
    assert join([small(), small(old_logp=torch.ones(3, 2))]).old_logp is None
    assert join([small(), small().with_records(None)]).records is None


def test_a_batch_joined_from_its_pieces_is_itself() -> None:
    whole = random_batch(gaps=True)
    both = join([whole[:4], whole[4:]])
    for name, x in whole.columns().items():
        assert torch.equal(getattr(both, name).nan_to_num(), x.nan_to_num()), name
