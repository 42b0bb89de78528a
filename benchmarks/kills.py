"""A run on the engine ``ray`` whose processes are killed at random, one after the other, against the same run left alone.

Each round sends SIGKILL to a sampler, a trainer, a judge's worker or the driver of the run, some time after it has begun to train or gone on.
After a sampler or a judge it has to go on by itself; after a trainer it has to stop in words, and after a trainer or the driver
``--resume`` goes on. At the end: the same prompts in every step, none lost or doubled; the same bits of the trained weights, unless a judge
died over a response, which then has no reward; no token of weights that nobody handed over; and after each end of the driver
no process, no shared memory and no folder of Ray.

    python benchmarks/kills.py [--rounds 20] [--trainers 1] [--samplers 2] [--seed 0] [--who sampler driver ...]

Prints a line for each round and writes ``benchmarks/results/kills.md``. It reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

WHO = ("sampler", "trainer", "judge", "driver")
PATIENCE = 600.0
"""Seconds in which something has to happen."""
JUDGE = """
def score(prompt, response, answer):
    letters = sum(c.islower() for c in response)
    return {"score": letters / max(1, len(response)), "correct": len(response) % 2 == 0}
"""


def processes() -> dict[int, tuple[int, str]]:
    """Those that live on this machine: number -> parent, and how it was called."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            said = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(path.name)] = (int(fields[1]), said)
    return found


def below(top: int, found: dict[int, tuple[int, str]]) -> Iterator[int]:
    """A process and all that it has started."""
    yield top
    for number, (parent, _) in found.items():
        if parent == top:
            yield from below(number, found)


def pick(top: int, who: str) -> int | None:
    """A process of a run in a role, where there is one now."""
    if who == "driver":
        return top
    found, marks = (
        processes(),
        {"sampler": "ray::SamplerActor", "trainer": "ray::TrainerActor", "judge": "judging.worker"},
    )
    numbers = [n for n in below(top, found) if marks[who] in found[n][1]]
    return random.choice(numbers) if numbers else None


