"""Models that are loaded already, where a configuration has the name of one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from policyopt.carried import of_session
from policyopt.models.prompting import Prompting

_SAMPLED = 1 << 16
"""Numbers of a tensor that its digest is made of, evenly spread."""


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer. What is done with them is done with copies."""

    model: Any
    tokenizer: Any
    prompting: Prompting | None = None

    def digests(self) -> dict[str, str]:
        """Digests of the weights and of the tokenizer, by which a resumed run sees a change."""
        weights = hashlib.blake2b(digest_size=16)
        for name, x in self.model.state_dict().items():
            weights.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
            some = x.detach().flatten()[:: max(1, x.numel() // _SAMPLED)]
            weights.update(some.double().cpu().numpy().tobytes())
        words = json.dumps([self.tokenizer.get_vocab(), getattr(self.tokenizer, "chat_template", None)], sort_keys=True)
        tokenizer = hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16)
        return {"weights": weights.hexdigest(), "tokenizer": tokenizer.hexdigest()}


def named(model: Any) -> Any:
    """A loaded model as configurations hold it, a name that carries it; anything else as it is.

    ``model`` is a :class:`~policyopt.models.load.Policy`, or a pair of a model and a tokenizer of transformers. Raises
    ``ValueError`` for another pair, and for a model alone.
    """
    if isinstance(model, tuple | list):
        pair = [*model]
    elif hasattr(model, "tokenizer") and hasattr(model, "model"):
        pair = [model.model, model.tokenizer]
    elif hasattr(model, "state_dict"):
        raise ValueError("a model needs its tokenizer: give both, (model, tokenizer)")
    else:
        return model
    if len(pair) != 2 or not hasattr(pair[0], "state_dict") or not hasattr(pair[1], "get_vocab"):
        raise ValueError(f"expected a pair (model, tokenizer), not {tuple(type(x).__name__ for x in pair)}")
    inner = pair[0].get_base_model() if hasattr(pair[0], "get_base_model") else pair[0]
    loaded = Loaded(pair[0], pair[1], getattr(model, "prompting", None))
    return of_session(f"model {type(inner).__name__}", loaded)
