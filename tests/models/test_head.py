"""Log-probabilities and entropies of a linear head: exact, in one buffer, with no product of matrices too many."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from policyopt.models import head
from policyopt.models.causal import split_model
from policyopt.models.head import NEVER, linear_head, linear_logp, reachable
from policyopt.models.likelihood import LOGP, Leaves, Wanted, Weigh
from policyopt.part import Unit
from policyopt.rows import Batch
from tests.tiny import load_tiny, token_batch

TOKENS, VOCAB, WIDTH = 13, 57, 5


def chunks_of(tokens: int, vocab: int = VOCAB) -> Any:
    """With room for the logits of so many tokens at once."""
    return mock.patch.object(head, "CHUNK_BYTES", tokens * 4 * vocab)


def plain(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, heat: Tensor, support: Any
) -> tuple[Tensor, Tensor]:
    """The same by softmax and autograd, on all logits at once."""
    logits = nn.functional.linear(hidden, weight, bias) / heat[:, None]
    if support is not None:
        logits = torch.where(reachable(*support, VOCAB), logits, NEVER)
    logp = logits.log_softmax(-1)
    return logp.gather(-1, target[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def drawn(bias: bool = True, frozen: bool = False, dtype: torch.dtype = torch.float64) -> list[Any]:
    """Hidden states, weight, bias, targets, temperatures."""
    g = torch.Generator().manual_seed(0)
    hidden, weight, b = (torch.randn(*n, generator=g).to(dtype) for n in ((TOKENS, WIDTH), (VOCAB, WIDTH), (VOCAB,)))
    target = torch.randint(VOCAB, (TOKENS,), generator=g)
    heat = 0.5 + torch.rand(TOKENS, generator=g).to(dtype)
    for x in (hidden, *(() if frozen else (weight, b))):
        x.requires_grad_()
    return [hidden, weight, b if bias else None, target, heat]


def sets(target: Tensor) -> tuple[Tensor, Tensor]:
    """What each token was drawn from: itself and up to three others, or everything."""
    count = torch.arange(len(target)) % 5
    ids = [torch.cat([y[None], (y + torch.arange(1, 9)) % VOCAB])[:n] for y, n in zip(target, count.tolist())]
    return count, torch.cat(ids)


@pytest.mark.parametrize("tokens", [1, 4, 99])
@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize(("bias", "frozen", "into"), [(0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1), (1, 1, 0), (0, 1, 0)])
def test_values_and_gradients_are_those_of_softmax(
    bias: bool, frozen: bool, into: bool, entropy: bool, restricted: bool, tokens: int
) -> None:
    inputs = drawn(bias, frozen)
    learning = [x for x in inputs[:3] if x is not None and x.requires_grad]
    support = sets(inputs[3]) if restricted else None
    weights = torch.randn(2, TOKENS, generator=torch.Generator().manual_seed(1)).double()

    def total(logp: Tensor, found: Tensor | None) -> Tensor:
        return (logp * weights[0]).sum() + ((found * weights[1]).sum() if entropy and found is not None else 0)

    right = plain(*inputs, support)
    places = (torch.ones_like(inputs[1]), torch.ones_like(inputs[2]) if bias else None) if into else None
    with chunks_of(tokens):
        ours = linear_logp(*inputs, entropy, support=support, into=places)
        for a, b in zip(ours, right if entropy else right[:1]):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        wanted = torch.autograd.grad(total(*right), learning)
        if places is None:
            found = torch.autograd.grad(total(*ours), learning, retain_graph=True)
            again = torch.autograd.grad(total(*ours), learning)
            assert all(map(torch.equal, found, again)), "a second way back finds what the first one wrote over"
        else:
            total(*ours).backward()
            assert inputs[1].grad is None, "what is added to a place is not handed on as well"
            found = (inputs[0].grad, *(x - 1 for x in places if x is not None))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_a_token_that_is_all_but_certain_keeps_its_gradient_and_an_impossible_one_its_logarithm() -> None:
    weight, hidden = torch.zeros(4, 1), torch.tensor([[9.0], [300.0]])
    weight[2] = 1.0
    target, heat = torch.tensor([2, 0]), torch.ones(2)
    hidden.requires_grad_()
    logp, _ = linear_logp(hidden, weight, None, target, heat)
    torch.testing.assert_close(logp.detach().double(), torch.tensor([-3.702e-4, -300.0]).double(), rtol=1e-3, atol=0)
    logp.sum().backward()
    exact = torch.autograd.grad(plain_logp(hidden.double(), weight.double(), target).sum(), hidden)[0]
    torch.testing.assert_close(hidden.grad, exact, rtol=1e-3, atol=0)


def plain_logp(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return (hidden @ weight.t()).log_softmax(-1).gather(-1, target[:, None])[:, 0]


def test_sixteen_bits_are_multiplied_and_the_rest_is_done_in_thirty_two() -> None:
    inputs = drawn(dtype=torch.bfloat16)
    logp, entropy = linear_logp(*inputs, True)
    assert logp.dtype == torch.float32 and entropy is not None and entropy.dtype == torch.float32
    logits = nn.functional.linear(*inputs[:3]).float() / inputs[4].float()[:, None]
    right = logits.log_softmax(-1).gather(-1, inputs[3][:, None])[:, 0]
    torch.testing.assert_close(logp, right, rtol=0, atol=1e-5)
    found, wanted = (torch.autograd.grad(x.sum(), inputs[:3]) for x in (logp, right))
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.bfloat16
        assert float((a - b).float().norm()) < 0.02 * float(b.float().norm())


def test_only_a_plain_matrix_is_taken_for_one() -> None:
    class Capped(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).tanh()

    layer = nn.Linear(3, 4)
    assert linear_head(layer) is layer
    assert linear_head(Capped(3, 4)) is None
    assert linear_head(lambda x: x) is None
    hook = layer.register_forward_hook(lambda module, inputs, out: out.tanh())
    assert linear_head(layer) is None
    hook.remove()
    layer.forward = lambda x: x  # type: ignore[method-assign]
    assert linear_head(layer) is None


# Stages ---------------------------------------------------------------------------------------------------------------


class Watched(TorchDispatchMode):
    """Counts the products with a matrix of as many rows as there are tokens to choose from, and the tensors made that are as
    large as a chunk of logits or larger."""

    def __init__(self, vocab: int, tokens: int) -> None:
        super().__init__()
        self.vocab, self.large = vocab, vocab * tokens
        self.products, self.made = 0, list[tuple[int, ...]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self.products += any(self.vocab in x.shape for x in given)
        known = {x.untyped_storage().data_ptr() for x in given}
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.numel() >= self.large and x.untyped_storage().data_ptr() not in known:
                self.made.append(tuple(x.shape))
        return out


def learned(
    model: nn.Module, split: Any, batch: Batch, weights: Tensor, unit: Unit, wanted: Wanted = LOGP
) -> list[Tensor]:
    """The gradient of a weighted sum of leaves, in stages of such units."""
    seen = torch.zeros_like(batch.mask)

    def weigh(leaves: Leaves, rows: Tensor | None = None, within: Tensor | None = None) -> Mapping[str, Tensor]:
        assert rows is not None and within is not None
        assert unit == "token" or torch.equal(within, batch.mask[rows].bool()), "rows are weighed whole"
        assert unit != "batch" or len(rows) == len(batch.mask)
        seen[rows] += within
        return {name: weights[rows] * (1 + i) for i, name in enumerate(leaves)}

    model.zero_grad()
    end, gradient = split.weighed(batch, Weigh(weigh, unit), wanted)
    end.backward(gradient)
    assert torch.equal(seen, batch.mask), "each token is weighed once"
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize("unit", ["token", "row", "batch"])
@pytest.mark.parametrize("tokens", [1, 7, 12, 99])
def test_stages_change_no_gradient(tokens: int, unit: Unit, matrix: bool, entropy: bool, tiny_model: Path) -> None:
    model = load_tiny(tiny_model).model
    split, batch, wanted = split_model(model), token_batch(), Wanted(entropy=entropy)
    if not matrix:
        split = dataclasses.replace(split, logits=lambda hidden: model.lm_head(hidden))
    weights = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(0)).double()
    found = split.leaves(batch, wanted)
    total = sum((x * weights * (1 + i)).sum() for i, x in enumerate(found.values()))
    right = torch.autograd.grad(total, list(model.parameters()))
    with chunks_of(tokens, split.vocab):
        for a, b in zip(learned(model, split, batch, weights, unit, wanted), right, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


ROWS = 6


@pytest.mark.parametrize(
    ("unit", "frozen", "length", "products"),
    [("row", False, 8, 3), ("row", True, 8, 2), ("row", False, 24, 4), ("row", True, 24, 2), ("token", False, 24, 3),
     ("token", True, 24, 2), ("batch", False, 8, 4), ("batch", True, 8, 2)],
)  # fmt: skip
def test_no_product_with_the_head_is_made_twice_that_need_not_be(
    unit: Unit, frozen: bool, length: int, products: int, tiny_model: Path
) -> None:
    model = load_tiny(tiny_model).model
    split = split_model(model)
    model.lm_head.weight.requires_grad_(not frozen)
    batch = token_batch(groups=(ROWS,), width=length)
    batch = batch.replace(mask=torch.ones_like(batch.mask))
    size, weights = 12, torch.ones_like(batch.mask)
    with chunks_of(size, split.vocab), Watched(split.vocab, 8) as watched:
        learned(model, split, batch, weights, unit)
    chunks = ROWS * -(-length // size) if unit == "row" else ROWS * length // size
    assert watched.products == products * chunks
    wide = [shape for shape in watched.made if shape[-1] == split.vocab]
    stages = {"token": chunks, "row": ROWS, "batch": 1}[unit]
    assert len(wide) == stages * (1 + (products == 4)), "one buffer for a stage, or one on each way, written over"
