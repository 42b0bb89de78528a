"""Loading a policy from a folder or the hub: what is refused and why, adapters, the reference, saving."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from policyopt.errors import UserError
from policyopt.items import user
from policyopt.models.embedded import random_tiny
from policyopt.models.load import LoRA, Policy, load_policy
from policyopt.models.text import encode_prompt
from policyopt.models.tokenizer import build_tokenizer

IDS = torch.arange(6, 40)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as it comes from a hub."""
    path = tmp_path_factory.mktemp("load") / "model"
    model, tokenizer = random_tiny()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The same model, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def load(path: Path, **options: Any) -> Policy:
    return load_policy(str(path), device="cpu", **options)


def edit(file: Path, **values: Any) -> None:
    data = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def shake(policy: Policy, seed: int = 0) -> None:
    """As training would: every trainable parameter moves (fresh adapters would otherwise do nothing)."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in policy.trainable():
            p.add_(0.1 * torch.randn(p.shape, generator=g).to(p))


# What loads


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_a_policy_is_deterministic_and_has_gradients(folder: Path, dtype: Any) -> None:
    policy = load(folder, dtype=dtype)
    assert policy.model.dtype == getattr(torch, dtype)
    assert not any(m.training for m in policy.model.modules())
    assert {name for name, _ in policy.trainable()} == {name for name, _ in policy.model.named_parameters()}
    assert policy.context == 256
    assert policy.eos == (policy.tokenizer.eos_token_id,)


def test_padding_falls_back_to_the_end_token(copied: Path) -> None:
    edit(copied / "tokenizer_config.json", pad_token=None)
    policy = load(copied)
    assert policy.tokenizer.pad_token_id == policy.tokenizer.eos_token_id


def test_every_end_token_of_the_generation_config_ends_a_response(copied: Path) -> None:
    edit(copied / "generation_config.json", eos_token_id=[2, 50])
    assert load(copied).eos == (2, 50)


def test_prompts_without_a_chat_template_are_plain_text(copied: Path) -> None:
    (copied / "chat_template.jinja").unlink()
    tokenizer = load(copied).tokenizer
    messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1"}]
    assert tokenizer.decode(encode_prompt(tokenizer, messages)) == "Add.\n\n1+1"


def test_prompts_that_cannot_be_encoded_are_refused() -> None:
    tokenizer = build_tokenizer()
    with pytest.raises(UserError, match="without messages"):
        encode_prompt(tokenizer, [])
    tokenizer.chat_template = "{{ raise_exception('no system role here') }}"
    with pytest.raises(UserError, match="no system role here"):
        encode_prompt(tokenizer, user("1+1"))
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="empty prompt"):
        encode_prompt(tokenizer, user(""))


# What is refused


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/nowhere", "a/b/c"])
def test_a_folder_that_does_not_exist(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: there is no such folder"):
        load_policy(name)


def test_a_hub_id_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"--model nobody/nothing: it cannot be loaded.*a hub id that this machine can"):
        load_policy("nobody/nothing")


@pytest.mark.parametrize(
    ("files", "lacks"),
    [
        (["config.json"], "lacks config.json$"),
        (["model.safetensors"], r"lacks weights \(\*.safetensors\)$"),
        (["tokenizer.json", "tokenizer_config.json"], r"lacks a tokenizer \(tokenizer.json\)$"),
        (["config.json", "model.safetensors"], "lacks config.json and weights"),
    ],
)
def test_a_folder_that_is_no_model(copied: Path, files: list[str], lacks: str) -> None:
    for name in files:
        (copied / name).unlink()
    with pytest.raises(UserError, match=lacks):
        load(copied)


def test_a_file_and_a_folder_of_adapters(copied: Path) -> None:
    with pytest.raises(UserError, match="this is a file"):
        load(copied / "config.json")
    (copied / "config.json").rename(copied / "adapter_config.json")
    with pytest.raises(UserError, match="holds adapters, not a model"):
        load(copied)


def test_weights_that_are_cut_short(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be loaded"):
        load(copied)


def test_weights_that_do_not_fill_the_model(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 1 tensors .* model\.layers\.1\.mlp\.up_proj\.weight"):
        load(copied)


def test_a_model_of_another_kind_or_with_code_of_its_own(copied: Path) -> None:
    edit(copied / "config.json", model_type="vit")
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        load(copied)
    edit(copied / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    (copied / "mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        load(copied)


def test_a_tokenizer_with_more_ids_than_the_model_embeds(copied: Path) -> None:
    tokenizer = build_tokenizer(256)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(copied)
    with pytest.raises(UserError, match="ids up to 102, the model embeds only 102: they do not belong together"):
        load(copied)


def test_a_tokenizer_without_end_token(copied: Path) -> None:
    edit(copied / "tokenizer_config.json", eos_token=None)
    edit(copied / "config.json", eos_token_id=None)
    edit(copied / "generation_config.json", eos_token_id=None)
    assert load(copied).eos == (2,), "what ends a turn in the chat template"
    (copied / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no end token"):
        load(copied)


def test_options_that_do_not_exist(folder: Path) -> None:
    with pytest.raises(UserError, match="--dtype int8: one of float32"):
        load(folder, dtype="int8")
    with pytest.raises(UserError, match="--device nothing"):
        load_policy(str(folder), device="nothing")
    with pytest.raises(UserError, match="nosuch_proj"):
        load(folder, lora=LoRA(targets="nosuch_proj"))


# Adapters, reference, saving


def test_adapters_start_as_the_model_and_are_all_that_is_trained(folder: Path) -> None:
    base, policy = load(folder), load(folder, lora=LoRA(rank=4))
    torch.testing.assert_close(logits(policy.model), logits(base.model), rtol=0, atol=0)
    names = [name for name, _ in policy.trainable()]
    assert len(names) == 2 * 7 * 2  # A and B on seven matrices of two layers
    assert all("lora_" in name for name in names)
    again = load(folder, lora=LoRA(rank=4))
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(policy.trainable(), again.trainable(), strict=True))


def test_alpha_scales_the_adapters(folder: Path, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.o_proj.weight"
    base, changes = load_file(folder / "model.safetensors")[name].double(), []
    for alpha in (0.5, 1.0):
        policy = load(folder, dtype="float64", lora=LoRA(rank=4, alpha=alpha, targets="o_proj"))
        shake(policy)
        policy.save(tmp_path / "out")
        changes.append(load_file(tmp_path / "out" / "model.safetensors")[name] - base)
    assert changes[0].abs().max() > 1e-3
    torch.testing.assert_close(2 * changes[0], changes[1])


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)])
def test_the_reference_stays_where_the_policy_began(folder: Path, lora: LoRA | None) -> None:
    policy = load(folder, lora=lora)
    start = logits(policy.model)
    reference = policy.reference()
    trained = [name for name, _ in policy.trainable()]
    shake(policy)
    moved = logits(policy.model)
    assert (moved - start).abs().max() > 1e-3
    with reference as split, torch.no_grad():
        hidden = split.hidden(input_ids=IDS, use_cache=False).last_hidden_state
        torch.testing.assert_close(split.logits(hidden), start, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(policy.model), moved, rtol=0, atol=0)
    assert [name for name, _ in policy.trainable()] == trained


@pytest.mark.parametrize("lora", [None, LoRA(rank=4), LoRA(rank=2, targets="q_proj,v_proj")])
def test_a_saved_policy_is_a_plain_model(folder: Path, tmp_path: Path, lora: LoRA | None) -> None:
    policy = load(folder, lora=lora)
    shake(policy)
    parameters = copy.deepcopy(dict(policy.model.named_parameters()))
    trained = logits(policy.model)
    out = tmp_path / "out"
    for _ in range(2):  # an existing folder is replaced
        policy.save(out)
        plain = AutoModelForCausalLM.from_pretrained(out)
        assert (logits(plain) - trained).abs().max() < 1e-5
        assert not [name for name in plain.state_dict() if "lora" in name]
    assert AutoTokenizer.from_pretrained(out).get_vocab() == policy.tokenizer.get_vocab()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    after = dict(policy.model.named_parameters())
    assert after.keys() == parameters.keys()
    assert all(
        torch.equal(p, after[name]) and p.requires_grad == after[name].requires_grad for name, p in parameters.items()
    )
    torch.testing.assert_close(logits(load(out).model), logits(plain), rtol=0, atol=0)
