"""The loop: what is trained on when, what stops it, and what a run leaves behind."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import rich.console
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import policyopt.training.loop as loop
from policyopt.control import Schedule
from policyopt.engine.local import LocalEngine
from policyopt.engine.protocol import UpdateReport
from policyopt.errors import UserError
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.baseline.remax import remax
from policyopt.methods.clip.dapo import dapo
from policyopt.methods.critic.ppo import AdaptiveKL, ppo
from policyopt.methods.group.grpo import grpo
from policyopt.recipe import Recipe, Update
from policyopt.rows import Batch, join
from policyopt.training.batches import minibatches
from policyopt.training.checkpoint import load_checkpoint
from policyopt.training.collect import Collector
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.console import Console
from policyopt.training.loop import lr_factor
from policyopt.training.run import Result, run
from tests.runs import assert_same_end, finish, left_behind, lines, nth, start, tiny_run
from tests.tiny import load_tiny, token_batch, write_task

Run = Callable[..., TrainConfig]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Run:
    """A configuration of a short run in a fresh folder, six steps and without evaluations in between."""
    task = write_task(tmp_path / "task")

    def of(recipe: Recipe | None = None, name: str = "run", **changes: Any) -> TrainConfig:
        short = {"steps": 6, "eval": Evaluation(every=0, prompts=2, samples=0), "optim": Optim(lr=1e-3)}
        return tiny_run(tmp_path / name, tiny_model, task, recipe, **(short | changes))

    return of


def rows_of(config: TrainConfig) -> list[dict[str, Any]]:
    """The metrics of the steps, without the evaluation before them."""
    assert config.out is not None
    return [row for row in lines(config.out / "metrics.jsonl") if row["step"] > 0]


@dataclasses.dataclass
class Seen:
    """One call of the engine's update."""

    version: int
    batch: Batch
    recipe: Recipe
    report: UpdateReport


def watched(config: TrainConfig, **options: Any) -> tuple[Result, list[Seen]]:
    """A run in this process, and every update that it made."""
    seen: list[Seen] = []
    update = LocalEngine.update

    def spy(self: LocalEngine, recipe: Recipe, batch: Batch) -> UpdateReport:
        version = self.version
        report = update(self, recipe, batch)
        seen.append(Seen(version, batch.clone(), recipe, report))
        return report

    with mock.patch.object(LocalEngine, "update", spy):
        return run(config, quiet=True, **options), seen


# Ctrl-C ----------------------------------------------------------------------------------------------------------------


def wait_for(text: str, config: TrainConfig, process: Any, seconds: float = 60.0) -> None:
    assert config.out is not None
    path, end = config.out.with_suffix(".txt"), time.monotonic() + seconds
    while text not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < end and process.is_alive(), path.read_text()[-3000:]
        time.sleep(0.005)


def slow(original: Any, *args: Any) -> Any:
    time.sleep(60)
    return original(*args)


def slow_second_step() -> None:
    nth("policyopt.training.loop:Trainer", "next_batch", 1, slow)


def test_ctrl_c_stops_after_the_step_and_twice_at_once_and_the_run_can_go_on(make: Run) -> None:
    rarely: dict[str, Any] = {"checkpoints": Checkpoints(every=100), "steps": 10}
    whole, config = make(name="whole", **rarely), make(name="stopped", **rarely)
    assert whole.out is not None
    assert config.out is not None
    finish(start(whole), whole)
    # once
    process = start(config)
    wait_for("step 3/10", config, process)
    os.kill(process.pid, signal.SIGINT)
    finish(process, config)  # exit code 0
    assert config.out.with_suffix(".txt").read_text().count("stopping after this step, with a checkpoint") == 1
    summary = json.loads((config.out / "summary.json").read_text())
    found = load_checkpoint(config.out / "checkpoints")
    assert found is not None
    assert summary["stopped"] == "interrupted"
    assert 3 <= summary["steps"] == found.step == rows_of(config)[-1]["step"] < 9
    assert (config.out / "report.html").exists()
    assert (config.out / "model" / "model.safetensors").exists()
    # twice
    config.out.with_suffix(".txt").unlink()
    process = start(config, resume=True, sabotage=slow_second_step)
    wait_for(f"step {found.step + 1}/10", config, process)
    os.kill(process.pid, signal.SIGINT)
    wait_for("stopping after this step", config, process)
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 1
    assert "KeyboardInterrupt" in config.out.with_suffix(".txt").read_text()
    # on
    finish(start(config, resume=True), config)
    reference = left_behind(whole.out)
    assert reference["checkpoints"] == ["step-000000", "step-000010"]
    assert_same_end(config.out, reference | {"checkpoints": [f"step-{found.step:06d}", "step-000010"]})


