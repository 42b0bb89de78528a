"""Loading a policy: any causal language model of transformers, from a folder or the hub, with or without adapters."""

from __future__ import annotations

import copy
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from policyopt.errors import UserError
from policyopt.models.causal import SplitModel, split_model
from policyopt.models.likelihood import Stepwise
from policyopt.models.quiet import quiet
from policyopt.models.text import Text
from policyopt.part import Count, Positive, part

DTypeName = Literal["float32", "bfloat16", "float16", "float64"]


@part
class LoRA:
    """Low-rank adapters (arXiv:2106.09685)."""

    rank: Count = 16
    """Rank of the update of each matrix."""
    alpha: Positive = 32.0
    """The update is scaled by alpha over rank."""
    targets: str = "all-linear"
    """Which modules get adapters: ``all-linear``, or names joined by commas."""


class Role:
    """A model beside the policy that is only read: the reference, a teacher. Use as ``with role as split: ...``."""

    def __init__(self, model: nn.Module, adapters: nn.Module | None = None) -> None:
        self.model, self._adapters = model, adapters
        self._split = split_model(model)
        self._off: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> SplitModel:
        self._off = nullcontext() if self._adapters is None else self._adapters.disable_adapter()  # type: ignore[operator]
        self._off.__enter__()
        return self._split

    def __exit__(self, *error: Any) -> None:
        self._off.__exit__(*error)


