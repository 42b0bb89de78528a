"""A profile says what was done: every piece of work once, with the tokens and products that passed in it; and it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import rich.console
import torch
from safetensors.torch import load_file

from policyopt.engine.local.floor import Products, backbone_products
from policyopt.engine.local.profile import distinct_tokens
from policyopt.models.causal import SplitModel, backbone_of
from policyopt.models.load import load_policy
from policyopt.spans import Meter, measured, span
from policyopt.training.config import Evaluation
from policyopt.training.profile import profile_tables, works
from policyopt.training.run import run
from tests.commands import Said
from tests.runs import lines, timeless, tiny_run
from tests.tiny import rows_of, token_batch


def ticking() -> Callable[[], dict[str, float]]:
    """A clock that goes on by one whenever it is read."""
    ticks: Iterator[int] = count()
    return lambda: {"seconds": float(next(ticks))}


def test_a_piece_of_work_has_what_passes_while_it_is_the_innermost() -> None:
    @span("inner")
    def inner(depth: int = 0) -> None:
        if depth:
            inner(depth - 1)

    with span("outside"):
        pass  # nobody measures
    with measured(Meter(ticking())) as meter:
        with span("outer"):
            inner()
            inner(1)
            with pytest.raises(ZeroDivisionError), span("fails"):
                raise ZeroDivisionError
    # A change of place is one tick, which belongs to where it leaves from.
    own = {path: sums["seconds"] for path, sums in meter.found.items()}
    outer = ("outer",)
    assert own == {
        (): 2, outer: 4, (*outer, "inner"): 3, (*outer, "inner", "inner"): 1, (*outer, "fails"): 1,
    }  # fmt: skip
    assert meter.times == {outer: 1, (*outer, "inner"): 2, (*outer, "inner", "inner"): 1, (*outer, "fails"): 1}
    assert meter.path == () and "outside" not in str(meter.found)


def test_the_parts_of_a_piece_of_work_add_up_to_it() -> None:
    def row(*path: str, seconds: float, flops: float = 0.0) -> dict[str, Any]:
        return {"path": list(path), "seconds": seconds, "flops": flops, "floor": flops / 4}

    rows = [
        row("step", seconds=1),
        row("step", "a", seconds=2, flops=8),
        row("step", "b", seconds=3),
        row("end", seconds=9),
    ]
    found = {w.path: w for w in works(rows)}
    assert [*found] == [("end",), ("step",), ("step", "b"), ("step", "a"), ("step", "(rest)")]
    assert found["step",].seconds == 6 and found["step",].floor == 2
    assert found["step",].counted == 2, "rates are of the time of products alone"


def test_a_floor_counts_the_products_and_no_tables(tiny_model: Path) -> None:
    backbone = backbone_of(load_policy(str(tiny_model), device="cpu").model)
    products = backbone_products(backbone)
    layers = [p for name, p in backbone.named_parameters() if p.dim() == 2 and "embed" not in name]
    assert len(layers) >= 7 and products.cost == 2 * sum(p.numel() for p in layers)
    timed = Products([torch.ones(8, 4)], torch.float32, {16: 1e6})
    assert timed.seconds(40, 4) == pytest.approx(40 * 64 / 1e6), "ten rows a call are timed with sixteen"
    assert timed.seconds(0, 0) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, Path, list[int]]:
    """The same run with a profile and without; and the tokens that each update passed through the backbone."""
    folder, passed = tmp_path_factory.mktemp("profile"), list[int]()
    rows = [{"prompt": f"{i}+{i}=?", "answer": str(2 * i)} for i in range(40)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task, predicting = {"task": str(folder / "sums.jsonl"), "judge": "number"}, SplitModel.predicting

    def counted(split: SplitModel, batch: Any) -> Any:
        found = predicting(split, batch)
        passed.append(len(found) if torch.is_grad_enabled() else 0)
        return found

    for name in ("profiled", "plain"):
        config = tiny_run(folder / name, tiny_model, task, steps=2, eval=Evaluation(every=0, prompts=2, samples=0, k=1))
        with pytest.MonkeyPatch.context() as patch:
            if name == "profiled":
                patch.setattr(SplitModel, "predicting", counted)
            run(config, quiet=True, profile=name == "profiled")
    return folder / "profiled", folder / "plain", passed


def test_a_profile_changes_nothing(runs: tuple[Path, Path, list[int]]) -> None:
    profiled, plain, _ = runs
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (profiled, plain))
    assert all(torch.equal(x, b[name]) for name, x in a.items())
    assert timeless(lines(profiled / "metrics.jsonl")) == timeless(lines(plain / "metrics.jsonl"))
    assert not (plain / "profile.json").exists()


def test_a_step_is_told_apart(runs: tuple[Path, Path, list[int]]) -> None:
    profiled, _, passed = runs
    found = json.loads((profiled / "profile.json").read_text())
    spans = {tuple(row["path"]): row for row in found["spans"]}
    update, draw = ("step", "update"), ("step", "draw")
    for path in [
        (*draw, "prefill"), (*draw, "decode"), (*draw, "head", "choose"), (*draw, "judge"),
        (*draw, "annotate", "reference", "backbone"), ("step", "credit"), (*update, "objective"), (*update, "backward"),
        (*update, "optimiser"), (*update, "metrics"), ("step", "log"), ("checkpoint",),
    ]:  # fmt: skip
        assert spans[path]["calls"] > 0 and spans[path]["seconds"] > 0, path
    step = sum(row["seconds"] for path, row in spans.items() if path[0] == "step")
    logged = sum(row["time/step"] for row in lines(profiled / "metrics.jsonl") if "time/step" in row)
    assert found["steps"] == 2 and step == pytest.approx(logged, rel=0.2)

    forward, head = spans[*update, "backbone"], spans[*update, "head"]
    assert forward["tokens"] >= sum(passed) > 0 and forward["flops"] > 0
    assert spans[*update, "backward"]["flops"] == pytest.approx(2 * (forward["flops"] + head["flops"]))
    rows = head["flops"] / (2 * 102 * 32)  # vocabulary, hidden
    assert rows == pytest.approx(sum(passed)), "the head takes the hidden states that predict responses, and no others"
    tokens = found["tokens"]
    assert tokens["draw"]["needed"] == tokens["update"]["needed"] <= tokens["update"]["computed"] == forward["tokens"]
    memory = found["memory"]
    assert sum(n for name, n in memory.items() if name != "peak") >= memory["peak"] > 0 < memory["optimiser"]


def test_the_tables_show_it(runs: tuple[Path, Path, list[int]], tmp_path: Path) -> None:
    with (tmp_path / "said.txt").open("w") as file:
        profile_tables(runs[0], rich.console.Console(file=file, width=100))
    said = (tmp_path / "said.txt").read_text()
    for word in ("mean of 2 steps", "decode", "backward", "x floor", "needed", "optimiser", "activations and the rest"):
        assert word in said


def test_needed_tokens_are_distinct_beginnings_of_rows() -> None:
    batch = token_batch((4, 3))
    texts = [ids[:-1].tolist() for ids, _, _ in rows_of(batch)]
    assert distinct_tokens(batch) == len({tuple(text[: i + 1]) for text in texts for i in range(len(text))})
    assert distinct_tokens(batch) < sum(map(len, texts)), "prompts are shared"


def test_an_engine_in_other_processes_is_refused(command: Callable[..., Said]) -> None:
    said = command("train", "grpo", "--profile", "--engine", "ray")
    assert said.code != 0 and "--profile" in said.err and "--engine local" in said.err