class Interrupting(io.RawIOBase):
    """A terminal on which Ctrl-C is pressed while something is written to it."""

    def __init__(self) -> None:
        self.text = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.text:
            os.kill(os.getpid(), signal.SIGINT)
        self.text += bytes(data)
        return len(data)


def test_ctrl_c_while_a_line_is_printed() -> None:
    raw = Interrupting()
    out = rich.console.Console(file=io.TextIOWrapper(io.BufferedWriter(raw)), width=200)
    console = Console({}, 1, out=out)
    with loop.Interrupt(console) as interrupt:
        console.note("a line")
        end = time.monotonic() + 30
        while b"stopping after this step" not in raw.text and time.monotonic() < end:
            time.sleep(0.01)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert raw.text.index(b"a line") < raw.text.index(b"stopping after this step, with a checkpoint")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# What is trained on when


@pytest.mark.parametrize("staleness", [0, 1, 2])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_batch_is_trained_on_exactly_so_many_steps_after_it_was_drawn(staleness: int, pieces: int, make: Run) -> None:
    recipe = grpo(group_size=4, kl_coef=0.0).replace(update=Update(minibatches=pieces))
    config = make(recipe, staleness=staleness)
    drawn: list[int] = []
    draw = Collector.draw

    def spy(self: Collector, recipe: Recipe, step: int, prompts: int) -> Any:
        drawn.append(step)
        return draw(self, recipe, step, prompts)

    with mock.patch.object(Collector, "draw", spy):
        result, seen = watched(config)
    assert drawn == list(range(6)), "each batch once, in order, none beyond the last step"
    first = seen[::pieces]
    for step, s in enumerate(first):
        assert s.version == pieces * step
        assert s.batch.version.unique().tolist() == [pieces * (step - min(step, staleness))]
    for step, row in enumerate(rows_of(config)):
        fresh = min(step, staleness) == 0
        assert ("mismatch/max" in row) == fresh, "nothing to compare where a batch is older than the policy"
        assert not fresh or row["mismatch/max"] < 1e-4
    ids = [s["id"] for s in lines(result.out / "samples.jsonl") if s["phase"] == "train"]
    assert len(ids) == 6 * 16
    assert len(set(ids[: 4 * 16])) == 16, "the first four steps have sixteen different prompts"


def test_each_pass_uses_every_row_once_and_groups_stay_together(make: Run) -> None:
    recipe = ppo(group_size=2, epochs=3, minibatches=2)
    config = make(recipe, batch=16, steps=2)
    _, seen = watched(config)
    assert [s.version for s in seen] == list(range(2 * 3 * 2))
    assert [row["update/count"] for row in rows_of(config)] == [6.0, 6.0]
    orders = []
    for step in range(2):
        for epoch in range(3):
            pieces = [s.batch for s in seen[6 * step + 2 * epoch :][:2]]
            assert [len(p.mask) for p in pieces] == [8, 8]
            groups = [sorted(set(p.group.tolist())) for p in pieces]
            assert sorted(groups[0] + groups[1]) == list(range(8))
            orders.append(tuple(map(tuple, groups)))
    assert len(set(orders)) > 3, "passes differ in what comes first"
    for s in seen[1:6]:  # one batch: its credit is given once, before the first update
        rows = [seen[0].batch, seen[1].batch]
        whole = {int(g): p.returns[p.group == g] for p in rows for g in p.group.unique()}
        for g in s.batch.group.unique():
            assert torch.equal(s.batch.returns[s.batch.group == g], whole[int(g)])


