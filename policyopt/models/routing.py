"""Mixtures of experts: which experts a token is sent to is recorded, and taken again where the same text is read later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from policyopt.errors import UserError
from policyopt.models.proof import near, probe_ids

Seen = Callable[[Tensor, Any], Any]
"""Called with scores [M, E] and the ``topk`` over them; gives what stands in its place."""

Within = Callable[[slice, int], AbstractContextManager[Any]]

_TOKENS = 5  # of the probe


@dataclass(frozen=True)
class Routers:
    r"""The routers of a mixture of experts, found by what they do: modules that take the k best of E scores of each token.

    A router scores the experts, takes the k best, and weighs them by their scores. Here its own code runs, and the second
    step alone is exchanged: for a set S that was recorded earlier, the weights are

    .. math:: g_e = \frac{s_e}{\sum_{f \in S} s_f}\ (e \in S)

    (or what else the family makes of the scores s of the experts in S) from the scores now, so that the gradient reaches
    the router through them. That is routing replay, R2 and R3 of arXiv:2512.01374. A record of a token has R = (layers x k)
    whole numbers: 1 + the number of the expert, 0 where the router chooses by itself.
    """

    modules: tuple[nn.Module, ...]
    """In the order in which a token passes them."""
    experts: int
    """E."""
    top_k: int
    """k."""

    @property
    def width(self) -> int:
        """R, numbers in the record of a token."""
        return len(self.modules) * self.top_k

    @property
    def dtype(self) -> torch.dtype:
        """The smallest that holds a record."""
        return torch.uint8 if self.experts < 256 else torch.int16

    def recording(self) -> Choices:
        """While it lasts, what the routers choose is written down."""
        return Choices(self, None)

    def replaying(self, routes: Tensor | None) -> AbstractContextManager[Any]:
        """While it lasts, the model is called once, on tokens [B, Q], and its routers take the experts of records
        [B, Q, R]; ``None`` leaves them alone."""
        return nullcontext() if routes is None else Choices(self, routes)

    def table(self, routes: Tensor) -> Tensor:
        """[N, S, R] the records of the first S tokens of each text, from the column ``routes`` [N, S x R]."""
        return routes.view(len(routes), -1, self.width)

    def within(self, routes: Tensor) -> Within:
        """What to call the model within, on the first ``width`` tokens of some of the texts that have records."""
        table = self.table(routes)

        def replaying(rows: slice, width: int) -> AbstractContextManager[Any]:
            mine = table[rows]
            return self.replaying(records_at(mine, torch.zeros(len(mine), dtype=torch.long, device=mine.device), width))

        return replaying


class Choices(AbstractContextManager["Choices"]):
    """The routers of a model under observation, for one call of the model or several."""

    def __init__(self, routers: Routers, given: Tensor | None) -> None:
        self.routers, self.records = routers, given
        self.given = None if given is None else given.reshape(-1, len(routers.modules), routers.top_k).long() - 1
        self.seen: dict[int, Tensor] = {}
        self._left = ExitStack()

    def __enter__(self) -> Choices:
        self._left.callback(_NOW.reset, _NOW.set(self))
        for layer, module in enumerate(self.routers.modules):
            self._left.callback(_replace_forward(module, _observed(module.forward, self._act(layer))))
        return self

    def __exit__(self, *error: object) -> None:
        self._left.close()

    def _act(self, layer: int) -> Seen:
        def choose(scores: Tensor, best: Any) -> Any:
            if best[1].shape[-1] != self.routers.top_k or scores.shape[-1] != self.routers.experts:
                return best  # among groups of experts
            if self.given is not None:
                given = self.given[:, layer].to(scores.device)
                taken = torch.where(given < 0, best[1], given)
                best = torch.return_types.topk((scores.gather(-1, taken), taken))
            self.seen[layer] = best[1]
            return best

        return choose

    def routes(self, batch: int) -> Tensor:
        """[B, Q, R] the records of the last call of the model, on B texts."""
        found = torch.stack([self.seen[layer] for layer in range(len(self.routers.modules))], 1) + 1
        return found.to(self.routers.dtype).view(batch, -1, self.routers.width)


_NOW: ContextVar[Choices | None] = ContextVar("choices", default=None)


def again() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What goes around a layer that is passed again in backward, at its first pass and at the second, which has to take
    the experts of the first; ``context_fn`` of :func:`torch.utils.checkpoint.checkpoint`."""
    now = _NOW.get()
    return nullcontext(), nullcontext() if now is None else Choices(now.routers, now.records)


