"""Prints as JSON how far the engine on SkyRL's server is from the local one, by method: ``agree.py URL MODEL FOLDER``.

A program of its own, so that it can run with the SDK that this server speaks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from policyopt.engine import Model, Models, open_engine
from policyopt.engine.settings import Server
from policyopt.models.adapters import LoRA
from tests.engine.tinker.agreement import RECIPES, SMOOTH, apart

NOT_CLIPPED = SMOOTH | {"clip_norm": 1e9}
"""This server does not clip."""


def main(url: str, model: str, folder: str) -> None:
    found = {}
    for recipe in RECIPES:
        models = Models(Model(model, {"lora": LoRA(rank=8)}))
        engine = open_engine("tinker", models, recipe, {"tinker": Server(base_url=url)}, **NOT_CLIPPED)
        try:
            found[recipe.name] = apart(engine, recipe, Path(folder) / recipe.name, **NOT_CLIPPED)
        finally:
            engine.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
