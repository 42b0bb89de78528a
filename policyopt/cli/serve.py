"""``policyopt serve``: a Tinker server on the local model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from policyopt.cli.common import need_model, options_of
from policyopt.data import need_task


@dataclass(frozen=True)
class ServeOptions:
    """Serve a model to clients of the tinker package: they train adapters on it and draw from them, here."""

    model: str = "embedded"
    """``embedded``, a local folder, or a hub id."""
    task: str = "chain_sum"
    """The task that the embedded model is warmed up for."""
    host: str = "127.0.0.1"
    """Address; one that others can reach needs a key in POLICYOPT_SERVE_TOKEN."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port; 0 takes a free one."""
    folder: str | None = None
    """Where sessions, models and checkpoints are kept; unset: beside the package's cache, a folder for each model."""
    queue: Annotated[int, Field(ge=1)] = 4096
    """How many requests may wait, or for their results to be fetched; more are told to come again."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``; auto takes a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Precision of the weights."""


def run(args: list[str]) -> int:
    """Serve until Ctrl-C. Returns the exit code."""
    options = options_of(ServeOptions(), args, "serve")
    from policyopt.serve.server import need_packages, serve, token_for

    token_for(options.host)
    if options.model == "embedded":
        need_task(options.task)
    need_model(options.model)
    need_packages()
    try:
        serve(
            lambda: _loaded(options), _folder(options), host=options.host, port=options.port, queue=options.queue,
            say=lambda line: print(line, flush=True),
        )  # fmt: skip
    except KeyboardInterrupt:  # the usual end of a server, which has put everything away by then
        pass
    print("ended: clients go on where they were once it runs again with this folder", flush=True)
    return 0


def _loaded(options: ServeOptions) -> tuple[Any, list[str]]:
    """The policy, and the names that clients may call it by; the first is where its tokenizer is found."""
    from policyopt.data import load_task
    from policyopt.errors import UserError
    from policyopt.models.adapters import holds_adapters
    from policyopt.models.load import load_policy
    from policyopt.training.process import need_one_process
    from policyopt.training.setup import place

    need_one_process()
    if options.model != "embedded" and holds_adapters(options.model):
        raise UserError(f"--model {options.model}: it holds adapters; give the model that they are for")
    name = options.model if options.model != "embedded" else place("embedded", load_task(options.task, heldout=1))
    name = str(Path(name).resolve()) if Path(name).is_dir() else name
    names = [name, *([options.model] if options.model != name else [])]
    return load_policy(name, dtype=options.dtype, device=options.device), names


def _folder(options: ServeOptions) -> Path:
    if options.folder is not None:
        return Path(options.folder)
    import re

    from policyopt import cache

    label = options.model if options.model != "embedded" else f"embedded-{options.task}"
    return cache.folder() / "serve" / re.sub(r"[^\w.-]+", "-", label).strip("-")
