"""Loading a policy from a folder or the hub: what is refused and why, adapters, the reference, saving."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from policyopt.errors import UserError
from policyopt.items import user
from policyopt.models import load as loading
from policyopt.models.adapters import LoRA, quantization
from policyopt.models.causal import SplitModel, split_model
from policyopt.models.embedded import random_tiny
from policyopt.models.load import Policy, _context, load_policy
from policyopt.models.text import encode_prompt
from policyopt.models.tokenizer import build_tokenizer
from tests.tiny import SIZES

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
    with pytest.raises(
        UserError, match=r"--model nobody/nothing: there is no such folder, and the hub .* cannot be reached"
    ):
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
    (copied / "config.json").unlink()
    for said, wrong in (
        ("{", "cannot be read as JSON"),
        ('{"peft_type": "IA3", "base_model_name_or_path": "x"}', "adapters of the kind 'IA3'"),
        ('{"peft_type": "LORA"}', "does not say for which model"),
        (
            '{"peft_type": "LORA", "base_model_name_or_path": "/gone/base"}',
            "the model /gone/base, and there is no such folder",
        ),
    ):
        (copied / "adapter_config.json").write_text(said)
        with pytest.raises(UserError, match=wrong):
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


def test_a_model_with_adapters_and_its_start_are_proved_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proved: list[nn.Module] = []

    def proving(model: nn.Module) -> SplitModel:
        proved.append(model)
        return split_model(model)

    monkeypatch.setattr(loading, "split_model", proving)
    policy = load(folder, lora=LoRA(rank=2))
    policy.likelihood()
    policy.reference()
    policy.likelihood()
    assert len(proved) == 1
    plain = load(folder)
    plain.likelihood()
    plain.reference()
    assert len(proved) == 3, "a copy is a model of its own"


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


# Adapters


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose output embeddings are its input embeddings."""
    path = tmp_path_factory.mktemp("tied") / "model"
    _, tokenizer = random_tiny()
    config = AutoConfig.for_model("qwen2", **SIZES | {"vocab_size": len(tokenizer), "num_key_value_heads": 1})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config.tie_word_embeddings = True
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("targets", ["lm_head", "embed_tokens", "q_proj,lm_head", "q_proj"])
def test_adapters_on_a_tied_head_are_saved_as_they_are(targets: str, tied: Path, tmp_path: Path) -> None:
    policy = load(tied, lora=LoRA(rank=4, targets=targets))
    shake(policy)
    trained = logits(policy.model)
    policy.save(tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (logits(plain) - trained).abs().max() < 1e-5
    assert plain.config.tie_word_embeddings == (targets == "q_proj"), "two tensors only where they have become two"
    torch.testing.assert_close(logits(policy.model), trained, rtol=0, atol=0)
    assert policy.model.config.tie_word_embeddings, "the policy in training stays as it is"


@pytest.mark.parametrize("save", ["alone", "both"])
def test_adapters_alone_are_loaded_and_trained_on(save: Any, folder: Path, tmp_path: Path) -> None:
    policy = load(folder, lora=LoRA(rank=4, alpha=8, save=save))
    shake(policy)
    trained, out = logits(policy.model), tmp_path / "out"
    policy.save(out)
    adapters = out if save == "alone" else out / "adapters"
    assert not (adapters / "config.json").exists()
    assert not (adapters / "README.md").exists()
    if save == "both":
        assert (logits(AutoModelForCausalLM.from_pretrained(out)) - trained).abs().max() < 1e-5
    again = load(adapters)
    torch.testing.assert_close(logits(again.model), trained, rtol=0, atol=0)
    mine, theirs = dict(policy.trainable()), dict(again.trainable())
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(p, theirs[name]) for name, p in mine.items())
    assert load(adapters, lora=LoRA(rank=4)).begun
    with pytest.raises(UserError, match=r"--adapters\.rank 9: the adapters in .* have 4; leave it out"):
        load(adapters, lora=LoRA(rank=9))


def test_the_reference_of_adapters_that_were_trained_before_has_them(folder: Path, tmp_path: Path) -> None:
    policy = load(folder, lora=LoRA(rank=4, save="alone"))
    shake(policy)
    policy.save(tmp_path / "adapters")
    again = load(tmp_path / "adapters")
    start, reference = logits(again.model), again.reference()
    shake(again, seed=1)
    moved = again.likelihood().hidden(input_ids=IDS, use_cache=False).last_hidden_state.square().sum()
    with reference as split, torch.no_grad():
        hidden = split.hidden(input_ids=IDS, use_cache=False).last_hidden_state
        torch.testing.assert_close(split.logits(hidden), start, rtol=0, atol=1e-6)
    moved.backward()
    fresh = {n: p.grad.clone() for n, p in again.trainable() if p.grad is not None}
    again.model.zero_grad()
    again.likelihood().hidden(input_ids=IDS, use_cache=False).last_hidden_state.square().sum().backward()
    assert fresh
    for name, p in again.trainable():
        torch.testing.assert_close(p.grad, fresh[name], rtol=0, atol=0)


def test_adapters_that_do_not_fit_their_model_are_refused(folder: Path, tied: Path, tmp_path: Path) -> None:
    policy = load(folder, lora=LoRA(rank=4, save="alone"))
    policy.save(tmp_path / "adapters")
    edit(tmp_path / "adapters" / "adapter_config.json", base_model_name_or_path=str(tied), target_modules=["nothing"])
    with pytest.raises(UserError, match="its adapters do not fit their model"):
        load(tmp_path / "adapters")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lora": LoRA(quantized="4bit", save="alone")}, "--adapters.quantized 4bit: it needs a GPU"),
        ({"attention": "flash_attention_2"}, "--attention flash_attention_2: it needs a GPU"),
    ],
)
def test_what_this_machine_does_not_have_is_refused_in_a_line(options: Any, said: str, folder: Path) -> None:
    with pytest.raises(UserError, match=said) as refused:
        load(folder, **options)
    assert "\n" not in str(refused.value)


def test_weights_of_few_bits_cannot_take_up_adapters() -> None:
    with pytest.raises(UserError, match=r"--adapters\.save merged cannot be: set --adapters\.save alone"):
        quantization(LoRA(quantized="8bit"), torch.device("cuda"))


# What the numbers say


@pytest.mark.parametrize(
    ("value", "dtype", "said"), [(math.nan, "float32", "NaN"), (1e6, "float16", "infinity, beyond what float16")]
)
def test_damaged_weights_are_named(value: float, dtype: Any, said: str, copied: Path) -> None:
    weights, name = load_file(copied / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    weights[name][0, 3] = value
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"its weights are damaged: {name} holds {said}.* \(1 of \d+ numbers\)"):
        load(copied, dtype=dtype)


def test_rotations_that_change_with_length_end_the_context(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    assert _context(config) == 256
    config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    assert _context(config) == 64
    config.rope_parameters = {"full_attention": {"rope_type": "dynamic", "original_max_position_embeddings": 32}}
    assert _context(config) == 32
    config.rope_parameters = {"rope_type": "llama3", "original_max_position_embeddings": 64}
    assert _context(config) == 256, "the same for every length"
