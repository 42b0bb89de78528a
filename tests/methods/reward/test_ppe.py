"""The page of ppe."""

from __future__ import annotations

import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.reward.ppe import ppe
from policyopt.objective import shaped
from policyopt.parts import Correctness
from tests.batches import random_batch
from tests.methods.shared_credit import outcomes, same


def test_ppe_pays_accuracy_and_form_apart() -> None:
    batch = outcomes([1, 1, 0, 0]).replace(formatted=torch.tensor([1.0, 0, 1, 0], dtype=torch.float64))
    assert shaped(ppe(), batch).reward.tolist() == [1.0, 0.5, 0.5, 0.0]
    batch = random_batch()
    same(ppe(1.0, 0.0), grpo().replace(shape=(Correctness(wrong=0.0),)), batch)