def test_mini_batches_are_as_equal_as_groups_allow() -> None:
    batch = token_batch(groups=(2, 3, 1, 4, 2))
    pieces = list(minibatches(batch, 3, (0, 0, 0)))
    assert sorted(len(set(batch.group[rows].tolist())) for rows in pieces) == [1, 2, 2]
    assert sorted(torch.cat(pieces).tolist()) == list(range(12))
    assert [p.tolist() for p in minibatches(batch, 1, (0, 0, 0))] == [list(range(12))]
    assert len(list(minibatches(batch, 9, (0, 0, 0)))) == 5, "never an empty piece"
    again = list(minibatches(batch, 3, (0, 0, 0)))
    assert all(torch.equal(a, b) for a, b in zip(pieces, again, strict=True))
    others = [tuple(map(tuple, (p.tolist() for p in minibatches(batch, 3, (0, 0, e))))) for e in range(8)]
    assert len(set(others)) > 4
    assert len(list(minibatches(batch, 3, (-5, 0, 0)))) == 3, "negative seeds are seeds"


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ("linear", [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.25, 0.5, 0.75, 1, 1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2]),
    ],
)
def test_learning_rate_schedules(schedule: Any, expected: list[float], make: Run) -> None:
    config = make(steps=8, optim=Optim(lr=1e-3, schedule=schedule, warmup=4))
    assert [lr_factor(config, step) for step in range(8)] == pytest.approx(expected)
    no_warmup = dataclasses.replace(config, optim=Optim(schedule=schedule))
    assert lr_factor(no_warmup, 0) == 1.0


def test_the_schedule_reaches_the_optimisers(make: Run) -> None:
    config = make(
        ppo(group_size=4, epochs=1), steps=4, optim=Optim(lr=1e-3, critic_lr=3e-3, schedule="linear", warmup=2)
    )
    rates: list[float] = []
    update = LocalEngine.update

    def spy(self: LocalEngine, recipe: Recipe, batch: Batch) -> UpdateReport:
        rates.extend(self.weights.optimizers[role].param_groups[0]["lr"] for role in ("policy", "critic"))
        return update(self, recipe, batch)

    with mock.patch.object(LocalEngine, "update", spy):
        run(config, quiet=True)
    expected = [0.5, 1.0, 1.0, 0.5]
    assert rates == pytest.approx([rate * f for f in expected for rate in (1e-3, 3e-3)])
    assert [row["lr"] for row in rows_of(config)] == pytest.approx([1e-3 * f for f in expected])


def test_the_same_configuration_gives_the_same_bits_and_another_seed_does_not(make: Run) -> None:
    weights = [
        load_file(run(make(name=name, steps=3, seed=seed), quiet=True).out / "model" / "model.safetensors")
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    ]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert any(not torch.equal(weights[0][k], weights[2][k]) for k in weights[0])


# Controllers


def test_controllers_act_between_steps_and_their_state_survives(make: Run) -> None:
    recipe = grpo(group_size=4).replace(
        controllers=(
            Schedule(field="surrogate.high", start_value=0.2, end_value=1.0, steps=8),
            AdaptiveKL(field="regularizers.KL.coef", target=0.001, horizon=50.0),
        )
    )
    config = make(recipe, steps=3)
    _, seen = watched(config)
    _, more = watched(dataclasses.replace(config, steps=6), resume=config.out)
    recipes = [s.recipe for s in seen + more]
    assert [r.get("surrogate.high") for r in recipes] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    expected, coefs = 0.04, []
    for row in [None, *rows_of(config)[:-1]]:
        if row is not None:
            error = min(max(row["kl/ref_response"] / 0.001 - 1, -0.2), 0.2)
            expected *= 1 + error * row["responses"] / 50.0
        coefs.append(expected)
    assert [r.get("regularizers.KL.coef") for r in recipes] == pytest.approx(coefs)
    assert coefs[-1] != coefs[0]


