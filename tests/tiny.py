"""A tiny model with a real architecture, batches of its tokens, and short runs that train it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from policyopt.models.embedded import random_tiny
from policyopt.models.load import Policy, load_policy
from policyopt.part import Statistic
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from policyopt.schema import member

ENDS = (2, *range(90, 102))
"""Thirteen ids end a response, so that an untrained model writes responses of unequal length."""


def save_tiny_model(folder: Path, seed: int = 0, scale: float = 3.0) -> Path:
    """A Qwen3 of 22 thousand parameters; scaled weights make its distributions uneven, as those of a trained model are."""
    model, tokenizer = random_tiny(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(scale)
    model.generation_config.eos_token_id = list(ENDS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


EXPERTS: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "intermediate_size": 32, "moe_intermediate_size": 16, "max_position_embeddings": 256, "num_experts": 8,
    "num_experts_per_tok": 2, "norm_topk_prob": True, "tie_word_embeddings": True, "decoder_sparse_step": 1,
}  # fmt: skip
"""Sizes of a small mixture of experts."""


def tiny_moe(family: str = "qwen3_moe", vocab: int = 102, seed: int = 0, **changes: Any) -> Any:
    """An untrained mixture of experts of a family of transformers, with weights that make its distributions uneven."""
    sizes = {"vocab_size": vocab, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **EXPERTS | sizes | changes)).eval()
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(std=6 / p.shape[-1])
    return model


def save_tiny_moe(folder: Path, **changes: Any) -> Path:
    """A Qwen3-MoE of 50 thousand parameters with the tokenizer of the other tiny model."""
    _, tokenizer = random_tiny()
    model = tiny_moe("qwen3_moe", len(tokenizer), **changes)
    model.generation_config.eos_token_id = list(ENDS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_tiny(folder: Path, dtype: Any = "float64", **options: Any) -> Policy:
    return load_policy(str(folder), dtype=dtype, device="cpu", **options)


def token_batch(groups: tuple[int, ...] = (4, 3), width: int = 9, seed: int = 0) -> Batch:
    """Random prompts and responses of unequal lengths in float64, with what the judge and the sampler would have said."""
    g = torch.Generator().manual_seed(seed)
    n = sum(groups)
    group = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(groups))
    length = torch.randint(1, width + 1, (n,), generator=g)
    length[:2] = torch.tensor([1, width])
    asked = torch.randint(2, 7, (len(groups),), generator=g)[group]
    mask = (torch.arange(width) < length[:, None]).double()
    correct = torch.cat([torch.arange(k) % 2 for k in groups]).double()
    return make_batch(
        mask=mask,
        tokens=torch.randint(6, 102, (n, width), generator=g) * mask.long(),
        prompt=torch.randint(6, 102, (len(groups), 7), generator=g)[group],
        prompt_mask=(torch.arange(7) < asked[:, None]).double(),
        group=group,
        truncated=(length == width).double(),
        budget=torch.full((n,), width),
        version=torch.zeros(n, dtype=torch.long),
        reward=correct + 0.3 * torch.randn(n, generator=g, dtype=torch.float64),
        correct=correct,
        chosen=correct,
        score=torch.randn(n, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64),
        baseline_reward=torch.randn(n, generator=g, dtype=torch.float64),
        formatted=correct,
        pass_rate=group.double() / 2,
        sampled_entropy=1 + torch.rand(n, width, generator=g, dtype=torch.float64),
        noise=torch.rand(n, width, generator=g, dtype=torch.float64),
        turn_end=torch.stack([length // 2 - 1, length - 1], 1),
        turn_reward=torch.randn(n, 2, generator=torch.Generator().manual_seed(seed + 2), dtype=torch.float64),
        turn_state=torch.stack([0 * group, 1 + torch.arange(n) % 2], 1),
        turn_duration=1 + torch.arange(2 * n, dtype=torch.float64).reshape(n, 2) % 3,
        episode=torch.arange(n) // 2,
    )


def with_contexts(batch: Batch, recipe: Recipe) -> Batch:
    """The batch with a context for each second look of a recipe: the prompt without its last token, behind another one."""
    first = batch.prompt[:, :1] + 1
    short = torch.where(batch.prompt_mask > 0, batch.prompt, -1)[:, :-1]
    return batch.replace(**{member("context", look.key): torch.cat([first, short], 1) for look in recipe.looks})


def rows_of(batch: Batch) -> Iterator[tuple[Tensor, int, int]]:
    """Each row as ids [L], with the lengths of its prompt and of its response."""
    for i in range(len(batch.mask)):
        p, t = int(batch.prompt_mask[i].sum()), int(batch.mask[i].sum())
        yield torch.cat([batch.prompt[i, :p], batch.tokens[i, :t]]), p, t


def plain_columns(
    model: Any, batch: Batch, temperature: float = 1.0, statistics: tuple[Statistic, ...] = (),
    roles: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Log-probabilities, entropies and statistics [N, T] the plain way: every row by itself through the whole model, and
    through the models of other roles."""
    rows: dict[str, list[Tensor]] = {name: [] for name in ("logp", "entropy", *(s.key for s in statistics))}
    for i, (ids, p, t) in enumerate(rows_of(batch)):
        heat = temperature if batch.temperature is None else batch.temperature[i]

        def logits(model: Any, ids: Tensor = ids, p: int = p, heat: Any = heat) -> Tensor:
            return model(input_ids=ids[None], use_cache=False).logits[0, p - 1 : -1] / heat

        mine = logits(model)
        drawn_from = torch.distributions.Categorical(logits=mine)
        found = {"logp": drawn_from.log_prob(ids[p:]), "entropy": drawn_from.entropy()}
        with torch.no_grad():
            others = {name: logits(other) for name, other in (roles or {}).items()}
        found |= {s.key: s(mine, ids[p:], others) for s in statistics}
        for name, x in found.items():
            rows[name].append(torch.nn.functional.pad(x, (0, batch.mask.shape[1] - t)))
    return {name: torch.stack(x) for name, x in rows.items()}


