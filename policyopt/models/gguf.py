"""Models in one file of llama.cpp (GGUF), made into folders that can be trained."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from policyopt.errors import UserError, first_line
from policyopt.models.kept import kept

SUFFIX = ".gguf"

_LOG = logging.getLogger("policyopt")


def from_gguf(file: Path) -> Path:
    """The folder of the model in a ``.gguf`` file, its weights unpacked to float32; made once, then kept.

    transformers reads the file, with the package ``gguf`` (the extra ``real``). Raises
    :class:`~policyopt.errors.UserError` for a file that is not there, a package that is missing, and a file that
    transformers cannot read.
    """
    if not file.is_file():
        raise UserError(f"--model {file}: there is no such file")
    with file.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise UserError(f"--model {file}: this is no GGUF file; give a folder, a hub id, or a .gguf file")
        content.seek(0)
        key = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=8)).hexdigest()

    def unpack(folder: Path) -> None:
        place, name = str(file.absolute().parent), file.name
        _LOG.info("unpacking %s (once; it is kept in the cache)", name)
        try:
            with _read_once(), contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
                tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
                model = AutoModelForCausalLM.from_pretrained(
                    place, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
                )
        except ImportError:
            raise UserError(
                f"--model {file}: reading it takes the package gguf: pip install 'policyopt[real]'"
            ) from None
        except Exception as error:  # transformers raises a dozen kinds for a file that it cannot read
            raise UserError(f"--model {file}: transformers cannot read it ({first_line(error)})") from error
        # Unpacked weights are plain ones; the note of where they came from would forbid writing them.
        model.config.__dict__.pop("quantization_config", None)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return kept(f"{file.stem}-{key}", unpack, f"the model of {file.name}")


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """For a while the package ``gguf`` remembers what it has read: transformers asks for the head of the file three times, and
    for the table of names once for each module of the model, which takes longer than the weights."""
    import gguf

    own = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, made in own.items():
        setattr(gguf, name, functools.cache(made))
    try:
        yield
    finally:
        for name, made in own.items():
            setattr(gguf, name, made)
