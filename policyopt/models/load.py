"""Loading a policy: any causal language model of transformers, from a folder or the hub, with or without adapters."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from policyopt.carried import is_carried, need
from policyopt.errors import UserError, first_line
from policyopt.files import appearing
from policyopt.hub import only_cached
from policyopt.models.adapters import (
    LoRA,
    Saved,
    as_before,
    base_of,
    holds_adapters,
    load_adapters,
    merged,
    quantization,
    save_adapters,
    with_adapters,
)
from policyopt.models.causal import SplitModel, backbone_of, split_model
from policyopt.models.chunked import WHOLE, Chunked, Chunks, check_chunks
from policyopt.models.gguf import SUFFIX, from_gguf
from policyopt.models.likelihood import Stepwise
from policyopt.models.loaded import Loaded
from policyopt.models.memory import Attention, check_attention, compiled, recompute_layers
from policyopt.models.offload import Resting
from policyopt.models.prompting import USUAL, Prompting
from policyopt.models.proof import check_weights
from policyopt.models.quiet import quiet
from policyopt.models.stops import stop_ids
from policyopt.models.template import turn_end
from policyopt.models.text import Text

DTypeName = Literal["float32", "bfloat16", "float16", "float64"]


class Role:
    """A model beside the policy that is only read: the reference, a teacher. Use as ``with role as split: ...``."""

    def __init__(
        self, model: nn.Module, state: Callable[[], AbstractContextManager[Any]] = nullcontext, replays: bool = True,
        split: SplitModel | None = None, without: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.model, self._state, self._without = model, state, frozenset(without)
        self.split = dataclasses.replace(split or split_model(model), replays=replays)
        """How it is called; proved here where it was not before."""
        self.here: AbstractContextManager[Any] = nullcontext()
        """Inside of it the weights stay on the device between one reading and the next."""
        self._within = ExitStack()

    def tensors(self) -> dict[str, Tensor]:
        """The weights that it reads, by name, as they are now: all of the model but those ``without`` which it is read."""
        return {name: x for name, x in self.model.state_dict().items() if name not in self._without}

    def rest(self) -> bool:
        """Let the weights lie in main memory while nobody reads them. Returns whether there is anything to move: not on a
        CPU."""
        self.here = resting = Resting(self.model)
        return resting.moves

    def __enter__(self) -> SplitModel:
        self._within = ExitStack()
        self._within.enter_context(self.here)
        self._within.enter_context(self._state())
        return self.split

    def __exit__(self, *error: Any) -> None:
        self._within.__exit__(*error)


@dataclass
class Policy:
    """A model that is trained, with its tokenizer."""

    model: Any
    """A transformers model, or a peft model around it."""
    tokenizer: Any
    name: str
    eos: tuple[int, ...]
    """Ids that end a response; the first is what ends a turn."""
    context: int
    """How many tokens the model reads at most, prompt and response together."""
    prompting: Prompting = USUAL
    """How prompts are written, where responses end, and what of them is read."""
    begun: bool = False
    """Its adapters were trained before: without them it is not the policy of the start."""
    saved: Saved = "merged"
    """What :meth:`save` writes of a model with adapters; see :class:`~policyopt.models.adapters.LoRA`."""
    recomputed: bool = False
    """Its layers work their activations out again in backward."""
    compiled: bool = False
    """Texts that are passed whole go through compiled code."""
    chunks: Chunks = WHOLE
    """How rows that are longer than a chunk are passed in training."""

    @cached_property
    def text(self) -> Text:
        """From text to ids and back."""
        return Text(self.tokenizer, self.eos, self.prompting)

    @cached_property
    def _split(self) -> SplitModel:
        """Proved once: the policy and its start are one model where it has adapters."""
        return split_model(self.model)

    def likelihood(self, version: Callable[[], int] = int) -> Stepwise:
        """How likely its responses are; ``version`` counts the updates that it has seen. Raises
        :class:`~policyopt.errors.UserError` for a model that is not supported."""
        split = self._split
        if self.chunks.tokens is not None:
            check_chunks(split.hidden, split.vocab)  # type: ignore[arg-type]
            split = dataclasses.replace(split, chunked=Chunked(split.hidden, self.chunks, version))
        if self.compiled:  # the blocks of packed rows are others in every batch, and would be compiled for each
            split = dataclasses.replace(split, packs=0, whole=compiled(split.hidden, split.vocab))
        return split

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that training changes, by name."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def backbone(self) -> nn.Module:
        """The model without its output head, its adapters merged in, as a copy may be taken for a critic.

        Raises :class:`~policyopt.errors.UserError` for weights of few bits, which cannot be trained.
        """
        if getattr(self.model, "is_quantized", False) or hasattr(self.model, "hf_quantizer"):
            raise UserError(
                "the recipe has a critic, which begins as the policy, and --adapters.quantized leaves it nothing to train"
            )
        return backbone_of(merged(self.model) if hasattr(self.model, "merge_and_unload") else self.model)

    def reference(self) -> Role:
        """The policy as it is now, frozen: a copy, or with LoRA the same model without its adapters, or with them as they
        are now where they were trained before."""
        if hasattr(self.model, "disable_adapter"):
            if not self.begun:
                return Role(self.model, self.model.disable_adapter, split=self._split, without=dict(self.trainable()))
            trained = dict(self.trainable())
            start = {name: p.detach().clone() for name, p in trained.items()}
            return Role(self.model, partial(as_before, trained, start), split=self._split)
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
        return Role(self.model.requires_grad_(False).eval(), replays=False)  # its experts are others than the policy's

    @quiet()
    def save(self, folder: Path) -> None:
        """Write a folder that plain ``AutoModelForCausalLM.from_pretrained`` loads; adapters are merged in, or saved as
        ``saved`` says.

        The folder appears whole or not at all; one that exists is replaced.
        """
        adapted = hasattr(self.model, "merge_and_unload")
        with appearing(folder) as whole:
            if not adapted or self.saved != "alone":
                (merged(self.model) if adapted else self.model).save_pretrained(whole)
            if adapted and self.saved != "merged":
                save_adapters(self.model, whole if self.saved == "alone" else whole / "adapters")
            self.tokenizer.save_pretrained(whole)


@quiet()
def load_policy(
    model: str, *, dtype: DTypeName = "float32", device: str = "auto", lora: LoRA | None = None,
    attention: Attention | None = None, gradient_checkpointing: bool = False, compile: bool = False,
    chunks: Chunks | None = None, prompting: Prompting | None = None,
) -> Policy:  # fmt: skip
    """Load a policy from a local folder, a file of llama.cpp (``.gguf``, see :mod:`policyopt.models.gguf`) or the hub; from
    a folder of adapters, with the model that they are for.

    Raises :class:`~policyopt.errors.UserError` for a folder that is missing or holds no causal language model (it says
    what is missing), weights that do not fill the model or are not finite, a hub id that cannot be reached, a tokenizer
    with ids that the model has no embedding for, a tokenizer without an end token, and for what this machine does not
    have (a device, an attention, weights of few bits).
    """
    if dtype not in ("float32", "bfloat16", "float16", "float64"):
        raise UserError(f"--dtype {dtype}: one of float32, bfloat16, float16, float64 is needed")
    place = _device(device)
    check_attention(attention, place, getattr(torch, dtype))
    few = quantization(lora, place)
    if is_carried(model):
        net, tokenizer = _copied(need(model, "model"), getattr(torch, dtype), attention, lora)
        prompting = need(model, "model").prompting if prompting in (None, USUAL) else prompting
    else:
        net, tokenizer = _read(model, getattr(torch, dtype), attention, few)
    check_weights(model, net)
    _check_vocabulary(model, net, tokenizer)
    eos = _end_tokens(model, net.generation_config, tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(eos[0])
    net = (net if few or getattr(net, "is_quantized", False) else net.to(place)).eval()
    if dtype == "float64" and getattr(net.config, "num_experts_per_tok", None):  # grouped products take no such numbers
        net.set_experts_implementation("eager")
    if hasattr(net.config, "rescale_every"):  # RWKV else divides its own weights in place, and would be saved so
        net.config.rescale_every = 0
    if gradient_checkpointing:
        recompute_layers(model, net)
    context = _context(net.config)
    begun = holds_adapters(model) or hasattr(net, "merge_and_unload")
    if holds_adapters(model):
        net = load_adapters(net, model, lora)
    elif lora is not None and not begun:
        net = with_adapters(net, lora, net.name_or_path if is_carried(model) else model)
    prompting = prompting or USUAL
    eos = tuple(dict.fromkeys([*eos, *stop_ids(tokenizer, prompting.stop_tokens)]))
    return Policy(
        net, tokenizer, model, eos, context, prompting=prompting, begun=begun, saved=(lora or LoRA()).save,
        recomputed=gradient_checkpointing, compiled=compile, chunks=chunks or WHOLE,
    )  # fmt: skip


@quiet()
def load_text(model: str, prompting: Prompting | None = None) -> tuple[Text, int]:
    """The words of a model whose weights are somewhere else, and how many tokens it reads at most: from the tokenizer and
    the config.json in a folder or on the hub.

    Raises :class:`~policyopt.errors.UserError` where they cannot be read, and for a tokenizer without an end token.
    """
    if is_carried(model) or holds_adapters(model):
        what = "a model of this session" if is_carried(model) else "a folder of adapters"
        raise UserError(f"--model {model}: this is {what}, and the model is somewhere else: give it by its name there")
    cached = only_cached("--model", model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False, local_files_only=cached)
        config = AutoConfig.from_pretrained(model, trust_remote_code=False, local_files_only=cached)
    except Exception as error:  # transformers and the hub raise a dozen kinds
        raise UserError(
            f"--model {model}: its tokenizer and its config.json cannot be read ({first_line(error)}). The weights are "
            "somewhere else, these two are needed here: give a folder with them, or a hub id that this machine can reach"
        ) from error
    try:
        generation = GenerationConfig.from_pretrained(model, local_files_only=cached)
    except OSError:  # not every model has one
        generation = None
    prompting = prompting or USUAL
    eos = [*_end_tokens(model, generation, tokenizer), *stop_ids(tokenizer, prompting.stop_tokens)]
    return Text(tokenizer, tuple(dict.fromkeys(eos)), prompting), _context(config)


def _copied(loaded: Loaded, dtype: torch.dtype, attention: Attention | None, lora: LoRA | None) -> tuple[Any, Any]:
    """Copies of a model and a tokenizer that are loaded; adapters are there to be trained."""
    if lora is not None and lora.quantized != "no":
        raise UserError(
            f"--adapters.quantized {lora.quantized}: the model is loaded already: load it in so many bits, or give its name"
        )
    net, tokenizer = copy.deepcopy((loaded.model, loaded.tokenizer))
    if attention:
        net.set_attn_implementation(attention)
    for name, p in net.named_parameters() if hasattr(net, "merge_and_unload") else ():
        p.requires_grad_("lora_" in name)
    return (net if getattr(net, "is_quantized", False) else net.to(dtype)), tokenizer


def _read(model: str, dtype: torch.dtype, attention: Attention | None, few: Mapping[str, Any]) -> tuple[Any, Any]:
    """Model and tokenizer of a name; of adapters, the model that they are for."""
    adapted = holds_adapters(model)
    base = base_of(model) if adapted else model
    source = str(from_gguf(Path(base))) if base.endswith(SUFFIX) else base
    words = model if adapted and any(Path(model).glob("tokenizer*")) else source
    _check_folder(source)
    cached = only_cached("--model", source)
    chosen = {"attn_implementation": attention} if attention else {}
    try:
        # Code that comes with a model is never run, nor is it asked for on the terminal.
        tokenizer = AutoTokenizer.from_pretrained(words, trust_remote_code=False, local_files_only=cached)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, trust_remote_code=False, local_files_only=cached, output_loading_info=True,
            **chosen, **few,
        )  # fmt: skip
    except Exception as error:  # transformers and the hub raise a dozen kinds for a model that cannot be had
        whose = f" (the adapters are for {base})" if adapted else ""
        raise UserError(
            f"--model {model}: it cannot be loaded as a causal language model{whose} ({first_line(error)}). "
            "Give a folder with config.json, weights and tokenizer, or a hub id that this machine can reach"
        ) from error
    net, loading = loaded
    if lost := sorted(loading["missing_keys"]):
        # transformers only warns, and fills them with random numbers
        raise UserError(
            f"--model {model}: the weights lack {len(lost)} tensors that its config.json calls for, such as {lost[0]}"
        )
    return net, tokenizer


def _context(config: Any) -> int:
    """How many tokens a model reads at most. Rotations that change once a text is longer than in pretraining would turn
    what was read before as well, so such a text ends there."""
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or 1 << 20
    rope = getattr(text, "rope_parameters", None) or {}
    for kind in [rope, *(x for x in rope.values() if isinstance(x, dict))]:
        if kind.get("rope_type") in ("longrope", "dynamic"):
            before = kind.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", None
            )
            longest = min(longest, before or longest)
    return int(longest)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()  # "meta" holds no numbers
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: it cannot be used ({first_line(error)}); cpu always can") from error


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


def _end_tokens(model: str, generation: Any, tokenizer: Any) -> tuple[int, ...]:
    """What ends a turn in the chat template, then the tokenizer's end, then the other ends of the model."""
    ends = generation.eos_token_id if generation is not None else None
    others = sorted({*(ends if isinstance(ends, list) else [ends])} - {None})
    found = [end for end in (turn_end(tokenizer), tokenizer.eos_token_id, *others) if end is not None]
    if not found:
        raise UserError(
            f"--model {model}: its tokenizer has no end token, so no response would ever end; set eos_token"
        )
    return tuple(dict.fromkeys(found))
