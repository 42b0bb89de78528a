"""What moves the parameters: steps, what is kept of them, and what is refused."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policyopt.engine.local import LocalEngine
from policyopt.engine.local.optimizers import Measured, hidden_matrices, make_optimizer
from policyopt.engine.local.weights import Weights
from policyopt.errors import UserError
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.models.adapters import LoRA
from policyopt.rows import Batch
from tests.tiny import load_tiny, token_batch

NAMES = [
    "adamw",
    "lion",
    "muon",
    pytest.param("adamw-8bit", marks=pytest.mark.skipif(not find_spec("bitsandbytes"), reason="needs [8bit]")),
]
SETTINGS: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def engine_of(folder: Path, name: Any, dtype: str = "float32", **options: Any) -> LocalEngine:
    return LocalEngine(load_tiny(folder, dtype), ppo(kl_coef=0.0), optimizer=name, lr=1e-2, **options)


def learnt() -> Batch:
    batch = token_batch()
    columns = {n: x.float() for n, x in batch.columns().items() if x.is_floating_point()}
    batch = batch.replace(**columns)
    return batch.replace(advantage=batch.noise, returns=batch.noise, old_value=batch.noise, old_logp=-batch.noise)


def updated(engine: LocalEngine, times: int) -> dict[str, Tensor]:
    for _ in range(times):
        assert engine.update(ppo(kl_coef=0.0), learnt()).applied
    return {name: x.detach().clone() for name, x in engine.tensors().items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_to_the_bit(name: str, dtype: str, tiny_model: Path, tmp_path: Path) -> None:
    whole = engine_of(tiny_model, name, dtype, weight_decay=0.1)
    updated(whole, 2)
    whole.write(tmp_path)
    resumed = engine_of(tiny_model, name, dtype, weight_decay=0.1)
    resumed.read(tmp_path, whole.version)
    expected, found = updated(whole, 2), updated(resumed, 2)
    assert expected.keys() == found.keys() and {n.split("/")[0].split(".")[0] for n in found} == {"policy", "critic"}
    for key, x in expected.items():
        assert torch.equal(x, found[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_takes_what_is_said_of_it(name: str, tiny_model: Path) -> None:
    """No more than the size of a checkpoint, from which the room on the disk is judged, and for AdamW and Lion just that."""
    engine = engine_of(tiny_model, name)
    tensors = updated(engine, 1)
    took = sum(x.numel() * x.element_size() for n, x in tensors.items() if ".step/" not in n)
    said = engine.weights.saved_bytes()
    if name == "adamw-8bit":  # the tensors of the tiny model are too small to be worth it
        return
    assert took == said if name in ("adamw", "lion") else took < said


@pytest.mark.parametrize("name", NAMES)
def test_the_size_of_an_update_is_how_far_it_went(name: str, tiny_model: Path) -> None:
    engine = engine_of(tiny_model, name)
    assert engine.update_size() == 0.0
    for _ in range(2):
        before = [p.detach().clone() for _, p in engine.policy.trainable()]
        updated(engine, 1)
        after = [p.detach() for _, p in engine.policy.trainable()]
        moved = math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(after, before, strict=True)))
        assert engine.update_size() == pytest.approx(
            moved / math.sqrt(sum(float((a**2).sum()) for a in after)), rel=1e-3
        )


@pytest.mark.parametrize(
    ("wrote", "reads"), [("adamw", "lion"), ("lion", "adamw"), ("muon", "adamw"), ("adamw", "muon")]
)
def test_what_another_optimiser_kept_is_refused(wrote: str, reads: str, tiny_model: Path, tmp_path: Path) -> None:
    engine = engine_of(tiny_model, wrote)
    updated(engine, 1)
    engine.write(tmp_path)
    other = engine_of(tiny_model, reads)
    with pytest.raises(
        KeyError,
        match=rf"(?i)the optimiser that wrote it kept .*, where {reads} keeps .*: go on with the --optim.name of then",
    ):
        other.read(tmp_path, 1)


@pytest.mark.parametrize("name", ["lion", "muon"])
def test_a_gradient_of_zero_moves_nothing(name: Any) -> None:
    """Momentum and decay would move every weight as far as any gradient does."""
    torch.manual_seed(0)
    parameters = {"policy": {"m": nn.Parameter(torch.randn(4, 3)), "v": nn.Parameter(torch.randn(5))}}
    weights = Weights(parameters, {"policy": 0.1}, optimizer=name, matrices={"policy": {"m"}}, **SETTINGS)

    def step(scale: float) -> float:
        before = {n: p.detach().clone() for n, p in parameters["policy"].items()}
        for p in parameters["policy"].values():
            p.grad = scale * torch.ones_like(p)
        assert weights.step(1.0)[1]
        return max(float((p.detach() - before[n]).abs().max()) for n, p in parameters["policy"].items())

    assert step(1.0) > 0.01
    kept = {n: x.clone() for n, x in weights.tensors().items()}
    assert step(0.0) == 0.0 and weights.update_size() == 0.0
    assert all(torch.equal(x, kept[n]) for n, x in weights.tensors().items())
    assert step(1e-20) > 0.01, "a small one is a step like any other"


def test_muon_moves_the_matrices_of_the_layers_and_adamw_the_rest(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, "float32")
    matrices = hidden_matrices(policy.model)
    assert {n.split(".")[-2] for n in matrices} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    mine, theirs = ({n: nn.Parameter(p.detach().clone()) for n, p in policy.trainable()} for _ in range(2))
    optimizer = make_optimizer("muon", mine, matrices, lr=1e-2, **SETTINGS)
    muon = torch.optim.Muon(
        [p for n, p in theirs.items() if n in matrices], lr=5e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW([p for n, p in theirs.items() if n not in matrices], lr=5e-3, **SETTINGS)
    for group in optimizer.param_groups:
        group["lr"] = 5e-3
    for seed in range(3):
        torch.manual_seed(seed)
        for p, q in zip(mine.values(), theirs.values(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for one in (optimizer, muon, adamw):
            one.step()
    for name, p in mine.items():
        torch.testing.assert_close(p, theirs[name], rtol=0, atol=1e-7, msg=name)


def test_muon_wants_whole_matrices(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, "float32", lora=LoRA(rank=2))
    with pytest.raises(
        UserError, match=r"--optim.name muon: .*with --lora their factors are\): take --optim.name adamw"
    ):
        LocalEngine(policy, grpo(kl_coef=0.0), optimizer="muon")


def test_eight_bits_are_near_adamw() -> None:
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    start = torch.randn(64, 128)
    short, long = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = make_optimizer("adamw-8bit", {"m": short}, lr=1e-2, **SETTINGS)
    theirs = make_optimizer("adamw", {"m": long}, lr=1e-2, **SETTINGS)
    for _ in range(5):
        short.grad = torch.randn_like(start)
        long.grad = short.grad.clone()
        mine.step()
        theirs.step()
    assert isinstance(mine, Measured) and mine.state[short]["state1"].dtype == torch.uint8
    assert float((short - long).detach().norm() / (long - start).detach().norm()) < 0.05


def test_eight_bits_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim.adamw", None)
    with pytest.raises(UserError, match=r"--optim.name adamw-8bit: it needs .*'policyopt\[8bit\]'"):
        make_optimizer("adamw-8bit", {"m": nn.Parameter(torch.zeros(2))}, lr=1.0, **SETTINGS)
