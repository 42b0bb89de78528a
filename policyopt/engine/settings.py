"""What engines and samplers are told: what moves the parameters, where they run and how many there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from policyopt.part import Count, Whole, part

OptimizerName = Literal["adamw", "lion", "muon", "adamw-8bit"]
"""What moves the parameters."""


@part
class Cluster:
    """Processes of the engine ``ray``."""

    trainers: Count = 1
    """Trainer ranks (engine ``ray``); the model, its gradient and its optimiser are sharded over them."""
    samplers: Count = 1
    """Processes that draw (engine ``ray``), each with a whole copy of the model."""
    address: str | None = None
    """A Ray cluster to join, ``host:port`` or ``auto``; unset: one that is started here and ends with the run."""
    continue_in_flight: bool = False
    """Hand new weights to the samplers while responses are under way (engine ``ray``): they go on with them, and each token
    notes which ones wrote it. Unset: a batch is drawn with the weights at which its draw began. Read with ``--staleness``."""


@part
class Server:
    """A server of the Tinker protocol (engine ``tinker``)."""

    base_url: str | None = None
    """Address of a Tinker server, such as http://127.0.0.1:8000. The key comes from the environment (TINKER_API_KEY)."""


@part
class Vllm:
    """How vLLM draws (``sampler`` vllm)."""

    url: str | None = None
    """Address of a vLLM server, such as http://127.0.0.1:8000; unset: vLLM runs in this process. A key comes from the
    environment (VLLM_API_KEY)."""
    rows: Count = 256
    """How many responses are drawn at once."""
    memory: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of a GPU's memory that vLLM takes in this process; the rest is left for training."""
    parallel: Count = 1
    """Over how many GPUs vLLM splits the model in this process."""
    sleep: bool = False
    """Let vLLM give its memory back while the trainer computes."""
    share: Path | None = None
    """Folder through which weights are handed over; a server has to see it under the same path. Unset: a folder in the
    memory of this machine."""
    check_every: Whole = 1
    """After every so many updates, prove by checksums and by a text that vLLM has the trainer's weights; 0: never."""