SIZES: dict[str, Any] = {
    "vocab_size": 41, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_GROUPED = SIZES | {"num_key_value_heads": 1, "head_dim": 16}
_GEMMA = _GROUPED | {"sliding_window": 6, "query_pre_attn_scalar": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": _GROUPED,
    "llama": SIZES,
    "gpt2": SIZES,
    "gemma2": _GEMMA | {"final_logit_softcapping": 0.5, "attn_logit_softcapping": 2.0},
    "gemma3_text": _GEMMA | {"layer_types": ["sliding_attention", "full_attention"]},
    "opt": SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 16, "dropout": 0.0},
    "mistral": _GROUPED | {"sliding_window": 6},
    "bloom": SIZES | {"n_head": 2},
    "gpt_neox": SIZES,
    "cohere": SIZES | {"logit_scale": 0.25},
    "granite": SIZES | {"logits_scaling": 4.0},
}
"""Architectures that differ in positions, masks, windows, and in what they do to their logits."""


def family_model(name: str, dtype: torch.dtype = torch.float32, scale: float = 8.0, **changes: Any) -> Any:
    """An untrained model of a family of transformers, with weights scaled to make its distributions uneven."""
    return _untrained(AutoConfig.for_model(name, **FAMILIES[name] | changes), dtype, scale)


def exact(model: Any) -> Any:
    """A model whose norms are computed in its own precision: those of transformers go through float32."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            eps = module.variance_epsilon
            module.forward = lambda x, m=module, e=eps: m.weight * x * (x.square().mean(-1, keepdim=True) + e).rsqrt()
    return model


def _untrained(config: Any, dtype: torch.dtype, scale: float) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(scale)
    return model


_LITTLE: dict[str, Any] = {"vocab_size": 41, "hidden_size": 32, "num_hidden_layers": 2} | dict.fromkeys(
    ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0
)
_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64}
_DELTA = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
UNUSUAL: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4},
    "rwkv": {"attention_hidden_size": 32, "intermediate_size": 64},
    "jamba": _HEADS | {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4},
    "qwen3_5_text": _HEADS | _DELTA | {"layer_types": ["linear_attention", "full_attention"]},
    "lfm2": _HEADS | {"layer_types": ["conv", "full_attention"]},
    "falcon": {"num_attention_heads": 2, "alibi": True},
    "gpt_neo": {"intermediate_size": 64, "num_layers": 2, "num_heads": 2, "window_size": 8,
                "attention_types": [[["global", "local"], 1]]},
    "recurrent_gemma": _HEADS | {"lru_width": 32, "attention_window_size": 6, "block_types": ["recurrent", "attention"]},
    "mpt": {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": 128},
    "modernbert-decoder": _HEADS | {"local_attention": 6, "global_attn_every_n_layers": 2},
}  # fmt: skip
"""Recurrent and hybrid models, biases in the place of positions, windows by another name."""


def unusual_model(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """An untrained model of an unusual family."""
    return _untrained(AutoConfig.for_model(name, **(_LITTLE | UNUSUAL[name] | changes)), dtype, 4.0)


JUDGE = '''
def score(prompt, response, answer):
    """Lower-case letters are worth something; an even number of characters is right."""
    letters = sum(c.islower() for c in response)
    return {"score": letters / max(1, len(response)), "correct": len(response) % 2 == 0, "reason": f"{letters} letters"}
'''


def write_task(folder: Path, rows: int = 24) -> dict[str, str]:
    """A dataset of short prompts of unlike length, of which a quarter is held out, and its judge: settings of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "judge.py").write_text(JUDGE)
    lines = [{"prompt": f"{'ab' * (i % 4)} {i}", "answer": str(i)} for i in range(rows)]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"task": str(folder / "data.jsonl"), "judge": f"{folder / 'judge.py'}:score"}
