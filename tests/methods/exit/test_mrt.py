"""The page of mrt."""

from __future__ import annotations

import pytest

from policyopt.methods.exit.mrt import ContinueOrStop, mrt
from policyopt.sources.program import Response
from tests.batches import random_batch, ready
from tests.cases.words.mrt import progress, regret
from tests.methods.shared_judges import Echo, asked, ids_of, run, same


def test_going_on_is_worth_what_it_adds_to_stopping() -> None:
    program = ContinueOrStop(size=2, stops=2, opener=" so ", answer_tokens=4)
    sampler = Echo("one\ntwo####", "x", "y", "more", "less")
    rows = run(program, asked(), sampler)
    assert [r.use for r in rows] == ["train", "train", "baseline", "baseline"]
    cut = rows[0].cut
    assert cut in (0, 4), "behind a line, or at the prompt"
    assert all(r.own[:cut] == [False] * cut and r.own[-1] for r in rows)
    thought = program.boundaries(asked()[1], Response(list(ids_of("a\nb\n")), [], []))
    assert thought == [0, 2], "not behind the last token"
    batch = random_batch()
    same(ready(mrt(), batch.replace(baseline_reward=batch.reward)).advantage, 0 * batch.mask)


def test_progress_telescopes_and_regret_falls_with_success() -> None:
    success = [0.1, 0.4, 0.2, 0.9]
    assert sum(progress(success)) == pytest.approx(0.8)
    assert regret([1e-9, 1], [1.0, 1.0], 10) == pytest.approx(0, abs=1e-8)
    assert regret([10, 20], [0.2, 0.9], 15) > regret([10, 20], [0.3, 0.9], 15)
