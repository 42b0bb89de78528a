"""Low-rank adapters on a model: made, loaded, merged and saved."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from policyopt.errors import UserError, first_line
from policyopt.part import Count, Positive, part

Saved = Literal["merged", "alone", "both"]
CONFIG = "adapter_config.json"


@part
class LoRA:
    """Low-rank adapters (arXiv:2106.09685)."""

    rank: Count = 16
    """Rank of the update of each matrix."""
    alpha: Positive = 32.0
    """The update is scaled by alpha over rank."""
    targets: str = "all-linear"
    """Which modules get adapters: ``all-linear``, or names joined by commas."""
    save: Saved = "merged"
    """What the saved folder holds: ``merged``, a plain model with the adapters added to its weights; ``alone``, the adapters
    in the format of PEFT, to be loaded over the same model; ``both``, a plain model with the adapters in ``adapters``."""
    quantized: Literal["no", "4bit", "8bit"] = "no"
    """In how many bits the frozen weights below the adapters are held (QLoRA, arXiv:2305.14314; 4 bits are NF4). Needs a
    GPU, the extra ``[qlora]``, and ``save`` alone: weights of 4 bits cannot take up an adapter exactly."""


def holds_adapters(model: str) -> bool:
    """Whether a name is that of a folder of adapters, without the model that they are for."""
    path = Path(model)
    return (path / CONFIG).is_file() and not (path / "config.json").is_file()


def base_of(model: str) -> str:
    """The model that the adapters in a folder are for, a folder or a hub id.

    Raises :class:`~policyopt.errors.UserError` where the folder does not say, where a folder that it names is not there,
    and for adapters that are no LoRA.
    """
    folder = Path(model)
    try:
        said = json.loads((folder / CONFIG).read_text())
        base, kind = said.get("base_model_name_or_path"), said.get("peft_type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"--model {model}: its {CONFIG} cannot be read as JSON; save the adapters again") from error
    if kind != "LORA":
        raise UserError(
            f"--model {model}: it holds adapters of the kind {kind!r}; adapters of the kind LORA are needed"
        )
    if not isinstance(base, str) or not base:
        raise UserError(
            f"--model {model}: its {CONFIG} does not say for which model the adapters are: set base_model_name_or_path"
        )
    if (folder / base).is_dir():
        return str(folder / base)
    if not Path(base).is_dir() and (base.startswith((".", "/", "~")) or base.count("/") > 1):
        raise UserError(
            f"--model {model}: the adapters are for the model {base}, and there is no such folder: put it there, or set "
            f"base_model_name_or_path in {folder / CONFIG}"
        )
    return base


def with_adapters(net: Any, lora: LoRA, base: str) -> Any:
    """Fresh adapters, which change nothing yet, on a model that is called ``base``. Raises
    :class:`~policyopt.errors.UserError` for targets that it does not have."""
    from peft import LoraConfig, get_peft_model

    from policyopt.models.lowrank import use_low_rank  # PEFT takes long to import, and most runs need none

    targets: Any = lora.targets if lora.targets == "all-linear" else lora.targets.split(",")
    alpha: Any = lora.alpha  # peft calls it a whole number and takes any
    settings = LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            out: Any = get_peft_model(net, settings).eval()
    except ValueError as error:
        raise UserError(f"--adapters.targets {lora.targets}: {first_line(error)}") from error
    use_low_rank(out)
    out.peft_config["default"].base_model_name_or_path = str(Path(base).absolute()) if Path(base).is_dir() else base
    return out


def load_adapters(net: Any, model: str, lora: LoRA | None) -> Any:
    """The adapters in a folder on the model that they are for, to be trained on.

    Raises :class:`~policyopt.errors.UserError` where they do not fit the model, and where ``lora`` asks for others.
    """
    from peft import PeftConfig, PeftModel

    from policyopt.models.lowrank import use_low_rank

    asked = lora or LoRA()
    try:
        there: Any = PeftConfig.from_pretrained(model)
        out: Any = PeftModel.from_pretrained(net, model, is_trainable=True, config=there).eval()
    except Exception as error:  # peft raises a dozen kinds for adapters that do not fit
        raise UserError(f"--model {model}: its adapters do not fit their model ({first_line(error)})") from error
    for name, mine, theirs in (("rank", asked.rank, there.r), ("alpha", asked.alpha, there.lora_alpha)):
        if mine not in (getattr(LoRA(), name), theirs):
            raise UserError(
                f"--adapters.{name} {mine:g}: the adapters in {model} have {theirs:g}; leave it out to go on with them"
            )
    use_low_rank(out)
    return out


def merged(model: Any) -> Any:
    """A copy of a model with its adapters added to its weights, which gives what the model gives.

    Where output and input embeddings are one tensor and either has an adapter, they are two in the copy.
    """
    model = copy.deepcopy(model)
    inner = model.get_base_model()
    ends = [inner.get_input_embeddings(), inner.get_output_embeddings()]
    plain = [getattr(end, "base_layer", getattr(end, "original_module", end)) for end in ends]
    if any(end is not bare for end, bare in zip(ends, plain, strict=True)) and plain[0].weight is plain[1].weight:
        plain[1].weight = nn.Parameter(plain[1].weight.detach().clone(), requires_grad=False)
        for config in (inner.config, inner.config.get_text_config()):
            config.tie_word_embeddings = False
    return model.merge_and_unload()


def save_adapters(model: Any, folder: Path) -> None:
    """Write the adapters alone, as PEFT reads them."""
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form that nobody has filled in


@contextmanager
def as_before(parameters: Mapping[str, nn.Parameter], start: Mapping[str, Tensor]) -> Iterator[None]:
    """Parameters with the numbers that they had at the start, for a while."""
    now = {name: p.data for name, p in parameters.items()}
    for name, p in parameters.items():
        p.data = start[name]
    try:
        yield
    finally:
        for name, p in parameters.items():
            p.data = now[name]


def quantization(lora: LoRA | None, device: torch.device) -> dict[str, Any]:
    """What ``from_pretrained`` is told of weights in few bits; nothing where they are whole.

    Raises :class:`~policyopt.errors.UserError` where this machine or the way of saving does not go with them.
    """
    if lora is None or lora.quantized == "no":
        return {}
    asked = f"--adapters.quantized {lora.quantized}"
    if device.type != "cuda":
        raise UserError(
            f"{asked}: it needs a GPU, and the model would be on {device}; leave it out, or set --device cuda"
        )
    if lora.save != "alone":
        raise UserError(
            f"{asked}: weights of few bits cannot take up an adapter exactly, so --adapters.save {lora.save} cannot be: "
            "set --adapters.save alone"
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise UserError(f"{asked}: it needs bitsandbytes: pip install 'policyopt[qlora]'") from error
    from transformers import BitsAndBytesConfig

    few: dict[str, Any] = (
        {"load_in_8bit": True}
        if lora.quantized == "8bit"
        else {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": torch.bfloat16,
        }
    )
    return {"quantization_config": BitsAndBytesConfig(**few), "device_map": {"": str(device)}}
