"""The same work on one process and on two ranks: what the processes of a pair carry out, and what it comes to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policyopt.engine.local import LocalEngine
from policyopt.engine.sharded.shard import whole
from policyopt.engine.sharded.share import ShareEngine, Through
from policyopt.engine.shards import placed
from policyopt.models.load import LoRA
from policyopt.recipe import Recipe
from policyopt.registry import get_method
from policyopt.rows import Batch
from tests.batches import with_all_terms
from tests.engine.test_local import Gradient, difference, drawn, engine_of, grads, groups_of
from tests.tiny import load_tiny


def teacher(folder: Path, dtype: str) -> Any:
    """The one that :func:`tests.engine.test_local.engine_of` makes."""
    torch.manual_seed(3)
    found = load_tiny(folder, dtype)
    with torch.no_grad():
        for p in found.model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return found


def share_of(
    local: LocalEngine, folder: Path, recipe: Recipe, dtype: str = "float64", *, packs: bool = False,
    lora: LoRA | None = None, **options: Any,
) -> ShareEngine:  # fmt: skip
    """The engine of this rank, with the weights of a local one."""
    engine = ShareEngine(load_tiny(folder, dtype, lora=lora), recipe, {"teacher": teacher(folder, dtype)}, **options)
    through = engine.likelihood
    assert isinstance(through, Through)
    if not packs:
        engine.likelihood = Through(through.root, dataclasses.replace(through.likelihood, packs=0))
        if engine.critic is not None:
            engine.critic._call.packs = 0
    engine.load_tensors(placed(local.tensors(), engine.tensors()), local.version)
    return engine


def full(x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that are spread, whole."""
    return {name: whole(t.detach()).clone() for name, t in x.items()}


def far(a: Gradient, b: Gradient) -> float:
    """Largest difference over the largest entry, by what stands before the slash, the worst."""
    worst = 0.0
    assert a.keys() == b.keys()
    for kind in {name.split("/")[0] for name in a}:
        names = [name for name in a if name.split("/")[0] == kind]
        scale = max(float(b[n].abs().max()) for n in names) or 1.0
        worst = max(worst, max(float((a[n] - b[n]).abs().max()) for n in names) / scale)
    return worst


def columns_apart(a: Batch, b: Batch) -> float:
    """Largest difference of the floating columns."""
    mine, theirs = a.columns(), b.columns()
    assert mine.keys() == theirs.keys()
    return max(float((x - theirs[n]).nan_to_num().abs().max()) for n, x in mine.items() if x.is_floating_point())


def compared(
    recipe: Recipe, folder: Path, dtype: str, micro: int | None, groups: tuple[int, ...], options: dict[str, Any]
) -> dict[str, float]:
    """How far a gradient, its report, the columns of a batch and the state after a step are from those of one process."""
    both = {name: options[name] for name in ("lora", "optimizer", "lr") if name in options}
    local = engine_of(folder, recipe, dtype, **both)
    local.weights.publish()  # it has moved the copies that the optimiser has
    local.micro_batch = micro
    if options.get("packs"):
        local.likelihood = local._stepwise
        if local.critic is not None:
            local.critic.packs = local._stepwise.packs
    rows = options.pop("rows", None)
    share = share_of(local, folder, recipe, dtype, micro_batch=micro, **options)
    batch = drawn(local, recipe, groups=groups)
    again = share.prepare(share.annotate(batch, recipe), recipe)
    found = {"columns": columns_apart(again, local.prepare(local.annotate(batch, recipe), recipe))}
    batch = batch[:rows]
    theirs, mine = local.gradient(recipe, batch), share.gradient(recipe, batch)
    found["gradient"] = difference(full(grads(share)), grads(local))
    scale = float(theirs.weight.abs().max()) or 1.0  # some learn from statistics alone
    found["weight"] = float((mine.weight - theirs.weight).abs().max()) / scale
    assert mine.sums.keys() == theirs.sums.keys()
    found["sums"] = max(abs(mine.sums[k] - x) / max(1.0, abs(x)) for k, x in theirs.sums.items())
    found["loss"] = abs(mine.loss - theirs.loss)
    theirs, mine = local.update(recipe, batch), share.update(recipe, batch)
    assert mine.applied and theirs.applied
    found["norm"] = abs(mine.grad_norm - theirs.grad_norm) / theirs.grad_norm
    found["state"] = far(full(share.tensors()), local.tensors())
    found["step"] = abs(share.update_size() - local.update_size())
    return found


def method_compared(name: str, folder: Path, micro: int | None = 2) -> dict[str, float]:
    """The same for a method of the library, in float64."""
    method = get_method(name)
    return compared(with_all_terms(method), folder, "float64", micro, groups_of(method, (4, 3)), {})
