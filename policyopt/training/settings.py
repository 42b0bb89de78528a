"""What a run can be told in Python: the fields of its configuration, with the types that a caller may give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

from policyopt.engine.settings import Cluster, Server, Vllm
from policyopt.models.adapters import LoRA
from policyopt.models.chunked import Chunks
from policyopt.models.load import DTypeName, Policy
from policyopt.models.memory import Attention
from policyopt.models.prompting import Prompting
from policyopt.sources.episodes import Episodes
from policyopt.training.config import Checkpoints, Evaluation, Judging, Optim, Stopping, Tracking


class Table(Protocol):
    """Rows by columns, as pandas, polars and pyarrow have them."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The table, as Arrow hands it on."""


class Dataset(Protocol):
    """Rows of the library datasets."""

    def with_format(self, *args: Any, **options: Any) -> Any:
        """The same rows as another kind of object."""


ModelLike: TypeAlias = str | Path | Policy | tuple[Any, Any]
"""A folder, a hub id or ``"embedded"``; a policy, or a pair (model, tokenizer) of transformers. Objects stay as they are:
what is trained is a copy."""
Rows: TypeAlias = str | Path | Sequence[str | Path | Mapping[str, Any]] | Mapping[str, float] | Dataset | Table
"""A task or files by name, several, or a mixture with weights; or the rows themselves: a list of mappings, a dataset, a
table."""
JudgeLike: TypeAlias = str | Path | Callable[..., Any] | Sequence[Any] | Mapping[str, Any]
"""A judge by its name, a function, several of these, or a mapping of names to these or to pairs (judge, weight)."""
Fields: TypeAlias = Mapping[str, Any]
"""Some fields of a group, by name."""


class Settings(TypedDict, total=False):
    """The fields of :class:`~policyopt.training.config.TrainConfig`, which says what each is; all but the recipe."""

    model: ModelLike
    teacher: ModelLike | None
    roles: Mapping[str, ModelLike]
    task: Rows
    columns: str | Mapping[str, str] | None
    eval_task: Rows | None
    judge: JudgeLike | None
    judge_options: Mapping[str, Any]
    env: str | None
    env_options: Mapping[str, Any]
    episodes: Episodes | Fields
    prior: str | Path | None
    prompting: Prompting | Fields
    steps: int
    batch: int
    max_tokens: int | None
    long_prompts: Literal["refuse", "skip"]
    engine: Literal["local", "ray", "tinker"]
    ray: Cluster | Fields
    tinker: Server | Fields
    sampler: Literal["own", "vllm"]
    vllm: Vllm | Fields
    seed: int
    out: str | Path | None
    staleness: int
    micro_batch: int | None
    device: str
    dtype: DTypeName
    log_samples: int
    lora: bool
    adapters: LoRA | Fields
    attention: Attention | None
    gradient_checkpointing: bool
    offload: bool
    compile: bool
    chunks: Chunks | Fields
    optim: Optim | Fields
    eval: Evaluation | Fields
    checkpoints: Checkpoints | Fields
    stopping: Stopping | Fields
    track: str | Path | Sequence[str | Path]
    tracking: Tracking | Fields
    push_to_hub: str | None
    hub_public: bool
    judging: Judging | Fields
