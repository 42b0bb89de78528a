"""The loss and the advantage for prime-rl, against dataclasses of the same fields as its own: the real thing was never run."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.errors import UserError
from policyopt.integrations import prime_rl
from policyopt.objective import objective
from policyopt.parts import TokenMean
from policyopt.registry import get_method
from policyopt.rows import make_batch


@dataclass
class LossInputs:
    trainer_logprobs: Tensor
    inference_logprobs: Tensor
    ref_logprobs: Tensor | None
    advantages: Tensor
    loss_mask: Tensor
    loss_weights: Tensor | None = field(default=None)


@dataclass
class LossOutputs:
    loss: Tensor
    metrics: dict[str, Tensor]


@dataclass
class AdvantageInputs:
    """That of 0.4 and 0.5."""

    rewards: Tensor
    completion_lengths: Tensor


@dataclass
class AdvantageOutputs:
    advantages: Any


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "",
        ".trainer",
        ".trainer.rl",
        ".trainer.rl.loss",
        ".orchestrator",
        ".orchestrator.advantage",
        ".orchestrator.utils",
    )
    modules = {name: ModuleType(f"prime_rl{name}") for name in names}
    modules[".trainer.rl.loss"].LossOutputs = LossOutputs  # type: ignore[attr-defined]
    modules[".orchestrator.advantage"].AdvantageOutputs = AdvantageOutputs  # type: ignore[attr-defined]
    modules[".orchestrator.utils"].get_model_completion_len = lambda r: r["length"]  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"prime_rl{name}", module)


def sequences() -> list[LossInputs]:
    """Three of unlike length; the first tokens are the prompt."""
    g = torch.Generator().manual_seed(0)
    found = []
    for n, credit in ((9, 1.0), (6, -0.5), (7, 0.25)):
        old = -torch.rand(n, generator=g, dtype=torch.float64)
        new = (old + 0.3 * torch.randn(n, generator=g, dtype=torch.float64)).requires_grad_()
        mask = torch.arange(n) >= 3
        found.append(LossInputs(new, old, None, torch.full((n,), credit, dtype=torch.float64), mask))
    return found


@pytest.mark.parametrize(
    "asked",
    [{"recipe": "cispo"}, {"recipe": "gspo", "aggregate": "host", "low": 0.5, "high": 0.5}, {"recipe": "vespo"}],
)
def test_summed_over_sequences_and_divided_by_tokens_it_is_the_objective(asked: dict[str, Any]) -> None:
    rows = sequences()
    outputs = [prime_rl.loss(s, **asked) for s in rows]
    assert all(isinstance(x, Tensor) for out in outputs for x in out.metrics.values())
    tokens = sum(int(s.loss_mask.sum()) for s in rows)
    total = torch.stack([out.loss for out in outputs]).sum() / tokens
    mine = torch.autograd.grad(total, [s.trainer_logprobs for s in rows])

    def padded(name: str) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([getattr(s, name).double()[3:].detach() for s in rows], batch_first=True)

    logp = padded("trainer_logprobs").requires_grad_()
    batch = make_batch(
        mask=padded("loss_mask"), old_logp=padded("inference_logprobs"), advantage=padded("advantages")
    ).replace(logp=logp)
    hyper = {k: x for k, x in asked.items() if k not in ("recipe", "aggregate")}
    recipe = get_method(asked["recipe"])(**hyper).replace(aggregate=TokenMean())
    wanted = objective(recipe, batch)
    torch.testing.assert_close(total, wanted)
    (gradient,) = torch.autograd.grad(wanted, logp)
    for i, g in enumerate(mine):
        torch.testing.assert_close(g[3:], gradient[i, : len(g) - 3])
        assert not g[:3].any() and g[3:].abs().max() > 0


def test_the_weights_of_the_loop_weigh_tokens() -> None:
    whole = sequences()[0]
    half = LossInputs(**{**vars(whole), "loss_weights": torch.full((9,), 0.5, dtype=torch.float64)})
    torch.testing.assert_close(prime_rl.loss(half, recipe="cispo").loss, prime_rl.loss(whole, recipe="cispo").loss / 2)


REWARDS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
LENGTHS = torch.tensor([[3, 5, 2, 4], [1, 2, 3, 4]])


def test_advantages_of_both_forms_are_those_of_the_recipe() -> None:
    found = prime_rl.advantage(AdvantageInputs(REWARDS, LENGTHS), recipe="maxrl").advantages
    torch.testing.assert_close(
        found, (REWARDS - REWARDS.mean(1, keepdim=True)) / REWARDS.mean(1, keepdim=True), rtol=1e-4, atol=1e-4
    )
    group = [{"reward": float(r), "length": int(n)} for r, n in zip(REWARDS[1], LENGTHS[1], strict=True)]
    one = prime_rl.advantage(SimpleNamespace(rollouts=group), recipe="maxrl").advantages
    assert one == pytest.approx(found[1].tolist())


def test_a_response_without_a_reward_counts_nowhere() -> None:
    rewards = torch.tensor([[1.0, float("nan"), 0.0]])
    found = prime_rl.credits(rewards, torch.tensor([[2, 2, 2]]), "dr-grpo", "host")
    assert found.tolist() == [[0.5, 0.0, -0.5]]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"recipe": "gspo"}, r"gspo .* prime-rl 0.8: aggregate is SeqMeanTokenMean\(.*TokenMean"),
        ({"recipe": "grpo", "aggregate": "host"}, r"regularizers.KL: frozen models beside the policy"),
        ({"recipe": "bapo"}, r"couples the rows of a batch"),
        ({"recipe": "cispo", "hgih": 0.3}, r"cispo has no hyper-parameter 'hgih'; nearest: high"),
        ({"recipe": "cispo", "aggregate": "mean"}, r"aggregate is 'mean', expected 'recipe' or 'host'"),
        ({"recipe": "lite-ppo"}, r"depends on other groups of the batch"),
    ],
)
def test_what_a_sequence_alone_cannot_serve_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        prime_rl.loss(sequences()[0], **asked)