class Run:
    """A run that is begun, and gone on with as often as it takes."""

    def __init__(self, folder: Path, name: str, args: argparse.Namespace) -> None:
        self.out, self.folder, self.args = folder / name, folder, args
        self.process: Any = None
        self.folders: set[str] = set()
        """Where its Rays had their files."""

    def start(self) -> None:
        """Begin, or go on."""
        command = [sys.executable, "-m", "policyopt", "train", "grpo", "--group-size", "4"]
        command += ["--model", str(self.folder / "model"), "--task", str(self.folder / "data.jsonl"), "--judge"]
        command += [
            f"{self.folder / 'judge.py'}:score",
            "--steps",
            str(self.args.steps),
            "--batch",
            "16",
            "--max-tokens",
            "24",
        ]
        command += ["--engine", "ray", "--trainers", str(self.args.trainers), "--samplers", str(self.args.samplers)]
        command += [
            "--staleness",
            "1",
            "--optim.lr",
            "1e-3",
            "--device",
            "cpu",
            "--log-samples",
            "1000",
            "--eval.prompts",
            "4",
        ]
        command += ["--eval.samples", "0", "--checkpoints.every", "5", "--out", str(self.out)]
        command += ["--resume", str(self.out)] if (self.out / "config.yaml").exists() else []
        self.said = (self.folder / f"{self.out.name}.txt").open("a")
        self.process = subprocess.Popen(command, stdout=self.said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.family: set[int] = set()

    def steps(self) -> int:
        """How many it has logged."""
        path = self.out / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def reach(self, more: int) -> bool:
        """Wait until it has gone some steps further; false where it ended first."""
        since, end = self.steps(), time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            found = processes()
            self.family |= set(below(self.process.pid, found))
            keepers = (found[n][1] for n in self.family if n in found and "ray.keeper" in found[n][1])
            self.folders |= {said.split()[-1] for said in keepers}
            if self.steps() >= since + more:
                return True
            time.sleep(0.2)
        assert self.process.poll() is not None, "it hangs"
        return False

    def ended(self) -> int:
        """Wait for the end of the driver and of all that it had started; its exit code."""
        code: int = self.process.wait(PATIENCE)
        for _ in range(600):
            left = {n: said for n, (_, said) in processes().items() if n in self.family}
            if not left:
                break
            time.sleep(0.1)
        assert not left, f"left behind: {left}"
        return code


def cleared(shared: set[str]) -> bool:
    """Whether shared memory holds no more than before; other programs of the machine may come and go meanwhile."""
    for _ in range(600):
        if set(os.listdir("/dev/shm")) <= shared:
            return True
        time.sleep(0.1)
    return False


def prompts(out: Path) -> list[tuple[int, str]]:
    """The prompt of each response that was trained on, or had no reward, in order of steps."""
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    return sorted((r["step"], r["id"]) for r in rows if r["phase"] == "train")


def prepare(folder: Path) -> None:
    """A small model, rows and a judge."""
    from policyopt.models.embedded import Architecture
    from policyopt.models.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    Architecture(hidden=32, layers=2).build(tokenizer, 0).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [{"prompt": f"{'ab' * (i % 4)} {i}", "answer": str(i)} for i in range(64)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "judge.py").write_text(JUDGE)


def rounds(folder: Path, args: argparse.Namespace) -> tuple[list[str], Run]:
    """Kill the processes of a run until that was done often enough, then let it end. Returns a line for each round, and the run."""
    dice, lines, run = random.Random(args.seed), [], Run(folder, "killed", args)
    random.seed(args.seed)
    deck = [args.who[i % len(args.who)] for i in range(args.rounds)]
    dice.shuffle(deck)
    run.start()
    for number, who in enumerate(deck, 1):
        if not run.reach(dice.randint(1, 6)):
            raise SystemExit(f"the run ended with code {run.ended()} before round {number}: {run.said.name}")
        time.sleep(dice.random() / 2)
        victim = pick(run.process.pid, who)
        if victim is None:
            raise SystemExit(f"round {number}: there is no {who} to kill")
        at = run.steps()
        os.kill(victim, signal.SIGKILL)
        begun = time.monotonic()
        if who in ("trainer", "driver"):
            code = run.ended()
            text = Path(run.said.name).read_text()
            if who == "trainer":
                assert code != 0 and "has died" in text.replace("\n", " "), text[-2000:]
                assert "Traceback" not in text, text[-2000:]
            run.start()
        assert run.reach(1), f"it did not go on after {who}: {Path(run.said.name).read_text()[-2000:]}"
        lines.append(f"| {number} | {who} | {at} | {time.monotonic() - begun:.0f} |")
        print(lines[-1], flush=True)
    assert run.ended() == 0, Path(run.said.name).read_text()[-2000:]
    return lines, run


def main(arguments: list[str] | None = None) -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rounds", type=int, default=20)
    ask.add_argument("--steps", type=int, default=300)
    ask.add_argument("--trainers", type=int, default=1)
    ask.add_argument("--samplers", type=int, default=2)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--who", nargs="+", choices=WHO, default=list(WHO))
    args = ask.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder, shared = Path(place), set(os.listdir("/dev/shm"))
        prepare(folder)
        lines, run = rounds(folder, args)
        alone = Run(folder, "alone", args)
        alone.start()
        assert alone.ended() == 0
        assert prompts(folder / "killed") == prompts(folder / "alone"), "prompts were lost or doubled"
        mine, whole = (load_file(folder / name / "model" / "model.safetensors") for name in ("killed", "alone"))
        unjudged = Counter('"failed": true' in line for line in (folder / "killed" / "samples.jsonl").open())[True]
        same = all(bool((mine[name] == x).all()) for name, x in whole.items())
        assert same or unjudged, "other bits"
        assert not list(filter(os.path.exists, [*run.folders, *alone.folders]))
        assert cleared(shared), f"left in shared memory: {set(os.listdir('/dev/shm')) - shared}"
    said = f"Prompts of every step the same; trained weights {'the same bits' if same else 'differ'}; {unjudged} responses without a reward because their judge was killed; nothing left behind.\n"  # fmt: skip
    text = "\n".join(
        ["| round | killed | after step | going on again after (s) |", "|---|---|---|---|", *lines, "", said]
    )
    print(said)
    if arguments is None:
        results = Path(__file__).parent / "results"
        results.mkdir(exist_ok=True)
        (results / "kills.md").write_text(f"`python benchmarks/kills.py` {vars(args)}\n\n{text}")


if __name__ == "__main__":
    main()