@dataclass
class Policy:
    """A model that is trained, with its tokenizer."""

    model: Any
    """A transformers model, or a peft model around it."""
    tokenizer: Any
    name: str
    eos: tuple[int, ...]
    """Ids that end a response."""
    context: int
    """How many tokens the model reads at most, prompt and response together."""

    @cached_property
    def text(self) -> Text:
        """From text to ids and back."""
        return Text(self.tokenizer, self.eos)

    def likelihood(self) -> Stepwise:
        """How likely its responses are. Raises :class:`~policyopt.errors.UserError` for a model that is not supported."""
        return split_model(self.model)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that training changes, by name."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def backbone(self) -> nn.Module:
        """The model without its output head and without adapters, as a copy may be taken for a critic."""
        if not hasattr(self.model, "unload"):
            return self.model.base_model
        return copy.deepcopy(self.model).unload().base_model

    def reference(self) -> Role:
        """The policy as it is now, frozen: a copy, or with LoRA the same model without its adapters."""
        if hasattr(self.model, "disable_adapter"):
            return Role(self.model, self.model)
        return Role(copy.deepcopy(self.model).requires_grad_(False).eval())

    def frozen(self, role: str, policy: Policy) -> Role:
        """This policy as a frozen role beside another one that reads the same tokens.

        Raises :class:`~policyopt.errors.UserError` where the two have not the same vocabulary.
        """
        mine, theirs = self.text.vocabulary, policy.text.vocabulary
        sizes = [p.model.get_input_embeddings().weight.shape[0] for p in (self, policy)]
        if mine != theirs or sizes[0] != sizes[1]:
            option = "--teacher " if role == "teacher" else f"--role {role}="
            raise UserError(
                f"{option}{self.name}: its vocabulary ({len(mine)} tokens, {sizes[0]} embedded) is not that of "
                f"{policy.name} ({len(theirs)}, {sizes[1]}); a model in a role must read the same tokens"
            )
        return Role(self.model.requires_grad_(False).eval())

    @quiet()
    def save(self, folder: Path) -> None:
        """Write a folder that plain ``AutoModelForCausalLM.from_pretrained`` loads; adapters are merged in.

        The folder appears whole or not at all; one that exists is replaced.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        model = copy.deepcopy(self.model).merge_and_unload() if hasattr(self.model, "merge_and_unload") else self.model
        for leftover in folder.parent.glob(f"tmp-{folder.name}-*"):  # of a process that was killed while it wrote
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f"tmp-{folder.name}-", dir=folder.parent) as scratch:
            whole = Path(scratch) / "model"
            model.save_pretrained(whole)
            self.tokenizer.save_pretrained(whole)
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            whole.rename(folder)


@quiet()
def load_policy(model: str, *, dtype: DTypeName = "float32", device: str = "auto", lora: LoRA | None = None) -> Policy:
    """Load a policy from a local folder or the hub.

    Raises :class:`~policyopt.errors.UserError` for a folder that is missing or holds no causal language model (it says
    what is missing), weights that do not fill the model, a hub id that cannot be reached, a tokenizer with ids that the
    model has no embedding for, and a tokenizer without an end token.
    """
    if dtype not in ("float32", "bfloat16", "float16", "float64"):
        raise UserError(f"--dtype {dtype}: one of float32, bfloat16, float16, float64 is needed")
    place = _device(device)
    _check_folder(model)
    try:
        # Code that comes with a model is never run, nor is it asked for on the terminal.
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, dtype), trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # transformers and the hub raise a dozen kinds for a model that cannot be had
        raise UserError(
            f"--model {model}: it cannot be loaded as a causal language model ({_first_line(error)}). "
            "Give a folder with config.json, weights and tokenizer, or a hub id that this machine can reach"
        ) from error
    net, loading = loaded
    if lost := sorted(loading["missing_keys"]):
        # transformers only warns, and fills them with random numbers
        raise UserError(
            f"--model {model}: the weights lack {len(lost)} tensors that its config.json calls for, such as {lost[0]}"
        )
    _check_vocabulary(model, net, tokenizer)
    eos = _end_tokens(model, net, tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(eos[0])
    net = net.to(place).eval()
    if lora is not None:
        net = _with_adapters(net, lora)
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 20
    return Policy(net, tokenizer, model, eos, int(context))


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()  # "meta" holds no numbers
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: it cannot be used ({_first_line(error)}); cpu always can") from error


def _check_folder(model: str) -> None:
    path = Path(model)
    if not path.exists():
        if model.startswith((".", "/", "~")) or model.count("/") > 1:
            raise UserError(f"--model {model}: there is no such folder")
        return
    if not path.is_dir():
        raise UserError(
            f"--model {model}: this is a file; give the folder that holds config.json, weights and tokenizer"
        )
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise UserError(
            f"--model {model}: this folder holds adapters, not a model; merge them into their model and save that"
        )
    weights = [*path.glob("*.safetensors"), *path.glob("*.bin")]
    words = [*path.glob("tokenizer*"), *path.glob("vocab*"), *path.glob("*.model")]
    missing = [] if (path / "config.json").is_file() else ["config.json"]
    missing += [] if weights else ["weights (*.safetensors)"]
    missing += [] if words else ["a tokenizer (tokenizer.json)"]
    if missing:
        raise UserError(f"--model {model}: this folder holds no model, it lacks {' and '.join(missing)}")


def _check_vocabulary(model: str, net: Any, tokenizer: Any) -> None:
    rows = net.get_input_embeddings().weight.shape[0]
    largest = max([len(tokenizer) - 1, *tokenizer.get_vocab().values()])
    if largest >= rows:
        raise UserError(
            f"--model {model}: the tokenizer has ids up to {largest}, the model embeds only {rows}: "
            "they do not belong together"
        )


def _end_tokens(model: str, net: Any, tokenizer: Any) -> tuple[int, ...]:
    ends = net.generation_config.eos_token_id if net.generation_config is not None else None
    found = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    if not found:
        raise UserError(
            f"--model {model}: its tokenizer has no end token, so no response would ever end; set eos_token"
        )
    return tuple(sorted(found))


def _with_adapters(net: Any, lora: LoRA) -> Any:
    from peft import LoraConfig, get_peft_model

    targets: Any = lora.targets if lora.targets == "all-linear" else lora.targets.split(",")
    alpha: Any = lora.alpha  # peft calls it a whole number and takes any
    settings = LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return get_peft_model(net, settings).eval()
    except ValueError as error:
        raise UserError(f"--adapters.targets {lora.targets}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
