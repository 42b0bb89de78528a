"""A file of llama.cpp is a model like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from policyopt.errors import UserError
from policyopt.models.gguf import from_gguf
from policyopt.models.load import load_policy


def write_gguf(path: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """A Llama of one layer with a vocabulary of bytes, in float16; returns its tensors by their names in the file."""
    gguf = pytest.importorskip("gguf")
    width, inner, heads = 32, 48, 2
    words = [*map(chr, range(33, 127)), "12", "Ġ", "<|endoftext|>"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([1] * (len(words) - 1) + [3])
    writer.add_token_merges(["1 2"])
    writer.add_eos_token_id(len(words) - 1)
    writer.add_bos_token_id(len(words) - 1)
    random = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (len(words), width), "output": (len(words), width), "output_norm": (width,),
        "blk.0.attn_norm": (width,), "blk.0.ffn_norm": (width,),
        **{f"blk.0.attn_{x}": (width, width) for x in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (inner, width), "blk.0.ffn_up": (inner, width), "blk.0.ffn_down": (width, inner),
    }  # fmt: skip
    tensors: dict[str, Any] = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    for name, x in tensors.items():
        writer.add_tensor(f"{name}.weight", x.half().numpy() if x.dim() > 1 else x.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_a_file_becomes_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path / "cache"))
    tensors = write_gguf(tmp_path / "tiny.gguf")
    folder = from_gguf(tmp_path / "tiny.gguf")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(model.model.embed_tokens.weight, tensors["token_embd"].half().float())
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, tensors["blk.0.ffn_up"].half().float())
    made = (folder / "config.json").stat().st_mtime_ns
    policy = load_policy(str(tmp_path / "tiny.gguf"), device="cpu")
    assert policy.name.endswith("tiny.gguf")
    assert (folder / "config.json").stat().st_mtime_ns == made
    write_gguf(tmp_path / "tiny.gguf", seed=1)
    assert from_gguf(tmp_path / "tiny.gguf") != folder  # other weights under the same name


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "tiny.gguf")
    names, made = ("GGUFReader", "get_tensor_name_map"), list[str]()

    def counted(name: str, own: Any) -> Any:
        def making(*args: Any) -> Any:
            made.append(name)
            return own(*args)

        return making

    for name in names:
        monkeypatch.setattr(gguf, name, counted(name, getattr(gguf, name)))
    before = [getattr(gguf, name) for name in names]
    from_gguf(tmp_path / "tiny.gguf")
    assert sorted(made) == sorted(names)
    assert [getattr(gguf, name) for name in names] == before, "others read as they did"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file"), (b"PK\3\4", "no GGUF file"), (b"GGUF\0", "cannot read")]
)
def test_what_is_no_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_policy(str(path), device="cpu")
    assert not list((tmp_path / "cache").rglob("tmp-*"))