def test_a_moving_baseline_has_seen_earlier_steps_only(make: Run) -> None:
    config = make(reinforce(group_size=4, momentum=0.5))
    _, seen = watched(config)
    baseline = 0.0
    for s, row in zip(seen, rows_of(config), strict=True):
        assert s.recipe.get("advantage.baseline") == pytest.approx(baseline)
        expected = (s.batch.reward - baseline)[:, None] * s.batch.mask
        torch.testing.assert_close(s.batch.advantage, expected, rtol=0, atol=1e-6)
        baseline = 0.5 * baseline + 0.5 * row["reward/mean"]


# Filters and baselines


def test_dropped_prompts_are_replaced_while_rounds_allow(make: Run) -> None:
    config = make(dapo(group_size=4, rounds=8), steps=4)
    _, seen = watched(config)
    for s, row in zip(seen, rows_of(config), strict=True):
        right = [s.batch.correct[s.batch.group == g] for g in s.batch.group.unique()]
        assert [len(x) for x in right] == [4] * 4, "the batch is full, and its groups are whole"
        assert all(0 < x.sum() < 4 for x in right)
        assert row["prompts"] == pytest.approx(4 / (1 - row["filtered"]))
        assert row["responses"] == 4 * row["prompts"]
        assert row["signal/groups"] == 1.0
    assert any(row["filtered"] > 0 for row in rows_of(config))


def test_filters_that_drop_everything_do_not_crash(make: Run, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "never.py").write_text("def score(prompt, response, answer):\n    return 0.0\n")
    never = {"judge": f"{tmp_path / 'never.py'}:score", "staleness": 1, "checkpoints": Checkpoints(every=1)}
    config = make(dapo(group_size=4, rounds=2), steps=2, **never)
    _, seen = watched(config)
    result, more = watched(dataclasses.replace(config, steps=4), resume=config.out)
    assert not seen and not more
    assert [row["step"] for row in rows_of(config)] == [1, 2, 3, 4]
    for row in rows_of(config):
        assert row["filtered"] == 1.0
        assert (row["prompts"], row["responses"]) == (8.0, 32.0)
        assert "accuracy" not in row and "update/size" not in row and "loss" not in row
    assert result.summary["responses"] == 4 * 32
    assert (result.out / "report.html").exists()
    start_weights, end = (
        load_file(tiny_model / "model.safetensors"),
        load_file(result.out / "model" / "model.safetensors"),
    )
    assert all(torch.equal(end[name], x) for name, x in start_weights.items())


def test_the_greedy_response_is_the_baseline_and_is_not_trained_on(make: Run) -> None:
    config = make(remax(group_size=2, kl_coef=0.0), batch=8, steps=2)
    result, seen = watched(config)
    for s, row in zip(seen, rows_of(config), strict=True):
        assert len(s.batch.mask) == 8
        assert row["responses"] == 12
        for g in s.batch.group.unique():
            mine = s.batch.group == g
            assert len(s.batch.baseline_reward[mine].unique()) == 1
        difference = s.batch.reward - s.batch.baseline_reward
        torch.testing.assert_close(s.batch.advantage, difference[:, None] * s.batch.mask)
    assert sum(x["phase"] == "train" for x in lines(result.out / "samples.jsonl")) == 16


def test_batches_of_unlike_width_are_joined() -> None:
    a, b = token_batch(groups=(2,), width=4), token_batch(groups=(3, 1), width=9, seed=1)
    b = b.replace(group=b.group + 1, prompt=b.prompt[:, :6], prompt_mask=b.prompt_mask[:, :6])
    both = join([a, b])
    assert both.mask.shape == (6, 9)
    assert both.prompt.shape == (6, 7)
    assert both.group.tolist() == [0, 0, 1, 1, 1, 2]
    assert torch.equal(both.tokens[:2, :4], a.tokens)
    assert both.tokens[:2, 4:].sum() == both.mask[:2, 4:].sum() == 0
    assert torch.equal(both.tokens[2:], b.tokens)
    assert torch.equal(both.reward, torch.cat([a.reward, b.reward]))


