"""The page of AdaCoT."""

from __future__ import annotations

import torch

from policyopt.lens.case import without_critic
from policyopt.methods.modes.adacot import Outside, TriggerPenalty, adacot
from policyopt.objective import token_gradients
from policyopt.parts import Regex
from policyopt.rows import Batch, make_batch


def told(used: list[float], needed: list[float], formatted: list[float] | None = None) -> Batch:
    n = len(used)
    return make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        reward=torch.zeros(n, dtype=torch.float64),
        formatted=torch.tensor(formatted or [1.0] * n, dtype=torch.float64),
        **{
            "component[thinks]": torch.tensor(used, dtype=torch.float64),
            "component[needed]": torch.tensor(needed, dtype=torch.float64),
        },
    )


def test_a_thought_costs_where_it_is_not_needed_and_its_lack_where_it_is() -> None:
    batch = told([1, 0, 1, 0], [1, 1, 0, 0])
    part = TriggerPenalty(miss=0.5, over=0.25, needed="needed")
    assert part(batch).reward.tolist() == [0, -0.5, -0.25, 0]
    assert not (part.due(batch)[0] * part.due(batch)[1]).any(), "never both"
    flat = TriggerPenalty(miss=0.5, over=0.25)
    assert flat(batch).reward.tolist() == [-0.25, -0.5, -0.25, -0.5]
    assert TriggerPenalty(miss=0, over=0)(told([1, 0], [0, 1], [1, 0])).reward.tolist() == [0, -1]


def test_the_token_that_decides_has_no_gradient_and_no_place_in_the_mean() -> None:
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.float64)
    decides = torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    logp = -torch.ones_like(mask)
    batch = make_batch(
        mask=mask,
        old_logp=logp,
        advantage=mask,
        reward=mask[:, 0],
        group=torch.tensor([0, 1]),
        **{"span[Regex]": decides},
    )
    found = []
    for selective in (False, True):
        recipe = without_critic(adacot(selective=selective, kl_coef=0.0))
        found.append(token_gradients(recipe, batch, {"logp": logp})[1]["logp"])
    plain, kept = found
    assert kept[0, 1] == 0 and plain[0, 1] != 0
    torch.testing.assert_close(kept[decides == 0], plain[decides == 0] * 7 / 6)


def test_where_nothing_decides_all_tokens_are_kept() -> None:
    mask = torch.tensor([[1.0, 1, 0]], dtype=torch.float64)
    batch = make_batch(mask=mask, **{"span[Regex]": torch.zeros_like(mask)})
    assert torch.equal(Outside()(batch), mask.bool())


def test_the_token_behind_the_opening_decides_in_either_mode() -> None:
    span = Outside().span
    assert span("<think>ab</think>c") == [(7, 8)]
    assert span("<think></think>c") == [(7, 8)]
    assert span("<think>\nab") == [(7, 8)]
    assert span("no thought") == [] and span("<think>") == []
    thought = next(s for s in adacot().spans if s.handle == "thought")
    assert isinstance(thought, Regex)
    assert [bool(thought(x)) for x in ("<think> a</think>", "<think>\n\n</think>b", "<think></think>b")] == [
        True,
        False,
        False,
    ]
