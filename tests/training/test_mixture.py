"""Prompts from several sources: as often as their weights say, the same after a resume, each in the log."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from policyopt.errors import UserError
from policyopt.items import Example, Task, user
from policyopt.methods.group.grpo import grpo
from policyopt.part import Curriculum, part
from policyopt.training.config import Checkpoints
from policyopt.training.mixture import check_weights, order_of
from policyopt.training.run import run
from tests.runs import tiny_run
from tests.tiny import write_task


def examples(**counts: int) -> list[Example]:
    return [Example(f"{name}:{i}", user("?"), "1", source=name) for name, n in counts.items() for i in range(n)]


def test_sources_come_as_often_as_their_weights_say() -> None:
    every = examples(a=7, b=30, c=5)
    order = order_of(every, 3, {"a": 2.0, "b": 1.0, "c": 1.0})
    taken = [every[order(i)] for i in range(8000)]
    counts = Counter(e.source for e in taken)
    assert [counts[x] / 8000 for x in "abc"] == pytest.approx([0.5, 0.25, 0.25], abs=0.02)
    for name, n in (("a", 7), ("b", 30), ("c", 5)):
        mine = [e.id for e in taken if e.source == name]
        for start in range(0, len(mine) - n, n):  # each pass has every example of the source once
            assert len(set(mine[start : start + n])) == n
        assert mine[:n] != mine[n : 2 * n], "another order in the next pass"
    blocks = [[e.source for e in taken[i : i + 100]] for i in range(0, 8000, 100)]
    assert len({tuple(block) for block in blocks}) == 80, "by chance, not in turns"


def test_a_place_gives_the_same_example_whatever_was_asked_before() -> None:
    every, weights = examples(a=9, b=4), {"a": 1.0, "b": 3.0}
    whole = [order_of(every, 5, weights)(i) for i in range(0, 10_000, 997)]
    late = order_of(every, 5, weights)
    assert [late(i) for i in range(9970, -1, -997)] == whole[::-1]
    assert whole != [order_of(every, 6, weights)(i) for i in range(0, 10_000, 997)]


def test_without_weights_every_example_comes_once_per_pass() -> None:
    order = order_of(examples(a=9, b=4), 5, {})
    assert sorted(order(i) for i in range(13)) == list(range(13)) == sorted(order(i) for i in range(13, 26))
    assert [order(i) for i in range(13)] == np.random.default_rng((5, 0)).permutation(13).tolist()


def test_a_source_that_is_wholly_held_out_is_refused() -> None:
    with pytest.raises(UserError, match="all rows of b are held out"):
        order_of(examples(a=4), 0, {"a": 1.0, "b": 1.0})


@part
class Even(Curriculum):
    """Every prompt as often."""

    def weights(self, memory: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(memory))


def test_weights_beside_a_curriculum_are_refused() -> None:
    task = Task("a+b", examples(a=4, b=4), (), None, 8, weights={"a": 1.0, "b": 2.0})
    check_weights(grpo(), task)
    with pytest.raises(UserError, match="its curriculum Even chooses the prompts"):
        check_weights(grpo().replace(curriculum=Even()), task)


def test_a_run_on_a_mixture_logs_each_source_and_is_resumed_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    settings = write_task(tmp_path / "a", 16)
    for name, start in (("b", 100), ("test", 200)):
        rows = [{"question": f"{name} {i}", "answer": str(i)} for i in range(start, start + 8)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mixed = settings | {
        "task": f"{settings['task']}*1+{tmp_path}/b.jsonl*3",
        "eval_task": f"{tmp_path}/test.jsonl",
        "checkpoints": Checkpoints(every=1),
    }
    whole = run(tiny_run(tmp_path / "whole", tiny_model, mixed, steps=3), quiet=True)
    run(tiny_run(tmp_path / "halves", tiny_model, mixed, steps=1), quiet=True)
    halves = run(tiny_run(tmp_path / "halves", tiny_model, mixed, steps=3), resume=tmp_path / "halves", quiet=True)
    one, other = (load_file(r.out / "model" / "model.safetensors") for r in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)
    samples = [[json.loads(x)["response"] for x in (r.out / "samples.jsonl").open()] for r in (whole, halves)]
    assert samples[0] == samples[1]
    assert whole.summary["before"]["n"] == 8, "measured whole"
    steps = [json.loads(line) for line in (whole.out / "metrics.jsonl").open()][1:]
    shares = [(s.get("source[data]/share", 0.0), s.get("source[b]/share", 0.0)) for s in steps]
    assert all(a + b == pytest.approx(1) for a, b in shares) and sum(b for _, b in shares) > 1.5
    for step in steps:
        mean = sum(step.get(f"source[{n}]/share", 0) * step.get(f"source[{n}]/reward", 0) for n in ("data", "b"))
        assert mean == pytest.approx(step["reward/mean"], abs=1e-5)
        assert all(f"source[{n}]/accuracy" in step for n in ("data", "b") if f"source[{n}]/share" in step)
