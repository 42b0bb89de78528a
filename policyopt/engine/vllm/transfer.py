"""How weights come into a worker of vLLM: read from a folder that trainer and worker both see.

vLLM loads this module itself, in each of its processes, by the entry point ``vllm.general_plugins``; nothing else imports it.
The wire is that of vLLM's own backend ``disk`` (newer than 0.32): one message with the path of a folder of safetensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)


@dataclass
class Init(WeightTransferInitInfo):
    """Nothing has to be agreed on."""


@dataclass
class Update(WeightTransferUpdateInfo):
    """Where a model lies."""

    path: str
    """Absolute path of a folder that holds all of it as safetensors."""


class FolderTransfer(WeightTransferEngine[Init, Update]):
    """Weights in the layout of a checkpoint, from the files of a folder. Raises ``ValueError`` for a folder without any."""

    init_info_cls = Init
    update_info_cls = Update

    def init_transfer_engine(self, init_info: Init) -> None:
        """Nobody has to be met."""

    def start_weight_update(self) -> None:
        """Layers take their weights one by one, as when a model is loaded."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Update) -> None:
        """Load all of a folder."""
        self.model.load_weights(tensors(Path(update_info.path)))

    def finish_weight_update(self) -> None:
        """Layers lay their weights out for their kernels; those that share a weight with an earlier one too.

        vLLM 0.32 leaves the latter out: on a CPU an output head that is tied to the embeddings has a packed copy of
        them, which stayed as it was, under the new version and with a checksum that had changed.
        """
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        seen: set[int] = set()
        for layer in self.model.modules():
            mine = {id(p) for p in layer.parameters(recurse=False)}
            if mine & seen and hasattr(getattr(layer, "quant_method", None), "process_weights_after_loading"):
                layer.quant_method.process_weights_after_loading(layer)
            seen |= mine

    def shutdown(self) -> None:
        """There is nothing to give back."""

    @staticmethod
    def trainer_send_weights(*_: object) -> None:
        """Trainers write a folder instead."""
        raise NotImplementedError


def tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a folder by name, one at a time. Raises ``ValueError`` where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no safetensors; trainer and vLLM have to see the same folder")
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                yield name, opened.get_tensor(name)
