"""The page for users of TRL and verl: what it names is there, and means what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import policyopt
from policyopt import parts
from policyopt.methods.clip.gppo_klear import NotTruncated
from policyopt.methods.critic.ppo import AdaptiveKL
from policyopt.objective import kept, objective, selected
from policyopt.part import Aggregate, Part
from policyopt.parts import (
    PPOClip,
    RatioTimesAdvantage,
    SeqMeanTokenMean,
    SeqMeanTokenSum,
    SeqMeanTokenSumNorm,
    SumOverRows,
    TokenMean,
)
from policyopt.registry import get_method, methods
from policyopt.rows import Batch
from tests.batches import BUDGET, random_batch, ready

PAGE = Path(policyopt.__file__).parent.parent / "docs" / "peers.md"
NAMES = {**vars(parts), "NotTruncated": NotTruncated, "AdaptiveKL": AdaptiveKL}


def here() -> list[str]:
    """What the page writes as code in the cells that are about this library."""
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [row[1] if row[0].strip("| ").startswith(("loss of", "ceiling")) else row[0] for row in rows]
    return [code for cell in cells for code in re.findall("`([^`]+)`", cell)]


@pytest.mark.parametrize("code", sorted(set(here())))
def test_what_the_page_names_is_there(code: str) -> None:
    if "(" in code:
        assert isinstance(eval(code, NAMES), Part)
    else:
        fields = {"level", "clip", "form", "filter", "select", "source.rounds", "reject", "delta"}
        assert code in methods() or code in fields, "a method, or a setting of the one that stands before it"


def trained() -> Batch:
    """A batch with advantages, whose last row has no token to train on."""
    batch = random_batch(gaps=True)
    mask = batch.mask.clone()
    mask[-1] = 0
    return ready(get_method("grpo")(kl_coef=0.0), batch.replace(mask=mask))


def loss_of(batch: Batch, aggregate: Aggregate) -> Tensor:
    return objective(
        get_method("grpo")(kl_coef=0.0).replace(surrogate=RatioTimesAdvantage(), aggregate=aggregate), batch
    )


def test_aggregations_are_what_the_page_says_and_rows_without_tokens_count() -> None:
    batch = trained()
    loss = -(batch.logp - batch.old_logp).exp() * batch.advantage
    rows = [loss[i][batch.mask[i].bool()] for i in range(len(batch))]
    sums = torch.stack([row.sum() for row in rows])
    means = torch.stack([row.sum() / max(1, len(row)) for row in rows])
    wanted = {
        TokenMean(): sums.sum() / sum(map(len, rows)),
        SeqMeanTokenMean(): means.sum() / 9,
        SeqMeanTokenSum(): sums.sum() / 9,
        SeqMeanTokenSumNorm(): sums.sum() / 9 / BUDGET,
        SumOverRows(inner=SeqMeanTokenSumNorm()): sums.sum() / BUDGET,
    }
    for aggregate, value in wanted.items():
        torch.testing.assert_close(loss_of(batch, aggregate), value)


def test_dual_is_a_ratio_and_low_and_high_are_distances() -> None:
    batch = trained()
    ratio, a = 3 * (batch.logp - batch.old_logp).exp(), batch.advantage
    found = PPOClip(low=0.2, high=0.28, dual=3.0)(ratio.log(), batch)
    clipped = torch.maximum(-ratio * a, -ratio.clamp(0.8, 1.28) * a)
    torch.testing.assert_close(found, torch.where(a < 0, torch.minimum(clipped, -3.0 * a), clipped))
    delta = torch.maximum(-ratio.clamp(max=3.0) * a, -ratio.clamp(0.8, 1.28) * a)
    torch.testing.assert_close(found, delta, msg="TRL writes it as a cap on the ratio")


def test_where_cut_off_responses_are_left_out_decides_what_the_others_are_compared_with() -> None:
    batch = random_batch(groups=(4,), lengths=(6, 2, 3, 1))
    batch = batch.replace(truncated=torch.tensor([1.0, 0, 0, 0]), reward=torch.tensor([0.0, 1, 0, 0]).double())
    plain = get_method("grpo")(kl_coef=0.0)
    before, after = plain.replace(filter=(NotTruncated(),)), plain.replace(select=(NotTruncated(),))
    rest = batch[kept(before, batch)]
    alone = before.advantage(rest)[0, 0]  # type: ignore[misc]
    credited = ready(after, batch)
    beside = credited[selected(after, credited)].advantage[0, 0]
    assert float(alone) == pytest.approx(2 / 3 / (1 / 3) ** 0.5, abs=1e-5)
    assert float(beside) == pytest.approx(3 / 4 / (1 / 4) ** 0.5, abs=1e-5)
