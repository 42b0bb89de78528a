"""The grid of a comparison: who is compared, over which seeds, within which budget; each cell of it is a run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from policyopt.carried import is_carried
from policyopt.errors import UserError
from policyopt.training.config import TrainConfig

Unit = Literal["steps", "tokens", "seconds"]
UNENDING = 100_000
"""Steps of a run that ends by another budget."""
MIN_SEEDS = 2
EVALUATIONS = 5
"""Of a run, where nobody says how often."""


@dataclass(frozen=True)
class Budget:
    """What every run may use up."""

    unit: Unit = "steps"
    amount: float | None = None
    """Unset: of steps what the runs say, of anything else what the first contender takes for its steps, seed by seed."""

    def within(self, config: TrainConfig, amount: float | None = None) -> TrainConfig:
        """The configuration of a run that ends when ``amount`` is used up (unset: the budget's own)."""
        amount = self.amount if amount is None else amount
        if amount is None:
            return config
        if self.unit == "steps":
            return dataclasses.replace(config, steps=int(amount))
        stopping = (
            dataclasses.replace(config.stopping, tokens=int(amount))
            if self.unit == "tokens"
            else dataclasses.replace(config.stopping, seconds=amount)
        )
        return dataclasses.replace(config, stopping=stopping, steps=UNENDING)

    def __str__(self) -> str:
        if self.amount is not None:
            return f"{self.amount:,g} {self.unit}"
        return f"the {self.unit} of the first one" if self.unit != "steps" else "steps"


def read_budget(text: str) -> Budget:
    """``steps=60``, ``tokens=200000``, ``seconds=90``, ``60`` (steps), or the name of a unit alone.

    Raises :class:`~policyopt.errors.UserError` for anything else.
    """
    unit, _, number = text.partition("=") if not text[:1].isdigit() else ("steps", "", text)
    try:
        amount = float(number.replace("_", "").replace(",", "")) if number else None
    except ValueError:
        amount = 0.0
    if unit not in get_args(Unit) or (amount is not None and not (amount > 0 and amount < float("inf"))):
        raise UserError(
            f"--budget {text}: expected steps=60, tokens=200000 or seconds=90, or tokens or seconds alone for what the first "
            "method takes"
        )
    if unit != "seconds" and amount is not None and amount != int(amount):
        raise UserError(f"--budget {text}: {unit} are whole numbers")
    return Budget(unit, amount)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Contender:
    """One of those that are compared."""

    label: str
    config: TrainConfig
    """Its run, but for the seed and the folder."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    contender: str
    seed: int
    config: TrainConfig

    @property
    def folder(self) -> str:
        """The name of its folder: it follows from the configuration, so that a run of another one never stands for it."""
        slug = re.sub(r"[^\w.+=-]+", "-", self.contender).strip("-")[:60]
        plain = {k: v for k, v in self.config.to_dict().items() if k not in ("out", "seed")}
        return f"{slug}-seed{self.seed}-{digest(plain)}"


@dataclass(frozen=True)
class Grid:
    """Contenders by seeds. The first contender is the one that the others are compared to.

    Everything that is not the method's own is the same in all of them (:meth:`check`): prompts and their order follow from
    the seed, held-out questions from the task.
    """

    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    budget: Budget = Budget()
    target: float | None = None
    """Held-out accuracy whose cost is measured; unset: four fifths of the way that the first contender makes."""

    @property
    def first(self) -> Contender:
        """What the others are compared to."""
        return self.contenders[0]

    def opening(self) -> list[Cell]:
        """The cells that can run at once: all, or those of the first contender where they say what the others may use up."""
        who = [self.first] if self._follows else self.contenders
        return [Cell(c.label, seed, self._config(c, seed)) for seed in self.seeds for c in who]

    def following(self, used: Mapping[int, Mapping[str, float]]) -> list[Cell]:
        """The cells that wait for the summaries of the first contender's runs, by seed; those of seeds without one are left
        out."""
        if not self._follows:
            return []
        return [
            Cell(c.label, seed, self._config(c, seed, float(used[seed][self.budget.unit])))
            for seed in self.seeds
            if seed in used
            for c in self.contenders[1:]
        ]

    @property
    def _follows(self) -> bool:
        return self.budget.amount is None and self.budget.unit != "steps"

    def _config(self, contender: Contender, seed: int, amount: float | None = None) -> TrainConfig:
        return self.budget.within(dataclasses.replace(contender.config, seed=seed, out=None), amount)

    def check(self) -> None:
        """Raises :class:`~policyopt.errors.UserError` for a grid that cannot be compared: one seed, two contenders of one name
        or with other questions, a budget that ends before the first evaluation."""
        if len(self.contenders) < 2:
            raise UserError("compare takes two methods at least, or one with --sweep: policyopt compare grpo gspo")
        if len(self.seeds) < MIN_SEEDS:
            raise UserError(
                f"--seeds {len(self.seeds)}: one seed says nothing of how far another one would be off, so that no interval "
                "over seeds is possible: take 2 at least, 5 for an interval that is worth something"
            )
        labels = [c.label for c in self.contenders]
        if twice := sorted({x for x in labels if labels.count(x) > 1}):
            raise UserError(f"{twice[0]} is there twice: give one of them another setting or another file name")
        for c in self.contenders:
            self._check_matched(c)
            self._check_budget(c)

    def _check_matched(self, contender: Contender) -> None:
        mine, first = contender.config, self.first.config
        for field in SAME:
            if getattr(mine, field) != getattr(first, field):
                raise UserError(
                    f"{contender.label} has {field} {_short(getattr(mine, field))}, and {self.first.label} has "
                    f"{_short(getattr(first, field))}: all are measured on the same questions, so this has to be the same"
                )

    def _check_budget(self, contender: Contender) -> None:
        config = contender.config
        if self.budget.unit != "steps" and config.optim.schedule != "constant":
            raise UserError(
                f"{contender.label}: --optim.schedule {config.optim.schedule} falls to the last step, and with a budget of "
                f"{self.budget.unit} nobody knows which that is: take --budget steps=N, or --optim.schedule constant"
            )
        steps = self.budget.within(config).steps
        if config.eval.every and steps < config.eval.every:
            raise UserError(
                f"--budget: {steps} steps end before the first evaluation, after {config.eval.every} steps "
                f"(--eval.every {max(1, steps // 5)} would make five of them)"
            )
        if self.budget.unit == "tokens" and self.budget.amount is not None and config.eval.every:
            least = config.eval.every * config.batch
            if self.budget.amount < least:
                raise UserError(
                    f"--budget tokens={self.budget.amount:g}: ends before the first evaluation, after {config.eval.every} steps of "
                    f"{config.batch} responses: take {20 * least} at least, or a smaller --eval.every or --batch"
                )

    def to_dict(self) -> dict[str, Any]:
        """As plain data; :func:`grid_from_dict` reads it back."""
        return {
            "contenders": [{"label": c.label, "config": c.config.to_dict()} for c in self.contenders],
            "seeds": [*self.seeds],
            "budget": {"unit": self.budget.unit, "amount": self.budget.amount},
            "target": self.target,
        }


SAME = (
    "model",
    "task",
    "columns",
    "eval_task",
    "judge",
    "judge_options",
    "prior",
    "prompting",
    "max_tokens",
    "eval",
    "dtype",
)
"""Fields that decide what is measured."""


def grid_from_dict(data: Mapping[str, Any]) -> Grid:
    """A grid from what :meth:`Grid.to_dict` made."""
    from policyopt.training.config import config_from_dict

    return Grid(
        tuple(Contender(c["label"], config_from_dict(c["config"])) for c in data["contenders"]),
        tuple(data["seeds"]),
        Budget(**data["budget"]),
        data["target"],
    )


def spread(config: TrainConfig) -> TrainConfig:
    """A configuration that is evaluated five times within its steps."""
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, every=max(1, config.steps // EVALUATIONS)))


def swept(sweeps: Sequence[str]) -> Iterator[dict[str, str]]:
    """Every combination of values of ``field=a,b,c``, by field; one empty mapping where there is none.

    Raises :class:`~policyopt.errors.UserError` for one without a field or values.
    """
    import itertools

    axes = []
    for text in sweeps:
        field, _, values = text.partition("=")
        found = [v for v in values.split(",") if v]
        if not field or not found:
            raise UserError(f"--sweep {text}: expected a field and its values, such as optim.lr=1e-4,3e-4")
        axes.append([(field.lstrip("-"), v) for v in found])
    yield from (dict(pairs) for pairs in itertools.product(*axes))


def digest(plain: Any) -> str:
    """Eight hexadecimal digits that follow from plain data."""
    return hashlib.blake2b(json.dumps(plain, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()


def carries(config: TrainConfig) -> bool:
    """Whether something in it lives in this Python session alone, so that its run cannot have a process of its own."""
    names = [config.model, config.teacher, config.task, config.eval_task, *config.roles.values()]
    judges = [config.judge] if isinstance(config.judge, str) else [*(config.judge or ())]
    return any(isinstance(x, str) and is_carried(x) for x in [*names, *judges])


def _short(x: Any) -> str:
    return (str(x) if isinstance(x, str | int | float | Path) else repr(x))[:80]
