"""Silence for a while what transformers shows of its own accord."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and warnings of transformers, but with those of downloads; afterwards as it was before.

    Also a decorator: ``@quiet()``.
    """
    level, bars, downloads = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        not are_progress_bars_disabled(),
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # of downloads as well
    _show(logging.is_progress_bar_enabled(), downloads)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
            # Adapters on tied embeddings are saved as two tensors; see models/adapters.py.
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
            yield
    finally:
        logging.set_verbosity(level)
        _show(bars, downloads)


def _show(bars: bool, downloads: bool) -> None:
    if bars:
        logging.enable_progress_bar()
    if downloads:
        enable_progress_bars()
    else:
        disable_progress_bars()
