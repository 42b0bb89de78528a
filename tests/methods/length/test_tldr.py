"""The page of TLDR."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest
import torch

from policyopt.methods.length.tldr import LEVELS, AtLevel, SoonerStopped, scaled, tldr
from policyopt.objective import shaped
from policyopt.rows import make_batch
from policyopt.sources.program import Response
from tests.methods.shared_judges import Echo, asked, ids_of, run, same


def test_the_level_of_the_prompt_is_what_length_costs() -> None:
    level, correct = torch.tensor([0, 1, 2, 0, 2]), torch.tensor([1.0, 1, 1, 0, 0]).double()
    batch = make_batch(
        mask=torch.ones(5, 1, dtype=torch.float64),
        group=level,
        true_length=torch.full((5,), 150.0, dtype=torch.float64),
        correct=correct,
        level=level,
        reward=torch.zeros(5, dtype=torch.float64),
        budget=torch.full((5,), 100),
    )
    assert shaped(tldr(), batch).reward.tolist() == pytest.approx([1 - 1.2, 1 - 0.6, 1, 0, 0])
    assert shaped(tldr(alpha_long=0.2, max_len=300.0), batch).reward.tolist() == pytest.approx([0.6, 0.8, 0.9, 0, 0])


def test_a_group_has_one_level_which_its_prompt_names() -> None:
    question, context = asked()
    context = dataclasses.replace(context, frame=ids_of, room=200)
    seen = set()
    for i in range(12):
        prompt = dataclasses.replace(question, text="q", key=(0, i, 0)), context
        rows = run(AtLevel(size=2), prompt, (sampler := Echo("x", "y")))
        [k] = {int(cast(float, r.columns["level"])) for r in rows}
        assert LEVELS[k] in sampler.asked[0][0]
        assert run(AtLevel(size=2), prompt, Echo("x", "y"))[0].columns == rows[0].columns
        seen.add(k)
    assert seen == {0, 1, 2}
    with pytest.raises(ValueError, match="from 0"):
        AtLevel(level=3)


def test_the_temperature_moves_the_end_of_the_thought_alone() -> None:
    logits = torch.tensor([2.1, 0.4, 1.3, -0.7], dtype=torch.float64)
    plain, sooner = logits.softmax(-1), scaled(logits, 2, 0.5).softmax(-1)
    assert sooner[2] > plain[2] and logits[2] == 1.3
    same(sooner[:2] / sooner[3], plain[:2] / plain[3])
    assert torch.equal(scaled(logits, 2, 1.0), logits)


def test_what_follows_the_thought_is_drawn_as_ever() -> None:
    asks: list[dict[str, Any]] = []

    class Watched(Echo):
        async def generate(self, tokens: Any, **how: Any) -> list[Response]:
            asks.append(how)
            return await super().generate(tokens, **how)

    rows = run(SoonerStopped(size=2, mark="=="), asked(), Watched("a==", "b", " 7"))
    assert [how.get("processor") is not None for how in asks] == [True, False]
    assert bytes(rows[0].tokens[:-1]) == b"a== 7" and rows[0].finished and rows[1].finished
    assert isinstance(tldr(stop_temperature=0.5).decode, SoonerStopped)
