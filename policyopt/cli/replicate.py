"""``policyopt replicate``: what methods claim, put to the test in miniature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from policyopt.claims import RECORD, recorded
from policyopt.cli.common import Count, found, named, options_of
from policyopt.errors import UserError
from policyopt.registry import get_method, methods

if TYPE_CHECKING:
    from policyopt.claims import Claim
    from policyopt.comparing.replicate import Trial

USAGE = """\
usage: policyopt replicate [METHOD...] [--all] [OPTIONS]

Trains a method and the one that it claims to beat on the claim's testbed, over the same seeds, and says supported, not
supported or undecided, with the interval. Without a METHOD it shows what was recorded (docs/replication.md).

  --all           all methods that declare a claim
  --seeds K       how many seeds (5)
  --jobs N        runs at once (as many as there are cores, and memory for)
  --out DIR       folder of the runs (runs/replicate); what is finished there is not run again
  --collect       run nothing: say what the finished runs show
  --record FILE   put it into a JSON file, in the place of what is there of fewer seeds
  --markdown      print a page of what was recorded of all methods (with --record: in that file)
  --json          print it as JSON"""


@dataclass(frozen=True)
class ReplicateOptions:
    """What methods claim, put to the test in miniature."""

    all: bool = False
    """All methods that declare a claim."""
    seeds: Count = 5
    """How many seeds."""
    jobs: Count | None = None
    """Runs at once; unset: as many as there are cores, and memory for."""
    out: Path = Path("runs/replicate")
    """Folder of the runs; what is finished there is not run again."""
    collect: bool = False
    """Run nothing: say what the finished runs show."""
    record: Path | None = None
    """Put it into a JSON file, in the place of what is there of fewer seeds."""
    markdown: bool = False
    """Print a page of what was recorded of all methods."""
    json: bool = False
    """Print it as JSON."""


def run(args: list[str]) -> int:
    """Put claims to the test, and say what came of them. Returns the exit code."""
    if {"-h", "--help"} & {*args}:
        print(USAGE)
        return 0
    names, line = named(args, ReplicateOptions())
    options = options_of(ReplicateOptions(), line, "replicate")
    if options.seeds < 2:
        raise UserError(
            "--seeds 1: one seed says nothing of how far another one would be off: take 2 at least, better 5"
        )
    import rich.console

    from policyopt.comparing.replicate import replication, run_trials
    from policyopt.comparing.replications import record, to_json
    from policyopt.comparing.terminal import Watch, replications

    out = rich.console.Console(highlight=False)
    if not names and not options.all:
        if options.markdown:
            print(page(options.record or RECORD), end="")
        else:
            replications(out)
        return 0
    asked = [trial(name) for name in (sorted(methods()) if options.all else names) if not options.all or claims(name)]
    failed: dict[str, str] = {}
    if not options.collect:
        with Watch(rich.console.Console(highlight=False, stderr=True)) as watch:
            seeds = {t.method: range(options.seeds) for t in asked}
            failed = run_trials(asked, seeds, options.out, jobs=options.jobs, tell=watch)
    results = [replication(t, range(options.seeds), options.out) for t in asked]
    if options.record is not None:
        record(results, options.record)
    if options.markdown:
        print(page(options.record or RECORD), end="")
    elif options.json:
        print(to_json(results), end="")
    else:
        replications(out, results)
    return 1 if failed else 0


def page(path: Path = RECORD) -> str:
    """The page of what was recorded, in a file or for the library, and of the claims that were not put to the test yet."""
    from policyopt.comparing.replications import Replication, markdown, read_replications

    known = {r.method: r for r in read_replications(recorded(path))}
    for name, method in methods().items():
        if method.claim is not None and name not in known:
            c = method.claim
            verdict, why = ("cannot show here", c.beyond) if c.beyond else ("not run yet", f"{c.testbed}")
            known[name] = Replication(name, c.says, verdict, reason=why)  # type: ignore[arg-type]
    return markdown([*known.values()], ABOUT)


ABOUT = """\
# What methods claim, and what was seen

Every method that trains on text declares the claim of its paper as data beside its docstring (`claim=Claim(...)`): a testbed, what it is held against,
and the least effect that would support it. `policyopt replicate METHOD --seeds 5` trains both sides with the same prompts, seeds and budget on the embedded model (0.9 M parameters)
and asks where the difference lies, with 95 % confidence ([how](statistics.md)): *supported* where the whole interval lies beyond the least effect, *not
supported* where it lies short of it, *undecided* where it lies around it. A claim with several effects needs all of them. A miniature is no refutation: it says
what this claim is worth on these testbeds ([which](testbeds.md)), at this size, with these settings. Positive differences say that the method has more of the metric than what it is held against. The minutes are those of all steps of both sides, on one
core each. This page is the output of `policyopt replicate --markdown > docs/replication.md`."""


def claims(name: str) -> bool:
    """Whether a method declares a claim."""
    return get_method(name).claim is not None


def trial(name: str) -> Trial:
    """The claim of a method, with both sides as runs. Raises :class:`~policyopt.errors.UserError` where it declares none."""
    from policyopt.cli.compare import contender, words
    from policyopt.comparing.replicate import Trial
    from policyopt.comparing.testbeds import need_testbed

    method = found(get_method, name)
    claim = method.claim
    if claim is None:
        raise UserError(
            f"{method.name} declares no claim: it is not one that trains on text, or nobody has written it yet"
        )
    if claim.beyond:
        return Trial(method.name, claim)
    bed = need_testbed(claim.testbed)
    shared = words({"steps": STEPS, "task": bed.task, **measured(claim), **bed.options, **claim.both})
    against = claim.against or (method.parent if method.parent else "grpo")
    ours = contender(method.name, shared, claim.ours)
    theirs = contender(against, shared, claim.theirs)
    return Trial(method.name, claim, ours, theirs)


STEPS = 40
"""Of a run, where the claim says nothing else."""
SAMPLED = ("pass@", "distinct", "exploitability")
"""Metrics of sampled responses."""
ALONG = ("drop", "best", "tokens to target", "seconds to target")
"""Metrics of the evaluations on the way."""


def measured(claim: Claim) -> dict[str, int]:
    """The evaluations of a run without those that its claim says nothing of."""
    named = [e.metric for e in claim.effects]
    spared = {} if any(m.startswith(SAMPLED) for m in named) else {"eval.samples": 0}
    return spared if any(m in ALONG for m in named) else {**spared, "eval.every": 0}
