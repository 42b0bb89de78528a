"""Models merged into one, weight by weight."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from policyopt.errors import UserError
from policyopt.files import appearing, read_json
from policyopt.models.merging import How, Merging


def merged(
    models: Sequence[Mapping[str, Tensor]], *, how: How = "changes", keep: float = 1.0, scale: float = 1.0
) -> dict[str, Tensor]:
    r"""The weights of models as one: those of the first and of others that were made from it, by name, all of the same shapes.

    .. math:: \text{average: } \frac1K\sum_k\theta_k,\qquad \text{changes: } \theta_1 + s\sum_{k>1}\mathrm{top}_\rho(\theta_k - \theta_1),\qquad
              \text{ties: } \theta_1 + s\,\mathrm{mean}_{k:\,\mathrm{sign}\,\delta_k = \mathrm{sign}\sum_j\delta_j}\,\delta_k

    ``top`` keeps of each tensor the share ``keep`` (rho) of the entries that changed most, delta is what it leaves, and ``scale`` is s. With one
    model beside the first, "changes" is DLER's update-selective merge (arXiv:2510.15110: 0.25 and 0.7), with all entries task arithmetic (arXiv:2212.04089);
    "average" is Kimi k1.5's (arXiv:2501.12599); "ties" elects a sign for each entry and averages those that have it (arXiv:2306.01708). Sums are
    made in float32 at least; what comes out has the dtype of the first.
    """
    first, *others = models
    return {name: _merged(x, [other[name] for other in others], how, keep, scale) for name, x in first.items()}


def _merged(first: Tensor, others: Sequence[Tensor], how: How, keep: float, scale: float) -> Tensor:
    if not first.is_floating_point():
        return first
    wide = torch.promote_types(first.dtype, torch.float32)
    base, rest = first.to(wide), [x.to(wide) for x in others]
    if how == "average":
        return ((base + sum(rest)) / (1 + len(rest))).to(first.dtype)
    deltas = torch.stack([_largest(x - base, keep) for x in rest])
    if how == "changes":
        change = deltas.sum(0)
    else:
        agreed = (deltas.sign() == deltas.sum(0).sign()) & (deltas != 0)
        change = (deltas * agreed).sum(0) / agreed.sum(0).clamp(min=1)
    return (base + scale * change).to(first.dtype)


def _largest(delta: Tensor, keep: float) -> Tensor:
    """The share ``keep`` of the entries with the largest absolute values; 0 elsewhere."""
    if keep >= 1:
        return delta
    flat = delta.flatten()
    chosen = flat.abs().topk(round(keep * flat.numel())).indices
    return torch.zeros_like(flat).index_copy(0, chosen, flat[chosen]).view_as(delta)


# Folders -------------------------------------------------------------------------------------------------------------


def merge_folders(folders: Sequence[Path], out: Path, merging: Merging) -> int:
    """Write what :func:`merged` makes of the models of some folders; configuration and tokenizer are those of the first one. Returns how
    many weights that are. Of each model one tensor is in memory at a time; the folder appears whole or not at all.

    Raises :class:`~policyopt.errors.UserError` for a folder that holds no model in safetensors, or adapters alone, for models that do
    not match in the names and shapes of their tensors or in their tokenizers, for weights that are not finite, and where ``out`` exists.
    """
    if out.exists():
        raise UserError(f"--out {out} exists already: name a new folder")
    keep, scale = (1.0 if x is None else x for x in (merging.keep, merging.scale))
    places = [_places(folder) for folder in folders]
    for folder, place in zip(folders[1:], places[1:], strict=True):
        _need_match(folders[0], places[0], folder, place)
    _need_one_vocabulary(folders)
    count = 0
    with appearing(out) as whole:
        for item in folders[0].iterdir():
            if item.is_file() and item.suffix not in (".safetensors", ".bin", ".pt"):
                shutil.copy2(item, whole / item.name)
        for file in dict.fromkeys(places[0].values()):
            found: dict[str, Tensor] = {}
            for name in (n for n, f in places[0].items() if f == file):
                pieces = [{name: _tensor(place[name], name)} for place in places]
                found |= merged(pieces, how=merging.way, keep=keep, scale=scale)
                count += found[name].numel()
            save_file({n: x.contiguous() for n, x in found.items()}, whole / file.name, metadata={"format": "pt"})
    return count


def _places(folder: Path) -> dict[str, Path]:
    """The file of each tensor of the model in a folder."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    files = [f for f in files if not f.name.startswith("adapter_")]
    if not files:
        adapters = folder.is_dir() and (folder / "adapter_config.json").is_file()
        why = (
            "holds adapters alone: save the model with them merged in" if adapters else "holds no model in safetensors"
        )
        raise UserError(f"{folder} {why}; expected the folder of a model, such as runs/NAME/model")
    found: dict[str, Path] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                found |= dict.fromkeys(opened.keys(), file)
        except Exception as error:  # the package raises its own
            raise UserError(f"{file} is no file of safetensors: {error}") from error
    return found


def _tensor(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as opened:
        found: Tensor = opened.get_tensor(name)
    if found.is_floating_point() and not bool(found.isfinite().all()):
        raise UserError(f"{file}: {name} holds NaN or infinity; such a model cannot be merged")
    return found


def _need_match(a: Path, mine: Mapping[str, Path], b: Path, theirs: Mapping[str, Path]) -> None:
    for name in sorted(mine.keys() ^ theirs.keys()):
        has, lacks = (a, b) if name in mine else (b, a)
        raise UserError(f"{a} and {b} are not of one kind: {has} has {name}, {lacks} has not")
    for name, file in mine.items():
        with safe_open(file, framework="pt") as one, safe_open(theirs[name], framework="pt") as other:
            shapes = [opened.get_slice(name).get_shape() for opened in (one, other)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{a} and {b} are not of one kind: {name} is {shapes[0]} there and {shapes[1]} here")


def _need_one_vocabulary(folders: Sequence[Path]) -> None:
    first, *others = folders
    words = _vocabulary(first)
    for other in others:
        if _vocabulary(other) != words:
            raise UserError(f"{first} and {other} have other tokenizers: their weights mean different tokens")


def _vocabulary(folder: Path) -> str | None:
    file = folder / "tokenizer.json"
    return json.dumps(read_json(file, 1 << 28).get("model"), sort_keys=True) if file.is_file() else None
