"""The page of COPO."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.credit.copo import GlobalCredit, answer_entropy, copo
from policyopt.methods.group.grpo import grpo
from policyopt.parts import PPOClip
from policyopt.rows import Batch
from tests.batches import dlogp, random_batch
from tests.methods.shared_credit import outcomes, same


def answered(rewards: list[float], answers: list[int], groups: list[int]) -> Batch:
    return outcomes(rewards, groups).replace(answer_id=torch.tensor(answers))


def test_answers_that_differ_learn_as_in_grpo() -> None:
    batch = random_batch().replace(answer_id=torch.arange(9))
    parent = grpo(kl_coef=0.0).replace(surrogate=PPOClip(dual=3.0))
    same(copo(k=1e4, force_global=False), parent, batch)
    weak = dlogp(copo(k=1e4, b=9.0), batch)
    signs = [{float(x) for x in weak[batch.group == g].sign().flatten()} - {0.0} for g in range(3)]
    assert all(len(s) == 1 for s in signs), "without the local part all tokens of a prompt go one way"


def test_a_group_of_one_outcome_learns_from_the_others() -> None:
    batch = answered([1, 1, 0, 0, 1, 0], [3, 3, 1, 2, 0, 1], [2, 2, 2])
    found = GlobalCredit()(batch)
    assert found.global_advantage.tolist() == pytest.approx([1, 1, -1, -1, 0, 0], abs=1e-5)
    assert found.local_weight[:4].tolist() == [0] * 4, "forced, though the wrong answers differ"
    assert GlobalCredit(force_global=False)(batch).local_weight[2] > 0.99
    alike = GlobalCredit()(answered([1, 0, 0, 1], [0, 1, 0, 1], [2, 2]))
    assert not alike.global_advantage.any(), "all prompts equally solved"
    assert not GlobalCredit()(answered([1, 0], [0, 1], [2])).global_advantage.any(), "a single prompt"


def test_only_which_answers_are_equal_counts() -> None:
    batch = answered([1, 0, 0, 1, 0, 0, 0], [0, 1, 1, 0, 2, 2, 0], [4, 3])
    entropy = answer_entropy(batch)
    assert entropy[0] == pytest.approx(1.0)
    assert entropy[4] == pytest.approx(0.9182958)
    other = batch.replace(answer_id=torch.tensor([7, 3, 3, 7, 3, 3, 1]))
    torch.testing.assert_close(answer_entropy(other), entropy)
    damped = GlobalCredit(consistency_coef=True).advantage(batch)
    assert damped[0] > damped[4]


def test_answers_are_read_where_nobody_numbers_them() -> None:
    texts = ["2 + 2 = 4\n#### 4", "so\n#### 4", "#### 5", "none"]
    batch = outcomes([1, 1, 0, 0], [4]).with_records([{"response": t} for t in texts])
    assert answer_entropy(batch).tolist() == pytest.approx([1.5] * 4)
    silent = batch.replace(answer_id=torch.full((4,), -1))
    assert answer_entropy(silent).tolist() == pytest.approx([1.5] * 4)
    assert answer_entropy(outcomes([1, 1, 0, 0], [4])).tolist() == pytest.approx([1.0] * 4)
