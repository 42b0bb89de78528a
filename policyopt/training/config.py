"""What one run is: a recipe, a model, a task, and how long and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, ValidationError

from policyopt.aliases import ours
from policyopt.data.columns import written
from policyopt.engine.settings import Cluster, OptimizerName, Server, Vllm
from policyopt.errors import UserError, explain, nearest
from policyopt.files import read_yaml
from policyopt.hub import check_repository
from policyopt.judging.options import JudgeField
from policyopt.models.adapters import LoRA, holds_adapters
from policyopt.models.chunked import Chunks
from policyopt.models.memory import Attention
from policyopt.models.prompting import Prompting
from policyopt.options import UNNAMED
from policyopt.part import Count, Fraction, NonNegative, Positive, RoleName, Whole, part
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.sources.episodes import Episodes
from policyopt.sources.truncation import TopP
from policyopt.training.names import EvalTaskName, ModelName, Name, Place, TaskName
from policyopt.training.resolved import KEY as RESOLVED
from policyopt.training.trees import deep_update


def _each(names: Any) -> Any:
    """Several names, which commas may part too."""
    words = [names] if isinstance(names, str) else names
    return tuple(n for w in words for n in w.split(",") if n) if all(isinstance(w, str) for w in words) else words


def _repository(name: str | None) -> str | None:
    if name is not None:
        check_repository(name)
    return name


@part
class Optim:
    """The optimiser, one for the policy and one for the critic where there is one."""

    name: OptimizerName = "adamw"
    """``adamw``; ``lion``, with half of its memory: take an ``lr`` 3 to 10 times lower and a ``weight_decay`` as much higher;
    ``muon`` for the matrices of the layers and AdamW for the rest, at the ``lr`` of AdamW; ``adamw-8bit``, with moments of 8
    bits and the ``lr`` of AdamW, from the extra [8bit]."""
    lr: Positive | None = None
    """Learning rate; unset: 1e-4 for the embedded model, 1e-5 with LoRA, else 1e-6; a fifth of it with lion."""
    critic_lr: Positive | None = None
    """Learning rate of the critic; unset: ten times that of the policy."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Decay of AdamW's first and second moments; of lion the first weighs the momentum in a step, the second in what is kept."""
    eps: Positive = 1e-8
    """Added to the root of AdamW's second moment."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    clip_norm: Positive = 1.0
    """Gradients longer than this are scaled down to it."""
    warmup: Whole = 0
    """Steps over which the learning rate rises from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls to 0 by the last step, after the warm-up."""


@part
class Evaluation:
    """How held-out accuracy is measured."""

    every: Whole = 10
    """Evaluate every so many steps; 0 for before and after only."""
    prompts: Count = 256
    """How many held-out prompts, greedy; of a dataset at most a quarter, and of ``eval_task`` all, whatever stands here."""
    samples: Whole = 4
    """Sampled responses per prompt for pass@k, before and after training; 0 for none."""
    k: Count = 4
    """The k of pass@k; at most ``samples``."""
    temperature: Positive = 1.0
    """Temperature of the sampled responses."""
    top_p: TopP = 1.0
    """Sample them from the fewest likeliest tokens whose probability is at least this together; 1 samples from all."""


@part
class Checkpoints:
    """When the state of the run is saved."""

    every: Count = 20
    """Save every so many steps, and at the end."""
    keep: Count = 2
    """How many are kept."""
    best: Name | None = None
    """A metric of the log, such as eval/accuracy: the model of the step at which it was best is kept in ``best/``."""
    best_mode: Literal["max", "min"] = "max"
    """Whether more of it is better, or less."""


@part
class Stopping:
    """When a run ends before its last step."""

    metric: Name | None = None
    """A metric of the log, such as eval/accuracy: the run ends when it no longer improves; unset: at the last step."""
    patience: Count = 3
    """Measurements of it in a row without improvement, after which the run ends."""
    min_delta: NonNegative = 0.0
    """What counts as an improvement: more than so much."""
    mode: Literal["max", "min"] = "max"
    """Whether more of it is better, or less."""
    tokens: Count | None = None
    """End after the step in which the responses drawn so far come to so many tokens; unset: however many there are."""
    seconds: Positive | None = None
    """End after the step in which all steps together come to so many seconds; evaluations do not count."""


@part
class Tracking:
    """How the run is called in the trackers of ``track``."""

    project: Name = "policyopt"
    """The project that it belongs to."""
    name: Name | None = None
    """Unset: the name of its folder."""


@part
class Judging:
    """Limits on the judge."""

    timeout: Positive = 10.0
    """Seconds that one response may take; it has no reward when it takes longer."""
    memory_mb: Count = 2048
    """Memory of the judging process."""
    max_failed: Fraction = 0.2
    """The run stops when the judge fails on a larger share of a step's responses, or of an evaluation's."""
    workers: Count | None = None
    """Processes that judge at the same time, at most; further ones than the first start where judging is slow. Unset: one
    for each processor, up to 8."""


BATCH = 128
"""Responses per step, where nobody says how many."""


@part
class TrainConfig:
    """Everything that defines a run; written to ``config.yaml`` as resolved."""

    recipe: Recipe
    """The method, part by part."""
    model: ModelName = "embedded"
    """``embedded``, a local folder (of a model, or of adapters, which are then trained on), or a hub id."""
    teacher: ModelName | None = None
    """Model in the role of the teacher, where the recipe reads one: a local folder or a hub id; unset: for the embedded
    model, one that was warmed up on worked solutions alone."""
    roles: dict[RoleName, ModelName] = dataclasses.field(default_factory=dict, metadata={"option": "role"})
    """Models in the roles that the recipe reads, by name: folders or hub ids of models with the policy's vocabulary.
    ``reference`` replaces the policy of the start, ``teacher`` is what ``teacher`` above names."""
    task: TaskName = "chain_sum"
    """A built-in task, ``reasoning-gym:NAME``, a file (.jsonl, .json, .csv, .tsv, .parquet, .arrow), a pattern of files, a
    hub dataset (``owner/name:config@split``), or a mixture (``a.jsonl*2+b.jsonl``)."""
    columns: Annotated[str | None, BeforeValidator(written)] = None
    """Which column of a dataset is what, ``prompt=question,answer=gold``, ``completion=text,label=good``; unset: their names
    say it."""
    eval_task: EvalTaskName | None = None
    """Files or a dataset to measure on, whole, in the place of held-out rows; several are joined by ``+``."""
    judge: JudgeField = dataclasses.field(default=None, metadata={"repeated": ()})
    """Judge of a dataset: math, exact, number, regex, choice, llm, ``module:function`` or ``file.py:function``; several
    with weights, each as ``NAME=JUDGE:WEIGHT``; unset: the task's own."""
    judge_options: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"option": "judge-options", "plain": True}
    )
    """Options of the judge, such as ``tolerance=0.01``; of one of several ``NAME.tolerance=0.01``."""
    env: Name | None = None
    """What the policy acts in: a world of the library, ``my_env.py:Name``, ``gymnasium:ID``, ``openenv:URL``, ``verifiers:ID``,
    ``mcp:URL``, ``agent:my_agent.py:run``; unset: the task's own, or none."""
    env_options: dict[str, Any] = dataclasses.field(default_factory=dict, metadata={"option": "env-options"})
    """Options of the environment, NAME=VALUE, as it is made with."""
    episodes: Episodes = Episodes()
    """Limits of an episode in an environment."""
    prior: Name | None = None
    """Prior prompt before every question, training and held-out: think, plan, code, knowledge, examples, or a text of
    your own; unset: none."""
    prompting: Prompting = Prompting()
    """How prompts are written, where responses end, and what of them is read."""
    steps: Count = 60
    """Batches to train on."""
    batch: Count = BATCH
    """Responses per step; a multiple of the recipe's group size. Left at 128, it is as many below as groups and mini-batches make whole."""
    max_tokens: Count | None = None
    """Budget of a response in tokens; unset: what the task suggests."""
    long_prompts: Literal["refuse", "skip"] = "refuse"
    """What happens to prompts that leave no room for a response in the model's context, and to rows of which a text to learn
    from does not fit into it behind its prompt; prompts are never cut."""
    engine: Literal["local", "ray", "tinker"] = "local"
    """What runs the models: this process (and those that torchrun starts), a Ray cluster, or a server of the Tinker protocol."""
    ray: Cluster = dataclasses.field(default=Cluster(), metadata=UNNAMED)
    """Processes of the engine ``ray``."""
    tinker: Server = dataclasses.field(default=Server(), metadata=UNNAMED)
    """The server of the engine ``tinker``."""
    sampler: Literal["own", "vllm"] = "own"
    """What draws: the engine itself, or vLLM beside it."""
    vllm: Vllm = Vllm()
    """How vLLM draws."""
    seed: Whole = 0
    """All randomness of the run follows from it."""
    out: Path | None = None
    """Folder of the run; unset: ``runs/METHOD-TASK-seedSEED``, numbered when it exists."""
    staleness: Whole = 0
    """Train each batch so many steps after it was drawn."""
    micro_batch: Count | None = None
    """Rows per forward and backward; unset: as many as fit in 16,384 tokens. It never changes the update."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``; auto takes a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Precision that the models compute in; 16-bit weights have a float32 copy that the optimiser moves."""
    log_samples: Whole = 8
    """How many responses of each step are written to ``samples.jsonl``."""
    lora: bool = False
    """Train low-rank adapters; the reference is then the model without them."""
    adapters: LoRA = LoRA()
    """Size and place of the adapters, and how they are saved."""
    attention: Attention | None = None
    """How attention is computed; unset: what transformers takes for the model, mostly sdpa."""
    gradient_checkpointing: bool = False
    """Work activations out again in backward rather than keep them: less memory, about a third more time, the same update."""
    offload: bool = False
    """Keep the models beside the policy (reference, teacher) in main memory, and on the GPU only while they score: the same
    numbers. Those that a rollout program draws from stay there."""
    compile: bool = False
    """Compile what reads whole texts in training; it takes a minute or so at the start."""
    chunks: Chunks = Chunks()
    """How rows that are longer than a chunk are passed in training."""
    optim: Optim = Optim()
    """The optimiser."""
    eval: Evaluation = Evaluation()
    """Held-out evaluation."""
    checkpoints: Checkpoints = Checkpoints()
    """Saving and keeping."""
    stopping: Stopping = Stopping()
    """When to end early."""
    track: Annotated[tuple[Place, ...], BeforeValidator(_each)] = ()
    """Where the metrics go beside ``metrics.jsonl`` and TensorBoard: wandb, trackio, ``file.py:name``."""
    tracking: Tracking = Tracking()
    """How the run is called there."""
    push_to_hub: Annotated[Name | None, AfterValidator(_repository)] = None
    """Push the trained model to the hub under this id, ``owner/name``. The token comes from the environment (HF_TOKEN) or from
    ``hf auth login``."""
    hub_public: bool = False
    """Let everybody see it there; unset, a new repository is private."""
    judging: Judging = Judging()
    """Limits on the judge."""

    def __post_init__(self) -> None:
        self._check_places()
        whole = self.recipe.source.size * self.recipe.update.minibatches
        if self.batch == BATCH > whole:
            object.__setattr__(self, "batch", BATCH // whole * whole)
        if self.batch % self.recipe.source.size:
            raise ValueError(
                f"batch is {self.batch} responses, which is not a multiple of recipe.source.size "
                f"({self.recipe.source.size})"
            )
        if self.prompts < (least := self.recipe.source.least):
            raise ValueError(
                f"a step has {self.prompts} prompts (batch over recipe.source.size), and "
                f"{type(self.recipe.source).__name__} needs {least}: raise batch"
            )
        if self.prompts % self.recipe.update.minibatches:
            raise ValueError(
                f"a step has {self.prompts} prompts (batch over recipe.source.size), which recipe.update.minibatches "
                f"({self.recipe.update.minibatches}) does not divide"
            )
        if self.eval.samples and self.eval.k > self.eval.samples:
            raise ValueError(
                f"eval.k is {self.eval.k}, but pass@k needs at least k samples: eval.samples is {self.eval.samples}"
            )

    def _check_places(self) -> None:
        """Refuse settings of an engine, or of a sampler, that the run has not."""
        places = (("ray", "engine", self.engine), ("tinker", "engine", self.engine), ("vllm", "sampler", self.sampler))
        for group, choice, taken in places:
            mine = getattr(self, group)
            if taken != group and mine != type(mine)():
                fields = [f.name for f in dataclasses.fields(mine) if getattr(mine, f.name) != f.default]
                raise ValueError(
                    f"{group}.{fields[0]} is set, and {choice} is {taken}: take {choice} {group}, or leave it out"
                )

    @property
    def prompts(self) -> int:
        """Prompts per step."""
        return self.batch // self.recipe.source.size

    @property
    def trains_adapters(self) -> bool:
        """Whether low-rank adapters are trained: where that is asked for, where the model is one, and on a Tinker server,
        which trains nothing else."""
        return self.lora or self.engine == "tinker" or holds_adapters(self.model)

    def learning_rate(self) -> float:
        """The learning rate, with the default for the kind of model where none is set."""
        if self.optim.lr is not None:
            return self.optim.lr
        usual = 1e-4 if self.model == "embedded" else 1e-5 if self.trains_adapters else 1e-6
        # Of a step of Lion every coordinate is as long as the longest of one of Adam.
        return usual / 5 if self.optim.name == "lion" else usual

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain data."""
        return _plain(self)

    def to_yaml(self) -> str:
        """The configuration as YAML; :func:`config_from_yaml` reads it back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def _plain(x: Any) -> Any:
    if isinstance(x, Recipe):
        return x.to_dict()
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return {f.name: _plain(getattr(x, f.name)) for f in dataclasses.fields(x)}
    if isinstance(x, str | Path):
        return str(x)
    if isinstance(x, Mapping):
        return dict(x)
    return [_plain(v) for v in x] if isinstance(x, tuple) else x


def config_from_yaml(path: Path, base: TrainConfig | None = None) -> TrainConfig:
    """A configuration from a YAML file; what the file leaves out is taken from ``base``. What a run found out by itself
    (:mod:`policyopt.training.resolved`) is no part of it.

    Raises :class:`~policyopt.errors.UserError` naming the file, the line or the field.
    """
    try:
        return config_from_dict(read_yaml(path), base)
    except ValueError as error:
        raise UserError(f"{path}: {error.args[0]}") from error


def config_from_dict(data: Mapping[str, Any], base: TrainConfig | None = None) -> TrainConfig:
    """A configuration from plain data, as :func:`config_from_yaml` finds it in a file. Raises ``ValueError`` naming the
    field."""
    found: TrainConfig = _merge(base, {k: v for k, v in data.items() if k != RESOLVED}, TrainConfig, "")
    return found


def updated(base: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """A configuration with fields put over those of ``base``, those of a group by name.

    Raises :class:`~policyopt.errors.UserError` naming the field.
    """
    try:
        found: TrainConfig = _merge(base, given, TrainConfig, "")
        return found
    except ValueError as error:
        raise UserError(str(error.args[0])) from error


def check_names(cls: type, given: Iterable[object], path: str = "") -> None:
    """Raises :class:`~policyopt.errors.UserError` for a name that is no field of a dataclass, with the nearest ones."""
    names = [f.name for f in dataclasses.fields(cls)]
    for name in given:
        if name not in names:
            raise UserError(f"no field is called {f'{path}{name}'!r}; {ours(f'{path}{name}') or nearest(name, names)}")


def _merge(base: Any, data: Mapping[str, Any], cls: type, path: str) -> Any:
    check_names(cls, data, path)
    kinds = {
        "optim": Optim, "eval": Evaluation, "checkpoints": Checkpoints, "stopping": Stopping, "tracking": Tracking,
        "judging": Judging, "adapters": LoRA, "prompting": Prompting, "episodes": Episodes, "ray": Cluster, "tinker": Server, "vllm": Vllm,
    }  # fmt: skip
    fields: dict[str, Any] = {} if base is None else {f.name: getattr(base, f.name) for f in dataclasses.fields(cls)}
    for name, value in data.items():
        if name == "recipe" and not isinstance(value, Recipe):
            if not isinstance(value, Mapping):
                raise ValueError(f"recipe: expected a mapping of parts, not {value!r}")
            fields[name] = recipe_from_dict(value if base is None else deep_update(base.recipe.to_dict(), value))
        elif name in kinds and isinstance(value, Mapping):
            fields[name] = _merge(fields.get(name) or kinds[name](), value, kinds[name], f"{path}{name}.")
        else:
            fields[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**fields)
    except ValidationError as error:
        raise ValueError(explain(error, path.rstrip("."))) from error