# Updates that are not finite


def poison(steps: set[int]) -> Any:
    """Advantages that are not numbers at some steps, from 1."""
    original, count = loop.credit, iter(range(1, 10**6))

    def credit(recipe: Recipe, batch: Batch) -> Batch:
        batch = original(recipe, batch)
        bad = next(count) in steps
        return batch.replace(advantage=batch.advantage * math.nan) if bad else batch

    return mock.patch.object(loop, "credit", credit)


def test_single_updates_that_are_not_finite_are_skipped_counted_and_kept(make: Run) -> None:
    config = make(steps=8)
    assert config.out is not None
    with poison({2, 5, 6, 8}):
        result, seen = watched(config)
    assert result.summary["stopped"] == "finished"
    assert [s.report.applied for s in seen] == [True, False, True, True, False, False, True, False]
    rows = rows_of(config)
    assert [row["update/skipped"] for row in rows] == [0, 1, 0, 0, 1, 1, 0, 1]
    assert [row["update/count"] for row in rows] == [1, 0, 1, 1, 0, 0, 1, 0]
    assert ["update/size" in row for row in rows] == [s.report.applied for s in seen], "no update has no size"
    assert all(row["reward/mean"] is not None for row in rows)
    kept = sorted(p.name for p in (config.out / "skipped").iterdir())
    assert kept == [f"step-00000{s}-{n}.safetensors" for s, n in ((2, 1), (5, 1), (6, 2), (8, 1))]
    saved = load_file(config.out / "skipped" / kept[0])
    assert torch.equal(saved["tokens"], seen[1].batch.tokens)
    assert saved["advantage"].isnan().any()
    assert (config.out / "report.html").exists()


def test_three_in_a_row_stop_the_run(make: Run) -> None:
    config = make(steps=8, checkpoints=Checkpoints(every=1))
    assert config.out is not None
    with poison({2, 4, 5, 6}), pytest.raises(UserError, match="not finite 3 times in a row") as caught:
        run(config, quiet=True)
    assert str(config.out / "skipped") in str(caught.value)
    assert [row["step"] for row in rows_of(config)] == [1, 2, 3, 4, 5]
    assert len(list((config.out / "skipped").iterdir())) == 4
    found = load_checkpoint(config.out / "checkpoints")
    assert found is not None
    assert (found.step, found.state["version"], found.state["counts"]["skips"]) == (5, 2, 2)
    kept = load_file(found.folder / "engine.safetensors")
    assert all(x.isfinite().all() for x in kept.values() if x.is_floating_point())
    assert not (config.out / "summary.json").exists()
    with poison({1}), pytest.raises(UserError, match="3 times in a row"):  # step 6 is the third also after a resumption
        run(config, resume=config.out, quiet=True)


def test_mini_batches_are_skipped_one_by_one(make: Run) -> None:
    config = make(grpo(group_size=4).replace(update=Update(minibatches=4)), steps=2)
    gradient, count = LocalEngine.gradient, iter(range(1, 100))

    def spoiled(self: LocalEngine, recipe: Recipe, batch: Batch) -> UpdateReport:
        report = gradient(self, recipe, batch)
        if next(count) in (2, 3, 5):
            report.loss = math.inf
        return report

    with mock.patch.object(LocalEngine, "gradient", spoiled):
        run(config, quiet=True)
    assert [row["update/skipped"] for row in rows_of(config)] == [2, 1]
    assert [row["update/count"] for row in rows_of(config)] == [2, 3]
    assert all(math.isfinite(row["loss"]) for row in rows_of(config))


# What a run leaves


