"""The models in training that are in memory: the latest used, the others as they stood on the disk."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from policyopt.serve.refused import Refused, gone
from policyopt.serve.seats import ALPHA, Seats, Shape
from policyopt.serve.store import Kind, Saved, Store, write_tensors
from policyopt.serve.trained import Trained

IN_MEMORY = 16
"""Models in training, and saved weights that are drawn from."""


class Held:
    """Models in training by their ids. Only one thread calls it."""

    def __init__(self, store: Store, seats: Seats, base: str) -> None:
        self.store, self.seats, self._base = store, seats, base
        self._models: OrderedDict[str, Trained] = OrderedDict()
        self._snapshots: OrderedDict[str, tuple[Shape, Mapping[str, Tensor]]] = OrderedDict()

    def put(self, name: str, trained: Trained) -> None:
        """Take a model in, in the place of what stood under its id."""
        self.moved(name)
        self._take(name, trained)

    def _take(self, name: str, trained: Trained) -> None:
        self._models[name] = trained
        self._models.move_to_end(name)
        while len(self._models) > IN_MEMORY:
            old, model = next(iter(self._models.items()))
            self._rest(old, model)
            del self._models[old]

    def get(self, name: str) -> Trained:
        """A model. Raises :class:`~policyopt.serve.refused.Refused` for one whose weights are not here."""
        if name not in self._models:
            saved = self.store.live(name)
            if saved is None or not self.store.things["models"][name]["loaded"]:
                raise gone(
                    f"the weights of model {name} are not here: it was unloaded, or the server ended without saving them. Load "
                    "the last state that was saved (load_state_with_optimizer, or a new client from it)"
                )
            self._take(name, self.read(saved, optimiser=True))
        self._models.move_to_end(name)
        return self._models[name]

    def drop(self, name: str) -> None:
        """Let go of a model."""
        self._models.pop(name, None)
        self.moved(name)

    def moved(self, name: str) -> None:
        """A model is about to change: where it stood is not where it stands."""
        if saved := self.store.live(name):
            self.store.delete(saved)

    def rest(self) -> None:
        """Write down where every model stands."""
        for name, trained in self._models.items():
            self._rest(name, trained)

    def _rest(self, name: str, trained: Trained) -> None:
        self.write(name, "live", "state", trained, rest=trained.rest(gradient=True), overwrite=True)

    def write(
        self, model: str, kind: Kind, name: str, trained: Trained, request: Any = None, *,
        rest: Mapping[str, Tensor] | None = None, overwrite: bool = False,
    ) -> Saved:  # fmt: skip
        """Write a checkpoint as PEFT reads it, with the optimiser's state where it is given."""
        ttl = getattr(request, "ttl_seconds", None)
        if ttl is not None and ttl <= 0:
            raise Refused(f"ttl_seconds {ttl}: more than 0 is needed")

        def write(folder: Path) -> None:
            files = {"adapter_model": trained.adapters()} | ({} if rest is None else {"optimizer": rest})
            write_tensors(folder, **files)
            config = {
                "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": trained.shape.rank, "lora_alpha": ALPHA,
                "target_modules": self.seats.modules(trained.shape), "base_model_name_or_path": self._base,
            }  # fmt: skip
            (folder / "adapter_config.json").write_text(json.dumps(config))

        record = {
            "shape": vars(trained.shape), "seed": trained.seed, "steps": trained.steps,
            "base": self.store.things["models"][model]["base"], "metadata": getattr(request, "user_metadata", None),
            "expires": None if ttl is None else time.time() + ttl,
        }  # fmt: skip
        return self.store.save(model, kind, name, write, record, overwrite=overwrite)

    def read(self, saved: Saved, *, optimiser: bool) -> Trained:
        """A model from a checkpoint, with the state of its optimiser or a fresh one. Raises
        :class:`~policyopt.serve.refused.Refused` where it does not fit."""
        shape, rest = Shape(**saved.record["shape"]), saved.rest() if optimiser else None
        try:
            out = Trained(shape, saved.adapters(), self.seats.parameters(shape), seed=saved.record["seed"])
            if rest is not None:
                out.load(rest, saved.record["steps"])
        except KeyError as error:
            raise Refused(f"{saved.path} does not fit the model that is served here ({error.args[0]})") from error
        return out

    def snapshot(self, path: str) -> tuple[Shape, Mapping[str, Tensor]]:
        """Saved weights to draw from."""
        saved = self.store.find(path)
        key = f"{path} {saved.record['time']}"
        if key not in self._snapshots:
            model = self.read(saved, optimiser=False)
            self._snapshots[key] = model.shape, model.adapters()
        self._snapshots.move_to_end(key)
        while len(self._snapshots) > IN_MEMORY:
            self._snapshots.popitem(last=False)
        return self._snapshots[key]
