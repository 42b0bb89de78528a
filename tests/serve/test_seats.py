"""Adapters have their seats in models of many kinds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from policyopt.errors import UserError
from policyopt.models.causal import split_model
from policyopt.serve.losses import LOSSES
from policyopt.serve.refused import Refused
from policyopt.serve.seats import Seats, Shape
from policyopt.serve.trained import Trained
from policyopt.serve.wire import Asked, Datum
from tests.tiny import family_model, unusual_model

DATA = [Datum(torch.arange(n).numpy(), torch.arange(1, n + 1).numpy(), {"weights": torch.ones(n).numpy()}) for n in (3, 6)]  # fmt: skip
ASKED = Asked("m", 1, DATA, LOSSES["cross_entropy"], {}, True)


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma2", "bloom", "opt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fresh_adapters_change_nothing_and_learn(family: str, dtype: torch.dtype) -> None:
    net = family_model(family, dtype)
    plain = [net(input_ids=torch.from_numpy(d.tokens)[None]).logits[0].float().log_softmax(-1) for d in DATA]
    expected = [p.gather(-1, torch.from_numpy(d.targets)[:, None])[:, 0].detach() for p, d in zip(plain, DATA)]
    seats = Seats(SimpleNamespace(model=net))  # type: ignore[arg-type]
    split = split_model(seats.net)
    shape = Shape(2)
    fresh = seats.fresh(shape, seed=1)
    assert all(x.dtype == torch.float32 for x in fresh.values())  # a small step is lost in fewer bits
    for part in ("attn", "mlp", "unembed"):
        assert seats.modules(Shape(2, **{k: k == part for k in ("attn", "mlp", "unembed")}))
    trained = Trained(shape, fresh, fresh)
    before, loss = trained.run(seats, split, ASKED)
    for mine, theirs in zip(before, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(mine), theirs, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.3)
    adam: Any = SimpleNamespace(learning_rate=0.01, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.0, grad_clip_norm=0.0)  # fmt: skip
    trained.step(adam)
    assert all(p.grad is None for p in seats.parameters(shape).values())
    assert trained.run(seats, split, ASKED)[1] < loss
    with seats.seated(None):
        again = split.logits(split.hidden(input_ids=torch.from_numpy(DATA[0].tokens)[None]).last_hidden_state)
    torch.testing.assert_close(again[0].float().log_softmax(-1), plain[0], rtol=0, atol=1e-6)


def test_a_kind_of_layer_that_a_model_has_not() -> None:
    seats = Seats(SimpleNamespace(model=family_model("qwen3")))  # type: ignore[arg-type]
    seats._groups["attn"].clear()
    with pytest.raises(Refused, match="train_attn: this model has no linear layers of that kind; set it to False"):
        seats.modules(Shape(2))
    assert seats.modules(Shape(2, attn=False))
    with pytest.raises(Refused, match="at least one of train_attn"):
        seats.modules(Shape(2, attn=False, mlp=False, unembed=False))
    with pytest.raises(UserError, match="MambaForCausalLM cannot be served: it takes no adapters"):
        Seats(SimpleNamespace(model=unusual_model("mamba")))  # type: ignore[arg-type]


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    seats = Seats(SimpleNamespace(model=family_model("qwen3")))  # type: ignore[arg-type]
    fresh = seats.fresh(Shape(2), 0)
    trained = Trained(Shape(2), fresh, fresh)
    for p in trained.parameters.values():
        p.grad = torch.full_like(p, torch.nan)
    with pytest.raises(Refused, match="not finite: it was dropped"):
        trained.step(SimpleNamespace(learning_rate=1.0, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.0, grad_clip_norm=1.0))  # fmt: skip
    assert all(torch.equal(p, fresh[n]) and p.grad is None for n, p in trained.parameters.items())
    assert trained.steps == 0
