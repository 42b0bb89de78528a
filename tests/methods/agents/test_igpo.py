"""The page of igpo."""

from __future__ import annotations

import torch

from policyopt.methods.agents.igpo import InformationGain, TruthAfterTurns, igpo
from policyopt.parts import Normalise
from policyopt.rows import Batch, make_batch, pad
from tests.batches import random_batch
from tests.echo import Echo
from tests.played import Scripted, as_batch, play


def told(truth: list[list[float]], outcome: list[float]) -> Batch:
    """Episodes of one prompt, of one token a turn, with the probability of the truth before each."""
    turns = list(map(len, truth))
    return make_batch(
        mask=pad([[1.0] * n for n in turns], torch.float64), group=torch.zeros(len(turns), dtype=torch.long),
        reward=torch.tensor(outcome, dtype=torch.float64), turn_end=pad([list(range(n)) for n in turns], torch.long, -1),
        truth_logp=pad([[float(torch.tensor(p).log()) for p in one] for one in truth], torch.float64, float("nan")),
    )  # fmt: skip


def test_gains_telescope_and_the_last_turn_has_the_outcome() -> None:
    batch = told([[0.1, 0.3, 0.2], [0.1, 0.6]], [1.0, 0.0])
    found = InformationGain().rewards(batch)
    torch.testing.assert_close(
        found, torch.tensor([[0.2, -0.1, 1.0], [0.5, 0.0, 0.0]], dtype=torch.float64), atol=1e-7, rtol=0
    )


def test_equal_outcomes_still_teach() -> None:
    batch = told([[0.1, 0.3], [0.1, 0.1]], [0.0, 0.0])
    found = InformationGain()(batch)
    assert found[0, 0] > 0 > found[1, 0]
    assert not Normalise()(batch).any()


def test_without_discount_to_the_right_a_turn_sees_itself() -> None:
    batch = told([[0.1, 0.3, 0.2], [0.1, 0.6]], [1.0, 0.0])
    part = InformationGain(gamma=0.0)
    torch.testing.assert_close(part(batch), part.normalised(batch) * batch.mask)


def test_one_turn_is_grpo_on_the_outcome() -> None:
    batch = random_batch().replace(turn_end=None, truth_logp=None)
    mine = InformationGain(ddof=1, var_eps=0.0)(batch)
    torch.testing.assert_close(mine, Normalise()(batch))


def test_the_policy_is_asked_for_the_truth_before_each_turn() -> None:
    sampler = Scripted(lambda context, key: "a" * (1 + key[-2]), likely=lambda context: -1.0 / len(context))
    rows = play(TruthAfterTurns(size=2), sampler, Echo, answer="42")
    assert [len(r.columns["truth_logp"]) for r in rows] == [3, 3]  # type: ignore[arg-type]
    before = [-1.0 / x for x in rows[0].columns["truth_logp"]]  # type: ignore[union-attr]
    assert before == sorted(before) and len(set(before)) == 3, "longer contexts, turn by turn"
    assert all(context not in ("",) for context in sampler.contexts)
    batch = as_batch(rows, igpo().needs)
    assert InformationGain()(batch).isfinite().all()
    assert "truth_logp" not in play(TruthAfterTurns(size=1), sampler, Echo)[0].columns, "no answer, nothing asked"
