"""A run that draws beside training against one that does not, with a judge that is slow.

Both are ``policyopt train grpo --engine ray`` on a small untrained model, with the same batches and steps: one at ``--staleness 0``, where a step
is drawing, judging and updating one after the other, and one at ``--staleness 1``, where the next batch is drawn and judged
while this one is trained on. The judge sleeps, as one does that asks a server.

    python benchmarks/asynchronous.py [--steps 8] [--batch 32] [--tokens 32] [--layers 4] [--epochs 8] [--judge 1.0] [--rounds 2]

``--judge`` is how many seconds the judge takes for a batch, ``--epochs`` how often a batch is trained on: where drawing and judging take as long as
training, half of the time is saved, and less where one of them takes longer. Prints a table and writes ``benchmarks/results/asynchronous.md``. A time is the
median over steps, without the first two, which wait for processes and batches; the two runs take turns, and the ratio is the
median over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from policyopt.engine.settings import Cluster
from policyopt.methods.group.grpo import grpo
from policyopt.models.embedded import Architecture
from policyopt.models.tokenizer import build_tokenizer
from policyopt.training.config import Checkpoints, Evaluation, Judging, Optim, TrainConfig
from policyopt.training.run import run

WARM = 2
JUDGE = """
import time

def score(prompt, response, answer):
    time.sleep({seconds})
    return {{"score": float(str(answer) in response), "correct": str(answer) in response}}
"""


def seconds(folder: Path, name: str, args: argparse.Namespace, staleness: int) -> tuple[float, dict[str, float]]:
    """Of a step, and of its parts."""
    config = TrainConfig(
        recipe=grpo(group_size=8).set("update.epochs", args.epochs), model=str(folder / "model"), task=str(folder / "data.jsonl"), judge=f"{folder / 'judge.py'}:score",
        steps=args.steps + WARM, batch=args.batch, max_tokens=args.tokens, out=folder / name, device="cpu", engine="ray",
        ray=Cluster(trainers=1, samplers=args.samplers), staleness=staleness, optim=Optim(lr=1e-4),
        eval=Evaluation(every=0, prompts=2, samples=0), checkpoints=Checkpoints(every=args.steps + WARM, keep=1),
        judging=Judging(workers=1),
    )  # fmt: skip
    run(config, quiet=True)
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()][1 + WARM :]
    parts = {
        key: statistics.median(r[key] for r in rows)
        for key in ("time/rollout", "time/judge", "time/update", "time/wait")
    }
    return statistics.median(r["time/step"] for r in rows), parts


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--steps", type=int, default=8)
    ask.add_argument("--batch", type=int, default=32)
    ask.add_argument("--tokens", type=int, default=32)
    ask.add_argument("--layers", type=int, default=4)
    ask.add_argument("--epochs", type=int, default=8)
    ask.add_argument("--samplers", type=int, default=1)
    ask.add_argument("--judge", type=float, default=1.0)
    ask.add_argument("--rounds", type=int, default=2)
    args = ask.parse_args()
    table: list[str] = []
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer = build_tokenizer()
        Architecture(layers=args.layers).build(tokenizer, 0).save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        rows = [{"prompt": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(64)]
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "judge.py").write_text(JUDGE.format(seconds=args.judge / args.batch))
        for number in range(args.rounds):
            found = [seconds(folder, f"run-{number}-{staleness}", args, staleness) for staleness in (0, 1)]
            ratios.append(found[0][0] / found[1][0])
            for staleness, (step, parts) in enumerate(found):
                figures = " | ".join(
                    f"{parts[key]:.2f}" for key in ("time/rollout", "time/judge", "time/update", "time/wait")
                )
                table.append(f"| {number + 1} | {staleness} | {step:.2f} | {figures} |")
                print(table[-1], flush=True)
    load = os.getloadavg()[0]
    text = "\n".join(
        [
            "| round | staleness | step (s) | drawing | judging | update | waiting for the batch |",
            "|---|---|---|---|---|---|---|",
            *table,
        ]
    )
    text += (
        f"\n\nRatio (median): {statistics.median(ratios):.2f}; {os.cpu_count()} cores, load at the end {load:.1f}.\n"
    )
    print(text)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "asynchronous.md").write_text(f"`python benchmarks/asynchronous.py` {vars(args)}\n\n{text}")


if __name__ == "__main__":
    main()