def find_routers(backbone: Any, vocab: int) -> Routers:
    """The routers of a model, proved on a probe: experts that were recorded give the same hidden states, and others are
    taken where others are given.

    Raises :class:`~policyopt.errors.UserError` for a model without experts, and for one whose choice cannot be exchanged.
    """
    name = type(backbone).__name__
    config: Any = backbone.config.get_text_config()
    top_k = getattr(config, "num_experts_per_tok", None)
    if not top_k:
        raise UserError(
            f"--recipe.source.routing-replay: {name} is no mixture of experts (its configuration has no "
            "num_experts_per_tok): leave it out"
        )
    ids = probe_ids(_TOKENS, vocab, next(backbone.parameters()).device)
    routers = _choosing(backbone, ids, top_k)
    if routers is None or not _proven(backbone, ids, routers):
        raise UserError(
            f"--recipe.source.routing-replay: {name} chooses its experts in a way that cannot be taken again here (known to "
            "work: Qwen3-MoE, Mixtral, OLMoE, DeepSeek-V3, gpt-oss): leave it out"
        )
    return routers


@torch.no_grad()
def _choosing(backbone: Any, ids: Tensor, top_k: int) -> Routers | None:
    """The innermost modules in which the k best of as many scores are taken of each token; ``None`` where there are none, or
    unlike ones."""
    found: dict[nn.Module, int] = {}
    within: list[nn.Module] = []

    def see(scores: Tensor, best: Any) -> Any:
        if best[1].shape[-1] == top_k and len(scores) == ids.numel():
            found[within[-1]] = max(found.get(within[-1], 0), scores.shape[-1])
        return best

    def entered(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*args: Any, **keywords: Any) -> Any:
            within.append(module)
            try:
                return forward(*args, **keywords)
            finally:
                within.pop()

        return inside

    with ExitStack() as left:
        for module in backbone.modules():
            left.callback(_replace_forward(module, entered(module, module.forward)))
        left.enter_context(_Watch(see))
        backbone(input_ids=ids, use_cache=False)
    sizes = set(found.values())
    return Routers(tuple(found), sizes.pop(), top_k) if len(sizes) == 1 else None


@torch.no_grad()
def _proven(backbone: Any, ids: Tensor, routers: Routers) -> bool:
    def read(choices: Choices) -> tuple[Tensor, Tensor]:
        with choices:
            hidden: Tensor = backbone(input_ids=ids, use_cache=False).last_hidden_state
        return hidden, choices.routes(1)

    try:
        own, routes = read(routers.recording())
        same, _ = read(Choices(routers, routes))
        others = (routes.long() % routers.experts + 1).to(routes)  # the next expert in the place of each
        other, taken = read(Choices(routers, others))
    except Exception:  # whatever a model raises whose routers are not of this kind
        return False
    changed = routers.top_k == routers.experts or not torch.allclose(other, own)
    return near(same, own) and torch.equal(taken, others) and changed


# What a module does, from outside -----------------------------------------------------------------------------------


class _Watch(TorchFunctionMode):
    def __init__(self, see: Seen) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is not torch.topk and func is not torch.Tensor.topk:
            return out
        scores: Tensor = args[0] if args else (kwargs or {})["input"]
        return self.see(scores, out) if scores.dim() == 2 else out


def _observed(forward: Callable[..., Any], see: Seen) -> Callable[..., Any]:
    def observed(*args: Any, **keywords: Any) -> Any:
        with _Watch(see):
            return forward(*args, **keywords)

    return observed


def _replace_forward(module: Any, forward: Callable[..., Any]) -> Callable[[], None]:
    """Give a module another forward. Returns what puts the old one back."""
    own = module.__dict__.get("forward")
    module.forward = forward

    def back() -> None:
        if own is None:
            del module.forward
        else:
            module.forward = own

    return back


# Records of texts ----------------------------------------------------------------------------------------------------


def records_at(routes: Tensor, start: Tensor, width: int) -> Tensor:
    """[N, width, R] the records of ``width`` tokens of each text from place ``start`` [N] on; 0 beyond the records
    [N, S, R]."""
    place = start[:, None] + torch.arange(width, device=routes.device)
    last = max(0, routes.shape[1] - 1)
    rows = torch.arange(len(routes), device=routes.device)[:, None]
    return routes[rows, place.clamp(max=last)].masked_fill((place > last)[:, :, None], 0)
