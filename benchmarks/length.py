"""What methods for length save on ``verbose``, and what that costs in accuracy (docs/lengths.md).

    python benchmarks/length.py [--seeds 5] [--jobs 2] [--out runs/length]     # the methods against grpo, by compare
    python benchmarks/length.py --long2short [--seeds 5]                       # from long to short after training
    python benchmarks/length.py --optimum                                      # the best length of a chain of thought

The first goes on with what is finished in ``--out``. Each writes its own section of ``benchmarks/results/length.md``; the methods are drawn in
``docs/images/length.svg``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import policyopt as po
from policyopt.comparing.results import Comparison, Interval
from policyopt.comparing.statistics import difference, interval

sys.path.insert(0, str(Path(__file__).parent))

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "length.svg"
SETTINGS: dict[str, Any] = {
    # At 3e-4 forty steps are enough to drop the padding, but cost one to five points of accuracy.
    "task": "verbose", "steps": 60, "batch": 64, "optim": {"lr": 2e-4},
    "eval": {"every": 0, "prompts": 512, "samples": 0},
}  # fmt: skip
"""Of all runs."""
POOL = 32
"""Prompts that come again, for methods that remember each."""
CUT, LOSS = 0.4, 0.02
"""What is asked for: so much shorter than grpo, at most so much less accurate."""


def contenders() -> dict[str, po.recipe.Recipe]:
    """The first is what the others are held against. What counts tokens is a hundredth of its paper's; all else is as it is by default, where no reason stands here."""
    m = po.methods
    # 4,000 tokens, for every prompt that was met before; so few rounds that the pool has prompts for them.
    dler = m.dler(easy_budget=40, easy_accuracy=0.0, rounds=3)
    return {
        "grpo": m.grpo(kl_coef=0.0),  # none of the others is held to the start
        "kimi-k1.5": m.kimi_k1_5(),
        "hapo-history": m.hapo_history(pool=POOL),
        "grpo-lambda": m.grpo_lambda(),
        "conciser": m.conciser(),
        "two-stage-math": m.two_stage_math(),
        "drpo-decoupled": m.drpo_decoupled(minibatches=1),  # its updates have 32 prompts, and a whole batch here has 8
        "palu": m.palu(pool=POOL),
        "dler": dler.replace(curriculum=po.parts.AmongPool(pool=POOL)),
    }


# The methods ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One contender."""

    name: str
    accuracy: Interval
    length: Interval
    """In tokens."""
    lost: Interval | None = None
    """Accuracy less that of the first, paired by seed and question; None for the first."""
    cut: float = 0.0
    """The share of the first one's mean length that is gone."""

    @property
    def holds(self) -> bool:
        """Whether all of the interval of its accuracy lies less than two points below the first one's."""
        return self.lost is not None and self.lost.low >= -LOSS


def rows(found: Comparison) -> list[Row]:
    """The contenders that have both numbers, the first one first, the others from short to long."""
    lines = {(x.metric, x.contender): x for x in found.lines}
    made = []
    for name in found.contenders:
        accuracy, length = (lines.get((metric, name)) for metric in ("accuracy", "length"))
        if accuracy is not None and length is not None and np.isfinite([accuracy.value.mean, length.value.mean]).all():
            first = lines["length", found.contenders[0]].value.mean
            made.append(Row(name, accuracy.value, length.value, accuracy.difference, 1 - length.value.mean / first))
    return sorted(made, key=lambda r: (r.lost is not None, r.length.mean))


def table(made: Sequence[Row]) -> str:
    """What the page says of the methods."""
    out = ["| method | accuracy (95 %) | tokens (95 %) | cut | accuracy less grpo's, points (95 %) | within 2 points |"]
    out += ["| --- | --- | --- | --- | --- | --- |"]
    for r in made:
        cut, lost, holds = (
            ("", "", "") if r.lost is None else (f"{r.cut:.0%}", points(r.lost), "yes" if r.holds else "no")
        )
        out.append(f"| `{r.name}` | {shares(r.accuracy)} | {tokens(r.length)} | {cut} | {lost} | {holds} |")
    met = [f"`{r.name}`" for r in made if r.holds and r.cut >= CUT]
    out += ["", f"At least {CUT:.0%} shorter and within two points: {', '.join(met) or 'none'}."]
    return "\n".join(out)


def shares(x: Interval) -> str:
    return f"{100 * x.mean:.1f} % ({100 * x.low:.1f} to {100 * x.high:.1f})"


def tokens(x: Interval) -> str:
    return f"{x.mean:.1f} ({x.low:.1f} to {x.high:.1f})"


def points(x: Interval) -> str:
    return f"{100 * x.mean:+.1f} ({100 * x.low:+.1f} to {100 * x.high:+.1f})"


def started(found: Comparison, name: str) -> Interval:
    """What the model had before training, on the same questions; it is one model for all."""
    return Interval(float(np.mean([run.summary["before"][name] for run in found.runs.values()])), np.nan, np.nan)


def methods(seeds: int, jobs: int | None, out: Path) -> str:
    """Run what is missing, and say what was found."""
    from front import draw

    found = po.compare(contenders(), seeds=seeds, jobs=jobs, out=out / "compare", **SETTINGS).found
    made = rows(found)
    points = {r.name: (r.length, r.accuracy) for r in made} | {
        "start": tuple(started(found, x) for x in ("length", "accuracy"))
    }
    PICTURE.write_text(draw(points, "tokens an answer", "right answers"))
    return (
        f"{seeds} seeds, {SETTINGS['steps']} steps, {SETTINGS['eval']['prompts']} held-out questions.\n\n{table(made)}"
    )


