"""Where the time and the memory of a run go, against what its arithmetic alone would take."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from policyopt.engine.local.engine import LocalEngine
from policyopt.engine.local.floor import Products, backbone_products, head_products, settle
from policyopt.models.causal import backbone_of, base_of
from policyopt.models.forest import alike
from policyopt.models.places import pack
from policyopt.rows import Batch
from policyopt.spans import Meter, measured
from policyopt.spans import Path as Span


class Profile:
    """Counts what passes through the models of an engine, and reads the clock beside it."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.passed = Counter[str]()
        self.needed = {"draw": 0, "update": 0}
        self.before = peak_memory(engine.device, reset=True)

    def read(self) -> dict[str, float]:
        """``seconds``; what passed backbones: ``tokens``, those of them that are learned from (``learned``), ``calls``; the
        tokens that the sampler counts (``sampled``); ``rows``, the hidden states that the head took, and ``learned_rows``."""
        settle(self.engine.device)
        sampler, rows = self.engine.__dict__.get("sampler"), Counter[bool]()
        for (role, learns), n in self.engine.passes.items():
            rows[learns] += n if role != "critic" else 0  # which has no distribution to work out
        return {
            "seconds": time.perf_counter(),
            **{name: self.passed[name] for name in ("tokens", "learned", "calls")},
            "sampled": 0 if sampler is None else sampler.computed,
            "rows": rows.total() + (0 if sampler is None else sampler.drawn),
            "learned_rows": rows[True],
        }

    @contextmanager
    def watching(self) -> Iterator[Meter]:
        """Count until the end of a block."""
        engine: Any = self.engine
        backbones = {id(b): b for b in (backbone_of(base_of(m)) for m in self.models())}
        if engine.critic is not None:
            backbones |= {0: engine.critic.backbone}
        hooks = [b.register_forward_pre_hook(self._pass, with_kwargs=True) for b in backbones.values()]
        engine.annotate, engine.update = self._seeing("draw", engine.annotate), self._seeing("update", engine.update)
        try:
            with measured(Meter(self.read)) as meter:
                yield meter
        finally:
            del engine.annotate, engine.update
            for hook in hooks:
                hook.remove()

    def models(self) -> list[Any]:
        """The policy and the roles; where those are the policy without adapters, it comes again."""
        return [self.engine.policy.model, *(role.model for role in self.engine.roles.values())]

    def _pass(self, _: nn.Module, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        ids = next((x for x in (*args, keywords.get("input_ids")) if x is not None), None)
        tokens = keywords["inputs_embeds"].shape[:-1].numel() if ids is None else ids.numel()
        self.passed.update(calls=1, tokens=tokens, learned=tokens if torch.is_grad_enabled() else 0)

    def _seeing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def seen(*args: Any) -> Any:
            self.needed[name] += distinct_tokens(next(x for x in args if isinstance(x, Batch)))
            return call(*args)

        return seen

    def found(self, meter: Meter) -> dict[str, Any]:
        """What was counted, as plain data."""
        model = base_of(self.engine.policy.model)
        products = backbone_products(backbone_of(model)), head_products(model.get_output_embeddings())
        spans = [work(meter, path, *products, self.back()) for path in [*meter.found] if path]
        drawing = [row for row in spans if row["path"][:2] == ["step", "draw"] and "annotate" not in row["path"]]
        learning = [row for row in spans if row["path"][-2:] == ["update", "backbone"]]
        tokens = {
            name: {"needed": self.needed[name], "computed": sum(row["tokens"] for row in rows)}
            for name, rows in (("draw", drawing), ("update", learning))
        }
        machine = {"device": str(self.engine.device), "threads": torch.get_num_threads()}
        machine |= {"dtype": str(products[0].dtype).removeprefix("torch.")}
        return machine | {"steps": meter.times["step",], "spans": spans, "tokens": tokens, "memory": self.memory()}

    def back(self) -> float:
        """Products in backward for one in forward: those that lead on to the inputs, and those by weights that are trained."""
        trained = {id(p) for p in self.engine.weights.parameters["policy"].values()}
        sizes = {id(p): p.numel() for p in self.engine.policy.model.parameters() if p.dim() > 1}
        return 1.0 + sum(n for i, n in sizes.items() if i in trained) / sum(sizes.values())

    def memory(self) -> dict[str, int]:
        """Bytes at the peak, by what they are for; ``rest`` is activations, caches and what else was there at the time."""
        weights, critic = self.engine.weights, self.engine.critic
        models = [*self.models(), *([] if critic is None else [critic])]
        moved = [
            p for by_role in (weights.parameters, weights.masters) for named in by_role.values() for p in named.values()
        ]
        moments = [x for o in weights.optimizers.values() for s in o.state.values() for x in s.values()]
        found = {
            "parameters": size(*(p for m in models for p in m.parameters()), *moved),
            "gradients": size(*moved),
            "optimiser": size(*(x for x in moments if isinstance(x, Tensor))),
        }
        if self.engine.device.type != "cuda":
            found = {"process": max(0, self.before - found["parameters"]), **found}
        peak = peak_memory(self.engine.device)
        return {**found, "rest": max(0, peak - sum(found.values())), "peak": peak}


def work(meter: Meter, path: Span, backbone: Products, head: Products, back: float) -> dict[str, Any]:
    """A piece of work: its own seconds, what passed in it, and what its products alone would take."""
    own, name = meter.found[path], path[-1]
    tokens = max(own["tokens"], own["sampled"])
    flops, floor = tokens * backbone.cost, backbone.seconds(tokens, own["calls"] or meter.times[path])
    if name == "head":  # its rows are counted in it, or just before
        rows = own["rows"] + meter.found[path[:-1]]["rows"]
        flops, floor = rows * head.cost, head.seconds(rows, meter.times[path])
    elif name == "backward":  # of all that was learned from beside it
        beside = [sums for other, sums in meter.found.items() if other[: len(path) - 1] == path[:-1]]
        learned, calls, rows = (sum(sums[key] for sums in beside) for key in ("learned", "calls", "learned_rows"))
        flops = back * (learned * backbone.cost + rows * head.cost)
        floor = back * (backbone.seconds(learned, calls) + head.seconds(rows, meter.times[path]))
    return {
        "path": list(path), "seconds": own["seconds"], "calls": meter.times[path], "tokens": int(tokens), "flops": flops,
        "floor": floor,
    }  # fmt: skip


def distinct_tokens(batch: Batch) -> int:
    """Tokens that a model has to read for a batch: those that rows have in common from their first token on are one, and the
    last of a row predicts nothing."""
    present = batch.mask if batch.present is None else batch.present
    length = (batch.prompt_mask.sum(1) + present.sum(1)).long() - 1
    length = length.clamp(min=0).cpu().numpy()
    _, shared = alike(pack(batch)[0].cpu().numpy(), length)
    return int(length.sum() - shared.sum())


def size(*tensors: Tensor) -> int:
    """Bytes of tensors, each once."""
    return sum(x.numel() * x.element_size() for x in {id(x): x for x in tensors}.values())


def peak_memory(device: torch.device, reset: bool = False) -> int:
    """The most bytes that were taken, by tensors of a GPU or by this process (Linux; 0 where that is not known), since the last
    ``reset``."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) << 10
    return 0


@contextmanager
def profiled(engine: LocalEngine, file: Path) -> Iterator[None]:
    """Write where time and memory go in a block, as JSON; see :class:`Profile`."""
    profile = Profile(engine)
    with profile.watching() as meter:
        yield
    file.write_text(json.dumps(profile.found(meter), indent=1) + "\n")
