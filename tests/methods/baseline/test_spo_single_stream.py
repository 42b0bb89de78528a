"""The page of SPO with a single stream."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from policyopt.items import Verdict
from policyopt.methods.baseline.spo_single_stream import (
    BetaTracker,
    Revisited,
    UncertainFirst,
    smoothed,
    spo_single_stream,
)
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Context, Question, Response
from policyopt.training.config import TrainConfig
from policyopt.training.run import Result, run
from tests.batches import random_batch, ready
from tests.commands import lines
from tests.tiny import write_task

NAN = math.nan


def visit(reward: list[float], history: list[list[float]], drift: float = 0.0, prior: float = NAN) -> Batch:
    n = len(reward)
    columns = {"reward": reward, "drift": [drift] * n, "prior": [prior] * n}
    given: dict[str, Tensor] = {name: torch.tensor(x, dtype=torch.float64) for name, x in columns.items()}
    past = torch.tensor(history, dtype=torch.float64)
    return make_batch(mask=torch.ones(n, 2).double(), group=torch.arange(n), history=past, **given)


def test_the_tracker_forgets_the_faster_the_more_the_policy_has_moved() -> None:
    tracker, history = BetaTracker(), [[6.0, 2.0]]
    after = [tracker(visit([0.0], history, d))[0] for d in (0.0, 0.006, 0.012, math.inf)]
    value = [float(x[0] / x.sum()) for x in after]
    assert value == sorted(value, reverse=True) and value[-1] < value[0] < 0.75, "nearer to what was seen"
    torch.testing.assert_close(after[0], torch.tensor([0.96 * 6, 0.96 * 2 + 1]).double())
    torch.testing.assert_close(after[-1], torch.tensor([0.875 * 6, 0.875 * 2 + 1]).double())
    assert torch.equal(BetaTracker(forget="constant")(visit([0.0], history)), after[-1][None])


def test_what_was_drawn_beforehand_is_the_first_estimate_and_without_drift_it_is_a_running_mean() -> None:
    prior = smoothed([1, 0, 0, 1])
    assert prior == 2.5 / 5 and math.isnan(smoothed([]))
    tracker = BetaTracker(most=1.0)
    assert tracker.counts(visit([1.0], [[NAN, NAN]], prior=0.25)).tolist() == [[2, 6]], "1 / (1 - 0.875) counts"
    counts = torch.tensor([[NAN, NAN]])
    for seen in (1.0, 1.0, 0.0):
        counts = tracker(visit([seen], counts.tolist()))
    assert counts.tolist() == [[2.5, 1.5]]


def test_the_baseline_is_the_value_before_and_the_whole_batch_is_whitened() -> None:
    batch = random_batch(groups=(1, 1, 1, 1))
    reward = torch.tensor([1.0, 0, 1, 1]).double()
    history = torch.tensor([[1.0, 1], [1, 1], [9, 1], [NAN, NAN]]).double()
    batch = batch.replace(reward=reward, history=history, prior=torch.full((4,), NAN).double())
    advantage = ready(spo_single_stream(), batch).advantage[:, 0]
    assert abs(float(advantage.mean())) < 1e-9 and abs(float(advantage.std()) - 1) < 1e-6
    gain = torch.tensor([0.5, -0.5, 0.1, 0.5]).double()
    torch.testing.assert_close(advantage, (gain - gain.mean()) / gain.std())


def test_uncertain_prompts_come_first_and_none_never() -> None:
    memory = torch.tensor([[1.0, 1.0], [9.0, 0.0], [NAN, NAN], [1.0, 9.0]])
    torch.testing.assert_close(UncertainFirst().weights(memory), torch.tensor([0.55, 0.05, 0.55, 0.35]))


class Scripted:
    """Draws responses of two tokens; the policy has moved by what it is told."""

    def __init__(self, moved: float) -> None:
        self.moved = moved

    async def generate(self, tokens: Any, *, n: int, **how: Any) -> list[Response]:
        return [Response([3, 99, 4], [-1.0, 0.0, -2.0], [0.1] * 3, "eos", own=[True, False, True]) for _ in range(n)]

    async def logprobs(self, tokens: Any, written: Any, *, temperature: float) -> Response:
        assert (tokens, written) == ((1, 2), (3, 99, 4))
        return Response(list(written), [-1.0 - self.moved, -50.0, -2.0], [0.1] * 3)


async def verdicts(responses: Any) -> list[Verdict]:
    return [Verdict(1.0, True, True, "") if i else Verdict(0.0, False, True, "") for i, _ in enumerate(responses)]


def draw(
    notes: dict[str, Any], moved: float, history: tuple[float, ...], name: str = "a", **how: Any
) -> list[Response]:
    program = Revisited(size=1, **how)
    context = Context(Scripted(moved), program, verdicts, notes=notes)  # type: ignore[arg-type]
    return asyncio.run(program.draw(Question((1, 2), 8, (0, 0, 0), history=history, name=name), context))


def test_a_new_prompt_is_answered_beforehand_and_its_last_response_is_scored_again() -> None:
    notes: dict[str, Any] = {}
    first = draw(notes, 0.0, (NAN, NAN), initial=4)
    assert [r.use for r in first] == ["train"] + ["pool"] * 4
    assert first[0].columns == {"drift": 0.0, "prior": 3.5 / 5}
    notes = json.loads(json.dumps(notes))  # as a checkpoint keeps it
    [again] = draw(notes, 0.3, (2.0, 3.0), initial=4)
    assert again.columns["drift"] == pytest.approx(0.15), "over its own tokens"
    draw(notes, 0.0, (NAN, NAN), name="b", prompts=1, initial=0)
    [lost] = draw(notes, 0.3, (2.0, 3.0), prompts=1)
    assert lost.columns["drift"] == math.inf, "it is no longer kept"
    assert draw({}, 0.3, (2.0, 3.0), scored=False)[0].columns["drift"] == 0


def test_a_resumed_run_is_the_same_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    def trained(name: str, *steps: int) -> Result:
        for i, n in enumerate(steps):
            settings: dict[str, Any] = {
                "steps": n, "batch": 4, "max_tokens": 4, "device": "cpu", "eval": {"prompts": 1, "samples": 0},
                "optim": {"lr": 1e-2}, "checkpoints": {"every": 1},
            }  # fmt: skip
            made = spo_single_stream(initial=1)
            config = TrainConfig(
                recipe=made, model=str(tiny_model), out=tmp_path / name, **write_task(tmp_path), **settings
            )
            result = run(config, resume=tmp_path / name if i else None, quiet=True)
        return result

    whole, halves = trained("whole", 4), trained("halves", 2, 4)
    one, other = (load_file(r.out / "model" / "model.safetensors") for r in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)
    last = lines(whole.out / "metrics.jsonl")[-1]
    assert last["rollout/revisited"] > 0 and last["rollout/drift"] > 1e-4, "the policy has moved since"