# From long to short after training -----------------------------------------------------------------------------------

PLAN = Path(__file__).parents[1] / "examples" / "plans" / "long2short.yaml"
"""A model that grpo has trained, and what becomes of it: by SFT on its own shortest right responses, by the mean of both models, by DPO by length."""


def shortened(seed: int, out: Path) -> dict[str, dict[str, list[float]]]:
    """Accuracy and tokens of every held-out question, as each stage of the plan leaves them; a plan that has begun goes on."""
    found = po.run_plan(resume=out) if (out / "plan.yaml").is_file() else po.run_plan(PLAN, out=out, seed=seed)
    if found.stopped:
        raise SystemExit(f"interrupted: the same command goes on in {out}")
    ends = {name: result.summary["after"] for name, result in found.stages.items()}
    return {name: {"accuracy": list(map(float, x["correct"])), "length": x["lengths"]} for name, x in ends.items()}


def long2short(seeds: int, out: Path) -> str:
    """The three ways over some seeds."""
    every = [shortened(seed, out / f"seed{seed}") for seed in range(seeds)]
    stacked = {name: {k: np.array([x[name][k] for x in every], float) for k in every[0][name]} for name in every[0]}
    first = stacked["long"]
    made = [
        Row(
            name, interval(y["accuracy"], share=True), interval(y["length"]),
            None if name == "long" else difference(y["accuracy"], first["accuracy"]).interval,
            1 - float(y["length"].mean() / first["length"].mean()),
        )
        for name, y in stacked.items()
    ]  # fmt: skip
    return f"{seeds} seeds, `examples/plans/long2short.yaml`.\n\n{table(made)}"


# The best length of a chain of thought ---------------------------------------------------------------------------------

CHAINS = ((1.0, 1.0, 0.05), (2.0, 1.0, 0.1), (2.0, 1.0, 0.05), (1.0, 0.5, 0.02))
"""Difficulty, capability and noise."""
ENDS = (2, *range(90, 102))
"""Thirteen of 102 tokens end a response, so that an untrained model writes some eight."""


def trained_length(chain: tuple[float, float, float], out: Path, *, steps: int = 80, batch: int = 128) -> float:
    """How many tokens an untrained model of 22 thousand parameters writes on average once grpo has trained it, where a token is a step and the reward of N of
    them is how often a chain of N steps ends right: the mean over the last tenth of the run."""
    from policyopt.methods.length.cot_length_optimal import accuracy
    from policyopt.models.embedded import random_tiny

    def ends_right(prompt: str, response: str, answer: str) -> float:
        return accuracy(len(response), *chain)

    model, tokenizer = random_tiny(0)
    model.generation_config.eos_token_id = list(ENDS)
    questions = [{"question": x, "answer": "-"} for x in "abcdefghijklmnop"]
    result = po.train(
        po.methods.grpo(kl_coef=0.0, group_size=16), model=(model, tokenizer), task=questions, judge=ends_right, steps=steps, batch=batch,
        max_tokens=24, optim={"lr": 3e-3}, eval={"every": 0, "prompts": 4, "samples": 0}, out=out, quiet=True,
    )  # fmt: skip
    return float(result.metrics["length/mean"].iloc[-(steps // 10) :].mean())


def optimum(out: Path) -> str:
    """Where a policy ends, beside the closed form."""
    from policyopt.methods.length.cot_length_optimal import cot_length_optimal

    told = ["| difficulty, capability, noise | closed form | tokens of the trained policy |", "| --- | --- | --- |"]
    for chain in CHAINS:
        found = trained_length(chain, out / "-".join(map(str, chain)))
        told.append(f"| {', '.join(map(str, chain))} | {cot_length_optimal(*chain):.2f} | {found:.2f} |")
    return "\n".join(told)


# The page --------------------------------------------------------------------------------------------------------------

TITLES = {
    "methods": "Methods against grpo",
    "long2short": "From long to short after training",
    "optimum": "The best length of a chain of thought",
}


def written(which: str, text: str, path: Path) -> None:
    """Put a section into the page; the others stay."""
    old = path.read_text().split("\n## ")[1:] if path.is_file() else []
    sections = dict(x.split("\n\n", 1) for x in old) | {TITLES[which]: text}
    order = [t for t in TITLES.values() if t in sections]
    head = "# Length on verbose\n\n`python benchmarks/length.py`"
    path.write_text("\n\n".join([head, *(f"## {t}\n\n{sections[t].strip()}" for t in order)]) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seeds", type=int, default=5)
    ask.add_argument("--jobs", type=int, help="runs at once; unset: as many as there are cores")
    ask.add_argument("--out", type=Path, default=Path("runs/length"), help="where the runs go")
    ask.add_argument(
        "--long2short", action="store_true", help="shorten a trained model in the place of comparing methods"
    )
    ask.add_argument(
        "--optimum", action="store_true", help="train on the synthetic task in the place of comparing methods"
    )
    args = ask.parse_args(arguments)
    which = "long2short" if args.long2short else "optimum" if args.optimum else "methods"
    made = {
        "methods": lambda: methods(args.seeds, args.jobs, args.out),
        "long2short": lambda: long2short(args.seeds, args.out / "long2short"),
        "optimum": lambda: optimum(args.out / "optimum"),
    }
    text = made[which]()
    print(text)
    written(which, text, RESULTS / "length.md")


if __name__ == "__main__":
    main()