def test_a_run_leaves_everything_that_it_promises(make: Run, tiny_model: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    evaluation = Evaluation(every=2, prompts=6, samples=3, k=2)
    config = make(grpo(group_size=4), eval=evaluation, log_samples=3, optim=Optim(lr=3e-3))
    result = run(config, quiet=True)
    out = result.out
    assert {p.name for p in out.iterdir()} == {
        "config.yaml", "inputs.json", "metrics.jsonl", "samples.jsonl", "summary.json", "report.html", "tensorboard", "checkpoints", "model",
    }  # fmt: skip
    # metrics
    metrics = lines(out / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(7))
    assert [row["step"] for row in metrics if "eval/accuracy" in row] == [0, 2, 4]
    promised = {
        "reward/mean", "reward/std", "accuracy", "format", "advantage/std", "signal/groups", "signal/positive", "signal/negative",
        "length/mean", "length/max", "length/truncated", "entropy", "kl/ref", "clip_fraction/low", "clip_fraction/high", "grad_norm", "update/size",
        "update/skipped", "mismatch/max", "mismatch/mean", "lr", "judge/failed", "prompts", "responses", "tokens_per_s",
        "time/rollout", "time/judge", "time/update", "time/step",
    }  # fmt: skip
    for row in metrics[1:]:
        assert promised <= row.keys(), promised - row.keys()
        assert all(isinstance(x, int | float) and math.isfinite(x) for x in row.values())
        assert row["mismatch/max"] < 1e-4
        assert row["time/rollout"] + row["time/judge"] + row["time/update"] <= row["time/step"]
    # samples
    samples = lines(out / "samples.jsonl")
    assert [sum(s["phase"] == phase for s in samples) for phase in ("before", "train", "eval", "after")] == [
        6,
        18,
        6,
        6,
    ]
    for s in (s for s in samples if s["phase"] == "train"):
        assert len(s["pieces"]) == len(s["weights"]) == s["length"]
        assert "".join(s["pieces"][:-1]) in s["response"] + "".join(s["pieces"])
    # summary
    summary = json.loads((out / "summary.json").read_text())
    assert summary == result.summary
    assert (summary["method"], summary["steps"], summary["stopped"], summary["seed"]) == ("grpo", 6, "finished", 1)
    assert summary["responses"] == sum(row["responses"] for row in metrics[1:]) == 96
    assert summary["tokens"] == sum(row["tokens"] for row in metrics[1:])
    for when in ("before", "after"):
        assert {"accuracy", "pass@2", "length", "format", "n", "lengths"} <= summary[when].keys()
        assert len(summary[when]["lengths"]) == summary[when]["n"] == 6
    assert summary["before"]["accuracy"] == metrics[0]["eval/accuracy"]
    # TensorBoard
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("reward/mean")] == [1, 2, 3, 4, 5, 6]
    assert [e.value for e in events.Scalars("reward/mean")] == pytest.approx(
        [row["reward/mean"] for row in metrics[1:]]
    )
    # the model, loaded as anybody would
    model = AutoModelForCausalLM.from_pretrained(out / "model").eval()
    ids = torch.tensor([AutoTokenizer.from_pretrained(out / "model").encode("12+30-5=?")])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        assert torch.equal(logits, result.policy.model(input_ids=ids).logits)
        assert (logits - load_tiny(tiny_model, "float32").model(input_ids=ids).logits).abs().max() > 0.01, (
            "it has learned"
        )
    # the report
    page = (out / "report.html").read_text()
    assert samples[0]["id"] in page or samples[0]["prompt"].strip() in page


def test_training_raises_the_reward(make: Run) -> None:
    """The task pays for lower-case letters: thirty steps of any on-policy method must find that out."""
    config = make(
        grpo(group_size=8, kl_coef=0.0), steps=30, batch=64, optim=Optim(lr=3e-3), checkpoints=Checkpoints(every=100)
    )
    run(config, quiet=True)
    rewards = [row["reward/mean"] for row in rows_of(config)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2
