"""The formulas of docs/scaling.md against models, files and engines; ``benchmarks/scaling_check.py`` has all of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.engine.local import LocalEngine
from policyopt.methods.group.grpo import grpo
from policyopt.models.adapters import LoRA
from tests.tiny import EXPERTS, load_tiny, save_tiny_moe, tiny_moe

FOLDER = Path(__file__).parents[1] / "benchmarks"
DOCS = FOLDER.parent / "docs" / "scaling.md"


@pytest.fixture(scope="module")
def scaling() -> Any:
    found = importlib.util.spec_from_file_location("scaling", FOLDER / "scaling.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["scaling"] = module
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shapes(scaling: Any) -> dict[str, Any]:
    e = EXPERTS
    heads = (e["num_attention_heads"], e["num_key_value_heads"], e["head_dim"])
    sparse = {"sparse": 3, "experts": e["num_experts"], "top_k": 2, "expert_inner": e["moe_intermediate_size"]}
    return {
        "dense": scaling.Shape("tiny", 2, 32, 2, 1, 16, 64, 102, tied=True, qk_norm=True),
        "moe": scaling.Shape("moe", 3, e["hidden_size"], *heads, 0, 102, tied=True, qk_norm=True, **sparse),
    }


def test_parameters_are_those_of_published_models(scaling: Any) -> None:
    """The index of a published checkpoint in 16 bits states twice as many bytes."""
    assert scaling.parameters(scaling.QWEN_7B) == 15_231_233_024 // 2
    assert scaling.parameters(scaling.LLAMA_70B) == 141_107_412_992 // 2
    assert (
        16e9 < scaling.parameters(scaling.MAVERICK, active=True) < 18e9 < 400e9 < scaling.parameters(scaling.MAVERICK)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_an_engine_holds(
    dtype: Any, scaling: Any, shapes: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    for name, folder in (("dense", tiny_model), ("moe", save_tiny_moe(tmp_path / "moe"))):
        policy = load_tiny(folder, dtype)
        engine = LocalEngine(policy, grpo().replace(regularizers=()))
        p = sum(x.numel() for _, x in policy.trainable())
        shape = shapes[name]
        shape = scaling.Shape(**{**vars(shape), "vocab": policy.model.config.vocab_size})
        assert scaling.parameters(shape) == p
        own = sum(x.numel() * x.element_size() for _, x in policy.trainable())
        copies = engine.weights.bytes() if dtype == "bfloat16" else 0
        assert scaling.trainer(p, dtype == "bfloat16").held == own + copies + 2 * engine.weights.bytes()
        assert scaling.checkpoint(p) == engine.size().checkpoint
    lora = load_tiny(tiny_model, dtype, lora=LoRA(rank=3))
    found = sum(x.numel() for _, x in lora.trainable())
    assert scaling.adapter_parameters(shapes["dense"], 3) == found


def test_the_cache_and_the_record_of_a_token(scaling: Any, shapes: dict[str, Any]) -> None:
    from transformers import DynamicCache

    model = tiny_moe()
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.ones(1, 10, dtype=torch.long), past_key_values=cache, use_cache=True)
    found = sum(x.numel() for layer in cache.layers for x in (layer.keys, layer.values))
    assert 10 * scaling.kv(shapes["moe"], size=1) == found
    assert scaling.routes(shapes["moe"]) == 3 * 2


def test_the_tables_of_the_page_are_those_of_the_command(scaling: Any) -> None:
    page = DOCS.read_text()
    assert scaling.memory(64, 16_384) in page
    assert scaling.wires(64, 1024, 4096, 512, 16_384) in page
    for name in ("routing", "scaling"):
        rows = [x for x in (FOLDER / "results" / f"{name}.md").read_text().splitlines() if x.startswith("| ")]
        assert [x for x in rows if x not in page] == []
