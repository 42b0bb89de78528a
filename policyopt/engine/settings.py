"""What the engines beyond one process are told: where they run and how many there are."""

from __future__ import annotations

from policyopt.part import Count, part


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
