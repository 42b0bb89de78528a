"""How far an engine on a server is from the local one with the same adapters, on the same batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from policyopt.engine.local import LocalEngine
from policyopt.engine.tinker.rows import rows_of
from policyopt.methods.clip.bapo import bapo
from policyopt.methods.contrast.disco import disco
from policyopt.methods.group.grpo import grpo
from policyopt.methods.ratio.gspo import gspo
from policyopt.methods.tree.treepo import treepo
from policyopt.models.load import load_policy
from policyopt.objective import credit
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from tests.batches import random_batch

RECIPES = (grpo(group_size=3, kl_coef=0.04), gspo(group_size=3), bapo(group_size=3), disco(group_size=3), treepo())
SMOOTH: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-3}
"""With so large an eps a step depends on the length of the gradient, and not on the sign of what is next to nothing."""


def logp(engine: Any, batch: Batch) -> torch.Tensor:
    """[N, T] what the policy of either engine thinks of a batch."""
    if isinstance(engine, LocalEngine):
        return engine._by_rows(batch, engine.likelihood.leaves)["logp"].detach()
    found: torch.Tensor = engine._logp(batch, list(rows_of(batch)))
    return found


def drawn(engine: Any, recipe: Recipe, gaps: bool = False) -> Batch:
    """A batch as a run would have it, whose tokens are any and whose policy has moved a little since it was drawn."""
    batch = random_batch(groups=(3, 3), dtype=torch.float32)
    if gaps:  # the second token of every response is somebody else's
        batch = batch.replace(present=batch.mask, mask=batch.mask * (torch.arange(batch.mask.shape[1]) != 1))
    batch = batch.replace(version=torch.zeros_like(batch.version), share=None, support=None, support_ids=None)
    asked = torch.randint(6, 102, batch.prompt.shape, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(6, 102, batch.tokens.shape, generator=torch.Generator().manual_seed(2))
    batch = batch.replace(prompt=asked, tokens=tokens)
    old = logp(engine, batch)
    drift = 3e-4 if recipe.name == "gspo" else 0.05  # what gspo clips at, and what others do not
    batch = batch.replace(old_logp=(old + drift * torch.sin(7 * old)) * batch.mask)
    return credit(recipe, engine.prepare(engine.annotate(batch, recipe), recipe))


def apart(
    far: Any,
    recipe: Recipe,
    folder: Path,
    steps: int = 2,
    gaps: bool = False,
    local: type[LocalEngine] = LocalEngine,
    **settings: Any,
) -> dict[str, float]:
    """The largest relative distances over some updates: of token weights, losses, norms of gradients; then of the adapters, over
    the learning rate."""
    far.save(folder / "start")
    near = local(load_policy(str(folder / "start"), device="cpu"), recipe, **settings)
    found = dict.fromkeys(("weight", "loss", "grad_norm"), 0.0)
    for _ in range(steps):
        mine, theirs = near.update(recipe, drawn(near, recipe, gaps)), far.update(recipe, drawn(far, recipe, gaps))
        assert mine.applied and theirs.applied
        scale = float(mine.weight.abs().max())
        assert scale > 0
        now = {
            "weight": float((theirs.weight - mine.weight).abs().max()) / scale,
            "loss": abs(theirs.loss - mine.loss) / scale,
            "grad_norm": abs(theirs.grad_norm - mine.grad_norm) / mine.grad_norm,
        }
        found = {name: max(x, now[name]) for name, x in found.items()}
    far.save(folder / "end")
    moved = load_file(folder / "end" / "adapter_model.safetensors")
    wanted = {n.replace(".default", ""): p.detach() for n, p in near.policy.trainable()}
    assert moved.keys() == wanted.keys()
    gap = max(float((moved[n].float() - wanted[n]).abs().max()) for n in wanted)
    return found | {"adapters": gap / settings["lr"]}
