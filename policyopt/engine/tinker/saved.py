"""What a server keeps of a run, and how it comes here: where a checkpoint lies, and the adapters as a folder."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

from safetensors import safe_open

from policyopt.engine.tinker.link import Link
from policyopt.errors import UserError
from policyopt.files import appearing, read_json
from policyopt.models.adapters import CONFIG, LoRA

FILE = "server.json"
"""What says where the weights lie that are on a server."""
TENSORS = "adapter_model.safetensors"
MOST = 8 << 30
"""Bytes of adapters."""


def note(folder: Path, link: Link, model: str, rank: int, path: str) -> None:
    """Write down where weights lie. The key is no part of it."""
    said = {"base_url": link.url, "model": model, "rank": rank, "path": path}
    (folder / FILE).write_text(json.dumps(said, indent=1))


def noted(folder: Path) -> dict[str, Any]:
    """What :func:`note` wrote. Raises ``KeyError`` where it is not there, and :class:`~policyopt.errors.UserError` for a file
    that says something else."""
    if not (folder / FILE).is_file():
        raise KeyError(FILE)
    said: dict[str, Any] = read_json(folder / FILE)
    if not isinstance(said.get("path"), str):
        raise UserError(f"{folder / FILE}: it does not say where the weights lie ('path')")
    return said


def save(folder: Path, link: Link, tokenizer: Any, model: str, lora: LoRA, path: str) -> None:
    """Write the adapters that a server has saved under a path as a folder, in the format of PEFT, with the tokenizer; where the
    server does not give them away, a folder that says where they are. It appears whole or not at all."""
    with appearing(folder) as whole:
        tokenizer.save_pretrained(whole)
        note(whole, link, model, lora.rank, path)
        archive = fetch(link, path)
        if archive is None or not unpack(archive, whole, model, lora):
            logging.getLogger(__name__).warning(
                f"{link.url} does not hand its weights out, so {folder} holds the tokenizer and {FILE}, which says where they are: {path}"
            )


def fetch(link: Link, path: str) -> bytes | None:
    """The archive of weights under a path ``tinker://RUN/[sampler_weights/]NAME``; None where the server gives none."""
    run, _, kind = path.removeprefix("tinker://").partition("/")
    for name in dict.fromkeys([kind, kind.rpartition("/")[2]]):
        try:
            answer = link.get(f"/api/v1/training_runs/{run}/checkpoints/{name}/archive")
            for _ in range(3):  # to the file itself, which may lie with somebody else
                place = answer.headers.get("location") if answer.is_redirect else None
                if place is None and "json" in answer.headers.get("content-type", ""):
                    place = answer.json().get("url")
                if not isinstance(place, str):
                    break
                answer = link.get(place.removeprefix(link.url))
        except Exception:  # whatever goes wrong, the weights are safe on the server
            continue
        if answer.status_code == 200 and len(answer.content) <= MOST:
            return bytes(answer.content)
    return None


def unpack(archive: bytes, folder: Path, model: str, lora: LoRA) -> bool:
    """Write the adapters in an archive into a folder, under their own names and nowhere else, with what PEFT has to know of them.
    Returns whether it held any."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            files = {Path(m.name).name: m for m in tar.getmembers() if m.isfile() and m.size <= MOST}
            for name in (TENSORS, CONFIG):
                if (member := files.get(name)) is not None and (data := tar.extractfile(member)) is not None:
                    (folder / name).write_bytes(data.read())
    except (tarfile.TarError, OSError, EOFError):
        return False
    if not (folder / TENSORS).is_file():
        return False
    with safe_open(folder / TENSORS, "pt") as tensors:
        modules = {name.split(".lora_")[0].rpartition(".")[2] for name in tensors.keys() if ".lora_" in name}  # noqa: SIM118
    there = (
        json.loads((folder / CONFIG).read_text())
        if (folder / CONFIG).is_file()
        else {"r": lora.rank, "lora_alpha": lora.alpha}
    )
    there |= {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": model}
    there["target_modules"] = there.get("target_modules") or sorted(modules)
    (folder / CONFIG).write_text(json.dumps(there, indent=1))
    return True
