"""What TRL and verl call the settings that have other names here, so that whoever knows theirs finds ours."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

_OURS = {
    # TRL, transformers, peft
    "model-name-or-path": "model",
    "dataset-name": "task",
    "reward-funcs": "judge",
    "max-steps": "steps",
    "learning-rate": "optim.lr",
    "lr": "optim.lr",
    "optim": "optim.name",
    "weight-decay": "optim.weight-decay",
    "adam-beta1": "optim.betas",
    "adam-beta2": "optim.betas",
    "adam-epsilon": "optim.eps",
    "max-grad-norm": "optim.clip-norm",
    "warmup-steps": "optim.warmup",
    "lr-scheduler-type": "optim.schedule",
    "num-generations": "group-size recipe.source.size",
    "max-completion-length": "max-tokens",
    "max-new-tokens": "max-tokens",
    "temperature": "recipe.source.temperature",
    "beta": "kl-coef recipe.regularizers.KL.coef",
    "epsilon": "low recipe.surrogate.low",
    "epsilon-high": "high recipe.surrogate.high",
    "delta": "recipe.surrogate.dual",
    "num-iterations": "recipe.update.epochs",
    "loss-type": "recipe.aggregate; a part: set it in a file or in Python",
    "scale-rewards": "recipe.advantage.scale",
    "entropy-coef": "recipe.regularizers.EntropyBonus.coef",
    "gamma": "recipe.advantage.gamma",
    "lam": "recipe.advantage.lam",
    "output-dir": "out",
    "save-steps": "checkpoints.every",
    "save-total-limit": "checkpoints.keep",
    "eval-steps": "eval.every",
    "metric-for-best-model": "checkpoints.best",
    "load-best-model-at-end": "checkpoints.best",
    "early-stopping-patience": "stopping.patience",
    "early-stopping-threshold": "stopping.min-delta",
    "report-to": "track",
    "run-name": "tracking.name",
    "hub-model-id": "push-to-hub",
    "use-peft": "lora",
    "lora-r": "adapters.rank",
    "lora-alpha": "adapters.alpha",
    "lora-target-modules": "adapters.targets",
    "torch-dtype": "dtype",
    "bf16": "dtype",
    "fp16": "dtype",
    "teacher-model-name-or-path": "teacher",
    "resume-from-checkpoint": "resume",
    "per-device-train-batch-size": "batch micro-batch; the responses of a step, and those of one pass",
    "gradient-accumulation-steps": "batch micro-batch; the responses of a step, and those of one pass",
    "steps-per-generation": "recipe.update.minibatches; the optimiser steps on one batch",
    "num-train-epochs": "steps; each of so many responses as batch says",
    "max-prompt-length": "long-prompts; prompts are never cut",
    "use-vllm": "; the library samples by itself",
    # verl
    "model.path": "model",
    "data.train-files": "task",
    "data.max-response-length": "max-tokens",
    "custom-reward-function.path": "judge",
    "custom-reward-function.name": "judge",
    "actor.optim.lr": "optim.lr",
    "actor.optim.optimizer": "optim.name",
    "actor.optim.lr-warmup-steps": "optim.warmup",
    "actor.optim.weight-decay": "optim.weight-decay",
    "critic.optim.lr": "optim.critic-lr",
    "actor.grad-clip": "optim.clip-norm",
    "actor.clip-ratio": "low recipe.surrogate.low",
    "actor.clip-ratio-low": "low recipe.surrogate.low",
    "actor.clip-ratio-high": "high recipe.surrogate.high",
    "actor.clip-ratio-c": "recipe.surrogate.dual",
    "actor.kl-loss-coef": "kl-coef recipe.regularizers.KL.coef",
    "actor.kl-loss-type": "recipe.regularizers.KL.estimator",
    "actor.entropy-coeff": "recipe.regularizers.EntropyBonus.coef",
    "actor.ppo-epochs": "recipe.update.epochs",
    "actor.loss-agg-mode": "recipe.aggregate; a part: set it in a file or in Python",
    "rollout.n": "group-size recipe.source.size",
    "rollout.temperature": "recipe.source.temperature",
    "algorithm.gamma": "recipe.advantage.gamma",
    "algorithm.lam": "recipe.advantage.lam",
    "algorithm.norm-adv-by-std-in-grpo": "recipe.advantage.scale",
    "trainer.total-training-steps": "steps",
    "trainer.save-freq": "checkpoints.every",
    "trainer.max-actor-ckpt-to-keep": "checkpoints.keep",
    "trainer.test-freq": "eval.every",
    "trainer.default-local-dir": "out",
    "trainer.logger": "track",
    "trainer.project-name": "tracking.project",
    "trainer.experiment-name": "tracking.name",
    "data.val-files": "task; the held-out file stands behind a comma",
    "data.train-batch-size": "batch; responses, which are prompts times group size",
    "data.max-prompt-length": "long-prompts; prompts are never cut",
    "actor.ppo-mini-batch-size": "recipe.update.minibatches; pieces of a batch, not prompts in one",
    "actor.ppo-micro-batch-size-per-gpu": "micro-batch; rows",
    "algorithm.adv-estimator": "; it is the method, policyopt train METHOD",
    "trainer.total-epochs": "steps; each of so many responses as batch says",
}
"""Their name -> what it is called here, and behind a semicolon what differs. Where a method may have a hyper-parameter for it,
that stands first, and the field that it sets behind it."""

_HYPERPARAMETERS = {"group-size", "kl-coef", "low", "high"}


EARLIER = {"recipe.rollout": "recipe.source"}
"""Names that options had before -> their names now. They are read, and a note says the new one."""


def renamed(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """A line with options that had another name before under the name of now, and what to say of it."""
    line, said = [], []
    for word in args:
        for old, new in EARLIER.items():
            if word.startswith(f"--{old}."):
                word = f"--{new}{word.removeprefix(f'--{old}')}"
                said.append(f"--{old} is called --{new} now")
        line.append(word)
    return line, list(dict.fromkeys(said))


def canonical(option: str) -> str:
    """The name of an option with hyphens, which may be typed with underscores."""
    return option.replace("_", "-")


def ours(name: str, options: Collection[str] | None = None) -> str | None:
    """``"here it is --optim.lr"`` for a name of TRL's or verl's, ``None`` for one that is neither's.

    Args:
        name: With hyphens or underscores; verl's with or without the sections around it.
        options: The options of the command, where these are spoken of; else fields of the configuration are.
    """
    steps = canonical(name).split(".")
    found = next((_OURS[k] for i in range(len(steps)) if (k := ".".join(steps[i:])) in _OURS), None)
    if found is None or not (options is None or _trains(options)):
        return None
    names, _, how = (piece.strip() for piece in found.partition(";"))
    paths = names.split()
    if not paths or ".".join(steps) in paths:
        return how or None
    if options is None:
        shown = [path.replace("-", "_") for path in paths if path not in _HYPERPARAMETERS]
    else:
        shown = [f"--{path}" for path in paths if path in options] or [f"--{paths[-1]}, in methods that have it"]
    return f"here it is {' or '.join(shown)}{how and f' ({how})'}"


def advice(name: str, options: Collection[str]) -> str:
    """What to say of an option that there is not: what it is called here, or which are the nearest; empty where none is."""
    if (said := ours(name, options)) is not None:
        return said
    places = {option.rpartition(".")[2]: option for option in options}  # somebody may know the end of a path alone
    places |= {option: option for option in options}
    if _trains(options):
        theirs = {key: next((p for p in said.split() if p in places), None) for key, said in _OURS.items()}
        places = {key: place for key, place in theirs.items() if place is not None} | places
    near = difflib.get_close_matches(canonical(name), places, n=3, cutoff=0.6)
    return f"nearest: {', '.join(dict.fromkeys(f'--{places[n]}' for n in near))}" if near else ""


def _trains(options: Collection[str]) -> bool:
    """Whether they are those of a training run, whose settings the table is about."""
    return "steps" in options
