"""What vLLM calls in each of its processes, by the entry point ``vllm.general_plugins``."""

from __future__ import annotations

TRANSFER = "policyopt"
"""The name that vLLM knows :class:`~policyopt.engine.vllm.transfer.FolderTransfer` by."""


def register() -> None:
    """Make the transfer known to vLLM; a second time changes nothing."""
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory

    try:
        WeightTransferEngineFactory.register_engine(TRANSFER, "policyopt.engine.vllm.transfer", "FolderTransfer")
    except ValueError:  # it is known
        pass
