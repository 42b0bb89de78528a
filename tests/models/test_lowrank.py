"""The product with a low-rank adapter: that of PEFT, in numbers, gradients and files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from policyopt.models.adapters import LoRA, merged
from policyopt.models.load import load_policy
from policyopt.models.lowrank import LowRankLinear, use_low_rank


class Two(nn.Module):
    """A layer with a bias and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.up(x).tanh())
        return found


def pair(dtype: torch.dtype = torch.float64, **settings: Any) -> tuple[Any, Any]:
    """The same model with the same adapters, which are no longer zero: as PEFT computes it, and as we do."""
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["up", "down"], **settings)
    theirs = get_peft_model(Two().to(dtype), config).eval()
    for name, p in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p)
    ours = copy.deepcopy(theirs)
    use_low_rank(ours)
    assert {type(m) for m in ours.modules() if isinstance(m, Linear)} == {LowRankLinear}
    return theirs, ours


def both(theirs: Any, ours: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    """Asserts that output and gradients agree, of the input too. Returns the output."""
    tolerance = 1e-10 if dtype == torch.float64 else 6e-2
    found = []
    for net in (theirs, ours):
        torch.manual_seed(1)
        x = torch.randn(2, 4, 6, dtype=torch.float64).to(dtype).requires_grad_()
        out = net(x)
        (out.double() * torch.arange(6)).sum().backward()
        grads = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
        found.append({"out": out.detach(), "x": x.grad, **grads})
    assert found[0].keys() == found[1].keys()
    for name, x in found[0].items():
        # A gradient in 16 bits is right up to its largest numbers.
        assert float((found[1][name] - x).abs().max()) <= tolerance * float(x.abs().max()), name
    return found[1]["out"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_is_what_peft_computes(dtype: torch.dtype) -> None:
    theirs, ours = pair(dtype)
    out = both(theirs, ours, dtype)
    assert out.dtype == dtype


def test_what_is_no_plain_adapter_is_left_to_peft() -> None:
    theirs, ours = pair()
    with theirs.disable_adapter(), ours.disable_adapter():
        x = torch.randn(3, 6, dtype=torch.float64)
        torch.testing.assert_close(ours(x), theirs(x))
        without = ours(x)
    assert not torch.allclose(ours(x), without)
    for net in (theirs, ours):
        net.merge_adapter()
    torch.testing.assert_close(ours(x), theirs(x))
    for net in (theirs, ours):
        net.unmerge_adapter()
        torch.manual_seed(2)
        net.add_adapter("second", LoraConfig(r=2, lora_alpha=1, target_modules=["up"], init_lora_weights=False))
        net.base_model.set_adapter(["default", "second"])
    both(theirs, ours)
    for net in (theirs, ours):
        net.set_adapter("second")  # "down" has none of that name
    both(theirs, ours)


@pytest.mark.filterwarnings("ignore:.lora_bias=True")  # merging is not what is tested
@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.5}])
def test_other_kinds_are_left_to_peft(settings: dict[str, Any]) -> None:
    theirs, ours = pair(**settings)
    both(theirs, ours)
    for net in (theirs, ours):
        net.train()
    both(theirs, ours)


def test_the_adapters_of_a_policy_are_computed_so(tiny_model: Path, tmp_path: Path) -> None:
    policy = load_policy(str(tiny_model), lora=LoRA(rank=2, save="alone"))
    fast = [m for m in policy.model.modules() if isinstance(m, LowRankLinear)]
    assert len(fast) == sum(isinstance(m, Linear) for m in policy.model.modules()) > 0
    for p in policy.model.parameters():
        if p.requires_grad:
            nn.init.normal_(p, std=0.1)
    policy.save(tmp_path / "adapters")
    again = load_policy(str(tmp_path / "adapters"))
    assert any(isinstance(m, LowRankLinear) for m in again.model.modules())
    ids = torch.arange(5)[None]
    with torch.no_grad():
        whole = policy.model(input_ids=ids).logits
        torch.testing.assert_close(again.model(input_ids=ids).logits, whole)
        torch.testing.assert_close(merged(policy.model)(input_ids=ids).logits, whole)
