"""Continuous batching against static batches, on responses of very unlike length.

All draw the same responses from the same model in the same number of places. A static batch, as in the ``generate``
of transformers, computes every row until its longest row is done; "rows dropped" is a static batch that leaves out rows
which have ended, but starts no other before all have; the sampler gives a place away as soon as it is free. Most
responses are short, some are long: lengths from 4 to 128 tokens, log-uniform.

    python benchmarks/sampler.py [--requests 256] [--places 16] [--rounds 5]

Prints a table and writes ``benchmarks/results/sampler.md``. The ratio is the median over rounds in which the two ran one
after the other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from policyopt.engine.local import LocalSampler
from policyopt.models.causal import split_model
from policyopt.models.embedded import Architecture
from policyopt.models.tokenizer import build_tokenizer


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--requests", type=int, default=256)
    ask.add_argument("--places", type=int, default=16)
    ask.add_argument("--rounds", type=int, default=5)
    args = ask.parse_args()
    random = np.random.default_rng(0)
    lengths = np.exp(random.uniform(np.log(4), np.log(129), args.requests)).astype(int).clip(4, 128)
    prompts = [tuple(random.integers(6, 100, 12).tolist()) for _ in lengths]
    model = Architecture().build(build_tokenizer(1024), 0)
    sampler = LocalSampler(split_model(model), eos=(), max_rows=args.places)

    def seconds(waves: list[range], padded: bool = False) -> float:
        sampler.version += 1  # nothing is held from the round before
        start = time.perf_counter()
        for wave in waves:
            longest = max(lengths[i] for i in wave)
            budget = {i: int(longest if padded else lengths[i]) for i in wave}
            sampler.run([sampler.generate(prompts[i], max_tokens=budget[i], key=(i,)) for i in wave])
        return time.perf_counter() - start

    everything = range(args.requests)
    waves = [everything[i : i + args.places] for i in everything[:: args.places]]
    ways = {
        "static batches": lambda: seconds(waves, padded=True),
        "static batches, rows dropped": lambda: seconds(waves),
        "continuous": lambda: seconds([everything]),
    }
    rounds = [{name: way() for name, way in ways.items()} for _ in range(args.rounds + 1)][1:]
    lines = [
        "# Sampling responses of unlike length",
        "",
        f"{args.requests} responses of 4 to 128 tokens ({int(lengths.sum())} in all) in {args.places} places, 1 M "
        f"parameters, {torch.get_num_threads()} threads, median of {args.rounds} rounds.",
        "",
        "| what | s | tokens/s | continuous is faster by |",
        "| --- | --- | --- | --- |",
    ]
    for name in ways:
        taken = statistics.median(r[name] for r in rounds)
        ratio = statistics.median(r[name] / r["continuous"] for r in rounds)
        lines.append(f"| {name} | {taken:.2f} | {lengths.sum() / taken:.0f} | {ratio:.2f} x |")
    table = "\n".join([*lines, "", "Made by `python benchmarks/sampler.py`."])
    print(table)
    place = Path(__file__).parent / "results"
    place.mkdir(exist_ok=True)
    (place / "sampler.md").write_text(table + "\n")


if __name__ == "__main__":
    main()
