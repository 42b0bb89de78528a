"""``policyopt compare``: methods against each other, with seeds and intervals."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from policyopt.aliases import canonical
from policyopt.cli.common import Count, Fraction, options_of
from policyopt.errors import UserError
from policyopt.files import read_yaml

if TYPE_CHECKING:
    from policyopt.comparing.grid import Contender, Grid

COMPARE = """\
usage: policyopt compare METHOD METHOD... [OPTIONS]
       policyopt compare --resume DIR

METHOD is the name of a method, a file of your own (my.py, my.py:NAME, package.module:NAME), a recipe or the configuration
of a run (.yaml), or any of these with settings of its own, in quotes: "grpo --optim.lr 3e-4". A YAML file may also say
`method: grpo` and settings. The first one is what the others are compared to.

  --seeds K         how many seeds (5)
  --task T          the task; or --testbed B: a task with settings on which a phenomenon shows
  --budget B        what every run may use up: steps=60, tokens=200000, seconds=90; tokens or seconds alone: what the first
                    method takes for its steps
  --sweep F=a,b,c   each method once with every value of a field, such as optim.lr=1e-4,3e-4; may be given again
  --target A        held-out accuracy whose cost in tokens and seconds is measured
  --jobs N          runs at once (as many as there are cores, and memory for)
  --out DIR         folder; the same command, or --resume DIR, goes on with it

Every option of `policyopt train` may follow (--model, --batch, --optim.lr ...) and holds for all of them."""


@dataclass(frozen=True)
class CompareOptions:
    """Methods against each other, with seeds and intervals."""

    seeds: int = 5
    """How many seeds."""
    budget: str | None = None
    """What every run may use up: steps=60, tokens=200000, seconds=90."""
    sweep: tuple[str, ...] = dataclasses.field(default=(), metadata={"repeated": ()})
    """A field and its values, such as optim.lr=1e-4,3e-4."""
    testbed: str | None = None
    """A task with settings on which a phenomenon shows."""
    target: Fraction | None = None
    """Held-out accuracy whose cost is measured."""
    jobs: Count | None = None
    """Runs at once; unset: as many as there are cores, and memory for."""
    out: Path | None = None
    """Folder of the comparison."""
    resume: Path | None = None
    """Go on with the comparison in this folder."""


def run(args: list[str]) -> int:
    """Compare, and say what came of it. Returns the exit code."""
    if not args or {"-h", "--help"} & {*args}:
        print(COMPARE)
        return 0
    names, own, rest = split(args)
    options = options_of(CompareOptions(), own, "compare")
    import rich.console

    from policyopt.comparing.asked import carried
    from policyopt.comparing.compared import read_grid
    from policyopt.comparing.terminal import show

    if options.resume is not None:
        if names or rest:
            raise UserError(f"--resume {options.resume}: its plan says what is compared; leave out {(names + rest)[0]}")
        found = carried(read_grid(options.resume), options.resume, options.jobs)
    else:
        found = carried(grid_of(names, rest, options), options.out, options.jobs)
    out = rich.console.Console(highlight=False)
    show(found.found, out)
    out.print(f"page: {found.page}", soft_wrap=True)
    return 1 if found.found.missing else 0


def split(args: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The contenders of a line, the options of the comparison, and those of the runs."""
    mine = {f"--{f.name}" for f in dataclasses.fields(CompareOptions)}
    names: list[str] = []
    own: list[str] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        option = word.partition("=")[0]
        if not word.startswith("--") and not rest and not own:
            names.append(word)
        elif option in mine:
            own += [word] if "=" in word else [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return names, own, rest


def grid_of(names: Sequence[str], rest: Sequence[str], options: CompareOptions) -> Grid:
    """The grid that a line asks for.

    Raises :class:`~policyopt.errors.UserError` naming the contender with which something is wrong.
    """
    from policyopt.comparing.grid import Grid, read_budget, swept
    from policyopt.comparing.testbeds import need_testbed

    if options.seeds < 0:
        raise UserError(f"--seeds {options.seeds}: expected a number of seeds")
    budget = read_budget(options.budget or "steps")
    shared = [*rest]
    if options.testbed is not None:
        bed = need_testbed(options.testbed)
        shared = over(words({"task": bed.task, **bed.options}), shared)
    if budget.unit == "steps" and budget.amount is not None:
        shared += ["--steps", str(int(budget.amount))]
    made = [contender(name, shared, extra) for name in names for extra in swept(options.sweep)]
    return Grid(tuple(made), tuple(range(options.seeds)), budget, options.target)


def contender(name: str, shared: Sequence[str], extra: Mapping[str, Any], label: str | None = None) -> Contender:
    """A contender from its name, with settings of its own, and what it has beside the options that are shared.

    Raises :class:`~policyopt.errors.UserError` naming it.
    """
    from policyopt.cli.train import parse_config
    from policyopt.comparing.grid import Contender, spread
    from policyopt.own import resolve

    method, *own = shlex.split(name) or [""]
    if method.endswith((".yaml", ".yml")):
        method, more = _from_yaml(Path(method))
        own = [*more, *own]
    swept = " ".join(f"{field}={value}" for field, value in extra.items())
    plain = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    label = label or " ".join(filter(None, [plain, swept]))
    line = over(over(shared, own), words(extra))
    try:
        config, _ = parse_config(resolve(method), line)
    except UserError as error:
        raise UserError(f"{label}: {error}") from error
    except SystemExit as end:
        raise UserError(f"{label}: its options cannot be read (see above)") from end
    if not any(word.partition("=")[0] == "--eval.every" for word in line):
        config = spread(config)
    return Contender(label, config)


def over(line: Sequence[str], more: Sequence[str]) -> list[str]:
    """A line without the options that ``more`` sets as well, and then ``more``."""

    def name(word: str) -> str:
        return canonical(word.removeprefix("--").partition("=")[0])

    given = {name(word) for word in more if word.startswith("--")}
    kept, keep = [], True
    for word in line:
        if word.startswith("--"):
            keep = name(word) not in given
        if keep:
            kept.append(word)
    return [*kept, *more]


def words(settings: Mapping[str, Any], path: str = "") -> list[str]:
    """Settings as a line has them; those of a group by dotted names."""
    found: list[str] = []
    for name, value in settings.items():
        option = f"{path}{name}".replace("_", "-")
        if isinstance(value, Mapping):
            found += words(value, f"{path}{name}.")
        elif isinstance(value, bool):
            before, dot, last = option.rpartition(".")
            found.append(f"--{option}" if value else f"--{before}{dot}no-{last}")
        else:
            several = value if isinstance(value, list | tuple) else [value]
            found += [f"--{option}", *("none" if v is None else str(v) for v in several)]
    return found


def _from_yaml(path: Path) -> tuple[str, list[str]]:
    """What a YAML file names: the method in it with settings, or the file itself as a recipe or a configuration."""
    data = read_yaml(path)
    if "method" in data:
        return str(data["method"]), words({k: v for k, v in data.items() if k != "method"})
    whole = "recipe" in data
    return str(path), ["--config", str(path)] if whole else []
