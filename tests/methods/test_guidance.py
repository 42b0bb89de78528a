"""Methods that go on from the beginning of a worked solution, and the testbed for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.data import load_task
from policyopt.data.sparse import SLIP, running_sums
from policyopt.errors import UserError
from policyopt.judging.judges import make_judge
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.guidance.dr_po import dr_po
from policyopt.methods.guidance.ghpo import ghpo
from policyopt.methods.guidance.guide import Guided, guide
from policyopt.methods.guidance.keye_vl import keye_vl
from policyopt.methods.guidance.prefix_rl import Prefixed, prefix_rl
from policyopt.methods.guidance.scaf_grpo import Scaffold, scaf_grpo
from policyopt.methods.ratio.gspo import gspo
from policyopt.parts import Correctness, LogProb, TokenMean
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.sources.draw import DatasetReset, Demonstrated, Group, Hinted, Redraw
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.run import run
from tests.asking import ask
from tests.batches import dlogp, random_batch
from tests.cases.words._scripted import given_tokens
from tests.commands import lines, write_rows
from tests.methods.shared_guidance import RIGHT, SOLUTION, WRONG, Recorder, draw


def same_gradient(mine: Recipe, parent: Recipe, batch: Batch) -> None:
    torch.testing.assert_close(dlogp(mine, batch), dlogp(parent, batch), rtol=0, atol=0)
    assert dlogp(parent, batch).abs().max() > 1e-3


# Limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_without_hints_the_methods_are_their_parents(seed: int) -> None:
    batch = random_batch(seed)
    plain = grpo(kl_coef=0.0).replace(aggregate=TokenMean())
    same_gradient(scaf_grpo(), plain, batch)
    same_gradient(guide(), grpo(kl_coef=0.0), batch)
    same_gradient(prefix_rl(), plain.replace(surrogate=LogProb()), batch)
    same_gradient(keye_vl(), gspo(), batch)
    same_gradient(dr_po(reset=0.0, missing_end=None), ppo(), batch)
    shaped = plain.replace(shape=(Correctness(right=1.0, wrong=0.0, formatted=0.5),)).set("advantage.eps", 1e-4)
    same_gradient(ghpo(), shaped, batch)


@pytest.mark.parametrize("rollout", [Scaffold(size=4), Redraw(size=4), Guided(size=4)])
def test_a_group_with_a_success_is_drawn_and_kept_as_without_hints(rollout: Hinted) -> None:
    script, plain = Recorder([[WRONG, WRONG, RIGHT, WRONG]]), Recorder()
    drawn = draw(rollout, script)
    draw(Group(size=4), plain)
    assert script.requests == plain.requests, "one request, with the same key"
    assert [r.tokens for r in drawn] == [[0], [1], [2], [3]]
    assert not any(r.own or r.origin for r in drawn)


def test_a_failed_group_is_drawn_anew_up_the_ladder() -> None:
    script = Recorder([[WRONG] * 3, [WRONG] * 3, [WRONG, RIGHT, WRONG], [RIGHT] * 3])
    drawn = draw(Redraw(size=3), script)
    assert [given_tokens(r) for r in drawn] == [4, 4, 4], "all of the same stage"
    assert [tokens for tokens, _ in script.requests] == [(1, 2), (1, 2, *SOLUTION[:2]), (1, 2, *SOLUTION[:4])]
    assert [r.verdict for r in drawn] == [WRONG, RIGHT, WRONG]
    hopeless = draw(Redraw(size=3), Recorder())
    assert [given_tokens(r) for r in hopeless] == [6, 6, 6], "the strongest where none helps"


PROGRAMS = (
    Scaffold(size=2),
    Redraw(size=2),
    Guided(size=2),
    Prefixed(size=2),
    DatasetReset(size=2),
    Demonstrated(size=2),
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: type(p).__name__)
def test_a_prompt_without_a_solution_is_answered_by_the_policy_alone(program: Any) -> None:
    assert "solutions" in program.uses
    script = Recorder()
    drawn = draw(program, script, solution=())
    assert len(drawn) == 2
    assert not any(given_tokens(r) or r.origin for r in drawn)
    assert {tokens for tokens, _ in script.requests} == {(1, 2)}


def test_a_beginning_that_the_budget_cuts_is_counted() -> None:
    question, context = ask(None, (1,), 5, (0, 0, 0), solution=(*SOLUTION, 2))
    Hinted(hints=(0.25, 0.5, 1.0)).ladder(question, context)
    assert context.tally == {"beginnings_cut": 1}, "8 tokens do not fit into 5, 4 leave one"


def test_resets_are_uniform_and_never_the_whole_reference() -> None:
    drawn = draw(DatasetReset(size=4000), Recorder(), budget=100)
    starts = Counter(given_tokens(r) for r in drawn)
    assert sorted(starts) == [*range(1, 9)], "eight tokens and an end: at least the end is left"
    assert all(abs(n - 500) < 100 for n in starts.values())
    often = draw(DatasetReset(size=4000, share=0.7), Recorder(), budget=100)
    assert abs(sum(given_tokens(r) > 0 for r in often) / 4000 - 0.7) < 0.03
    assert not any(given_tokens(r) for r in draw(DatasetReset(size=5), Recorder(), solution=(2,)))
    assert max(given_tokens(r) for r in draw(DatasetReset(size=50), Recorder(), budget=4)) == 3


# Whole steps ----------------------------------------------------------------------------------------------------------

JUDGE = '''
def begins_well(prompt, response, answer):
    """Right with the first half of the answer line alone, and then about every second time."""
    good = response.startswith("#### a") and sum(map(ord, response)) % 2 == 0
    return {"score": float(good), "correct": good}
'''


@pytest.mark.parametrize(
    "recipe", [scaf_grpo(warmup_steps=0), guide(hints=(0.5,), place="response")], ids=lambda r: r.name
)
def test_hints_train_a_policy_that_fails_alone(recipe: Recipe, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    rows = ({"prompt": f"{i}?", "answer": "abcdefgh", "solution": "#### abcdefgh"} for i in range(32))
    config = TrainConfig(
        recipe=recipe, model=str(tiny_model), steps=1, batch=32, max_tokens=12, device="cpu", out=tmp_path / "run",
        task=str(write_rows(tmp_path / "data.jsonl", rows)), judge=f"{tmp_path / 'judge.py'}:begins_well",
        optim=Optim(lr=1e-3), eval=Evaluation(prompts=4, samples=0), log_samples=100, checkpoints=Checkpoints(keep=1),
    )  # fmt: skip
    out = run(config, quiet=True).out
    [step] = [row for row in lines(out / "metrics.jsonl") if row["step"] == 1]
    assert step["grad_norm"] > 0
    assert step.get("mismatch/max", 0.0) < 1e-4, "what is off-policy on purpose is no mismatch"
    trained = [row for row in lines(out / "samples.jsonl") if row["phase"] == "train"]
    right = [row for row in trained if row["correct"]]
    assert len(right) > 2
    for row in right:
        assert row["response"].startswith("#### a")
        assert any(row["weights"][:6]) == (recipe.name == "guide"), "Guide alone learns to write the hint"
    assert any(w > 0 for row in right for w in row["weights"][6:])


# The testbed ----------------------------------------------------------------------------------------------------------


def test_sparse_hard_is_a_chain_that_a_hurry_spoils() -> None:
    task, again = load_task("sparse-hard", heldout=16), load_task("sparse-hard", heldout=16)
    assert [task.train[i] for i in range(5)] == [again.train[i] for i in range(5)]
    assert task.train[0] != load_task("sparse-hard", seed=1, heldout=1).train[0]
    assert not {e.prompt[0]["content"] for e in task.heldout} & {task.train[i].prompt[0]["content"] for i in range(300)}
    judge = make_judge(task.judge)
    examples = [task.train[i] for i in range(300)]
    assert all(judge(e, e.solution).correct for e in examples)
    assert not any(judge(e, e.hasty).correct for e in examples), "even where the last sum is right by chance"
    assert not any(judge(e, e.solution.splitlines()[-1]).correct for e in examples), "the answer alone is not enough"
    assert all(len(e.solution) == len(e.hasty) < task.max_tokens for e in examples)
    same = sum(e.solution.splitlines()[-2][-1] == e.hasty.splitlines()[-2][-1] for e in examples)
    assert 10 < same < 90, "the last line is right now and then"
    assert running_sums([3, 8, 4, *[1] * 9], [False] * 12)[0][:3] == ["a3=3", "b8=1", "c4=5"]
    assert running_sums([3, 8, 4, *[1] * 9], [False, False, True, *[False] * 9])[0][2:4] == ["c4=4", "d1=5"]
    slips = [slip for e in examples for slip in e.meta["metadata"]["slips"]]
    assert abs(sum(slips) / len(slips) - SLIP) < 0.03


def test_sparse_hard_brings_its_own_judge() -> None:
    with pytest.raises(UserError, match="brings its own judge"):
        load_task("sparse-hard", judge="exact")
