"""Methods that put words between two draws: questions in other words, and answers after a critique."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policyopt.items import Verdict
from policyopt.sources.program import Response
from policyopt.training.rows import to_batch


def test_the_pass_rate_is_of_what_the_main_program_sampled() -> None:
    def row(right: bool, source: int = 0, use: Any = "train") -> Response:
        said = Verdict(float(right), right, True, "")
        return Response([5], [-1.0], [0.0], "eos", origin=source, use=use, verdict=said)

    rows = [row(True), row(False), row(True, source=1), row(True, use="baseline"), row(False, use="pool"), row(True)]
    said = [r.verdict for r in rows if r.verdict]
    batch = to_batch([(1,)] * 6, rows, said, [0, 0, 0, 0, 0, 3], 1, torch.float64)
    assert batch.pass_rate.tolist() == pytest.approx([1 / 3] * 5 + [1.0])
    beside = to_batch([(1,)], rows[2:3], said[2:3], [0], 1, torch.float64)
    assert beside.pass_rate.tolist() == [0.0]
