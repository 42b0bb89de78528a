"""How fast a step of training is, and what it holds: policyopt, TRL's GRPOTrainer, and the floor (docs/speed.md).

    pip install -e '.[bench]'
    python benchmarks/run.py [W1 ...] [--rounds 7] [--growth] [--dtype float32] [--contenders floor ours trl]

Every contender has a process of its own, and one step of each alternates in one run: times are medians over rounds, ratios are
medians of the ratios of steps that ran one after the other. Without names all workloads run, one after the other; results of
others that ran before stay. Writes ``benchmarks/results/speed.json`` and ``speed.md``, after every round; Ctrl-C leaves
what is done. ``--growth`` measures what a step grows with in the place of the workloads, and draws ``docs/images/growth.svg``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

NAMES = ("floor", "ours", "trl", "trl-static", "trl-continuous")
TRAINED = ("W1", "W2", "W3", "W4", "W5", "W7")
ALL = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8")
RESULTS = Path(__file__).parent / "results"


def workload(name: str) -> str:
    """The name of a workload, as it is typed."""
    if name.upper() not in ALL:
        raise argparse.ArgumentTypeError(f"there is no workload {name}; known: {', '.join(ALL)}")
    return name.upper()


def line() -> argparse.ArgumentParser:
    """The command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("workloads", nargs="*", type=workload, metavar="W1 ... W8", help="which ones; all, without")
    ask.add_argument("--rounds", type=int, default=7, help="steps that count; W4 and W7 have at most 3")
    ask.add_argument("--growth", action="store_true", help="measure what a step grows with, with --rounds at most 5")
    ask.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="precision of all contenders")
    ask.add_argument(
        "--contenders", nargs="+", choices=NAMES, default=list(NAMES[:3]), help="the last two are other ways of TRL"
    )
    ask.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    ask.add_argument("--contender", help=argparse.SUPPRESS)
    ask.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    return ask


def say(text: str) -> None:
    """Progress, with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def training(names: Sequence[str], args: argparse.Namespace) -> None:
    """The workloads in which somebody trains; each begins with fresh processes."""
    from speed.report import Results, told
    from speed.turns import contenders, measure
    from speed.workloads import TRAINING

    results = Results(args.out)
    for task in (w for w in TRAINING if w.name.split()[0] in names):
        with contenders(args.contenders) as running:
            try:
                for measured in measure(task, running, min(args.rounds, task.rounds), args.dtype, say):
                    if measured.rows:
                        results.put("training", task.name, told(measured))
            except ModuleNotFoundError as error:
                say(f"{task.name}: left out: {error}")
    results.write()


def grown(args: argparse.Namespace) -> None:
    """What a step grows with."""
    from speed.report import Results, told
    from speed.turns import contenders, measure
    from speed.workloads import growth

    results = Results(args.out)
    for axis, points in growth().items():
        with contenders(args.contenders) as running:
            for x, task in points:
                named = task.with_(name=f"{axis} {x:g}")
                for measured in measure(named, running, min(args.rounds, 5), args.dtype, say, warm=1):
                    if measured.rows:
                        results.put("growth", axis, told(measured) | {"x": x}, at=f"{x:g}")
        results.draw("growth", "growth")


def others(names: Sequence[str], args: argparse.Namespace) -> None:
    """W6 and W8, where a backward pass is measured, and how long W7 takes to load."""
    from speed import passes
    from speed.report import Results

    results = Results(args.out)
    if "W6" in names:
        for way, size, length in passes.grid():
            found = passes.alone("backward", say, way=way, size=size, length=length)
            results.put("W6", size, found, at=f"{way} {length}")
        results.draw("W6", "memory")
    if "W7" in names:
        results.put("loading", "W7", passes.loading(args.rounds, say))
    if "W8" in names:
        for kind in passes.TEXTS:
            results.put("W8", kind, passes.alone("shared", say, kind=kind, rounds=args.rounds))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for."""
    args = line().parse_args(arguments)
    sys.path.insert(0, str(Path(__file__).parent))
    if args.contender:
        from speed.contender import main as carry_out

        return carry_out(args.contender)
    if args.alone:
        from speed.passes import answer

        return answer(*args.alone)
    if args.rounds < 1:
        raise SystemExit("--rounds: at least 1")
    names = args.workloads or ALL
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the processes are ended
    try:
        if args.growth:
            grown(args)
        else:
            training([n for n in names if n in TRAINED], args)
            others(names, args)
    except KeyboardInterrupt:
        say("stopped; what was measured is written")
    from speed.report import Results

    print(Results(args.out).write())


if __name__ == "__main__":
    main()
