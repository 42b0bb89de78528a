"""Prints as JSON how far the engine on SkyRL's server is from the local one, by method: ``agree.py URL MODEL FOLDER``.

A program of its own, so that it can run with the SDK that this server speaks.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch

from policyopt.engine import Model, Models, open_engine
from policyopt.engine.local import LocalEngine
from policyopt.engine.plan import UpdateReport
from policyopt.engine.settings import Server
from policyopt.models.adapters import LoRA
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from tests.engine.tinker.agreement import RECIPES, SMOOTH, apart

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Projections that this server computes as one: they share the first matrix of their adapters."""


class Fused(LocalEngine):
    """The local engine with adapters that are shared as this server shares them: each copy gets the gradient of all."""

    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        report = super().update(recipe, batch)
        report.grad_norm = math.sqrt(report.grad_norm**2 - self.counted_twice)
        return report

    def gradient(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        report = super().gradient(recipe, batch)
        trained, self.counted_twice = dict(self.policy.trainable()), 0.0
        for first, *others in FUSED:
            for name in [n for n in trained if f".{first}.lora_A." in n]:
                copies = [trained[name], *(trained[name.replace(first, other)] for other in others)]
                whole = torch.stack([p.grad for p in copies if p.grad is not None]).sum(0)
                for p in copies:
                    p.grad = whole.clone()
                self.counted_twice += len(others) * float((whole**2).sum())
        return report


NOT_CLIPPED = SMOOTH | {"clip_norm": 1e9}
"""This server does not clip."""


def main(url: str, model: str, folder: str) -> None:
    found = {}
    for recipe in RECIPES:
        models = Models(Model(model, {"lora": LoRA(rank=8)}))
        engine = open_engine("tinker", models, recipe, {"tinker": Server(base_url=url)}, **NOT_CLIPPED)
        try:
            found[recipe.name] = apart(engine, recipe, Path(folder) / recipe.name, local=Fused, **NOT_CLIPPED)
        finally:
            engine.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
