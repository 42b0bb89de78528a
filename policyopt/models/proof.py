"""What a model is put to the test with when it is loaded: how far a probe must reach, and whether its numbers are finite."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from policyopt.errors import UserError

_SHORT, _LEAST, _MOST = 8, 48, 2048
_CPU, _GPU = 4e10, 4e12  # floating-point operations that one reading of a probe may take; a proof takes some ten

_WINDOW = re.compile(r"window|local|chunk|block|span|stride")
_COUNT = re.compile(
    r"^(num|n)_|_ids?$|(layer|head|expert|group|state|rank|kernel|dim)s?$|theta|freq|base|interval|pattern"
)


@dataclass(frozen=True)
class Reach:
    """How long a probe is."""

    length: int
    """Tokens: more than any window that the configuration may hold, as far as that can be afforded."""
    beyond: frozenset[str] = frozenset()
    """Fields of the configuration that name a window which is longer."""


def reach(model: nn.Module) -> Reach:
    """How long a probe of a model must be to see past its windows.

    A window may have any name, so every whole number of the configuration may be one that is neither a size of a weight,
    nor a count, nor an id, nor as long as the context; what is called a window is one in any case. A probe takes at most
    some seconds, and at most 2048 tokens.
    """
    config: Any = getattr(model, "config", None)
    if config is None:
        return Reach(_SHORT)
    weights = list(model.parameters())
    sizes = {n for p in weights for n in p.shape}
    context = getattr(config, "max_position_embeddings", None) or 1 << 20
    afforded = (_CPU if weights[0].device.type == "cpu" else _GPU) / (2 * max(1, sum(p.numel() for p in weights)))
    most = min(int(context) - 8, int(min(max(afforded, _LEAST), _MOST)))
    found = [
        (name, n)
        for name, n in _numbers(config.to_dict(), "")
        if 1 < n < context and not _COUNT.search(name) and (_WINDOW.search(name) or n not in sizes)
    ]
    length = max([_SHORT, *(n + 2 for _, n in found if n + 2 <= most)])
    beyond = frozenset(name for name, n in found if n + 2 > most and _WINDOW.search(name))
    return Reach(min(length, max(_SHORT, most)), beyond)


def _numbers(tree: Any, name: str) -> Iterator[tuple[str, int]]:
    """All whole numbers of a configuration, with the name that they stand under."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _numbers(value, str(key))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _numbers(value, name)
    elif isinstance(tree, int) and not isinstance(tree, bool):
        yield name, tree


def probe_ids(length: int, vocab: int, device: torch.device, seed: int = 0) -> Tensor:
    """Token ids [1, length] without a pattern that a model could hide behind."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(vocab, (1, length), generator=g).to(device)


def near(ours: Tensor, whole: Tensor) -> bool:
    """Whether two computations of the same vectors [..., H] agree, up to the noise of their precision: each to a thousandth
    of its length, a tenth in 16 bits. NaN agrees with nothing."""
    tolerance = 1e-3 if whole.dtype in (torch.float32, torch.float64) else 0.1
    if ours.shape != whole.shape:
        return False
    exact = whole.double()
    return bool(((ours.double() - exact).norm(dim=-1) <= tolerance * exact.norm(dim=-1) + 1e-9).all())


def with_gradients(hidden: Tensor, trained: Sequence[nn.Parameter]) -> list[Tensor]:
    """Hidden states [..., H], and the gradient of a sum of them by each parameter, as vectors that :func:`near` compares. No two
    numbers have the same weight in the sum: squares would not do, since behind a norm their sum is the same whatever is done."""
    unlike = torch.linspace(-1, 1, hidden.numel(), device=hidden.device).view_as(hidden)
    gradients = torch.autograd.grad((hidden * unlike).sum(), trained, allow_unused=True) if trained else ()
    return [hidden.detach(), *(g.flatten() for g in gradients if g is not None)]


@torch.no_grad()
def pads_right(backbone: Callable[..., Any], vocab: int, device: torch.device) -> bool:
    """Whether what stands to the right of a text changes nothing in it, so that rows of unlike length can go side by side.

    So it is for causal models; the proof is a probe."""
    ids = probe_ids(7, vocab, device)
    beside = torch.cat([torch.cat([ids[:, :3], torch.zeros_like(ids[:, 3:])], 1), ids.flip(1)])
    try:
        alone = backbone(input_ids=ids[:, :3], use_cache=False).last_hidden_state[0]
        return near(backbone(input_ids=beside, use_cache=False).last_hidden_state[0, :3], alone)
    except Exception:  # whatever a model raises that takes no such batch: its rows then go one by one
        return False


def check_weights(model: str, net: nn.Module) -> None:
    """Raises :class:`~policyopt.errors.UserError` naming the first tensor of a model that holds NaN or infinity."""
    for name, p in net.named_parameters():
        if p.is_floating_point() and p.numel() and not all(bool(torch.isfinite(x)) for x in p.detach().aminmax()):
            bad = int((~torch.isfinite(p)).sum())
            what = "NaN" if bool(p.isnan().any()) else f"infinity, beyond what {_short(p.dtype)} holds"
            raise UserError(
                f"--model {model}: its weights are damaged: {name} holds {what} ({bad} of {p.numel()} numbers). "
                + ("Get the model anew" if what == "NaN" else "Take --dtype bfloat16 or float32, or get the model anew")
            )


def check_finite(name: str, numbers: Tensor) -> None:
    """Raises :class:`~policyopt.errors.UserError` where a model whose weights are finite gives numbers that are not."""
    if bool(torch.isfinite(numbers).all()):
        return
    dtype = _short(numbers.dtype)
    advice = (
        f"it overflows in {dtype}: take --dtype bfloat16 or float32"
        if dtype == "float16"
        else f"its weights are too large to compute with in {dtype}, or damaged"
    )
    raise UserError(f"{name} gives numbers that are not finite (NaN or infinity) on a short text: {advice}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
