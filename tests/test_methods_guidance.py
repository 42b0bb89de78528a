"""Methods that go on from the beginning of a worked solution, and the testbed for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.data import load_task
from policyopt.data.sparse import SLIP, running_sums
from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.judging.judges import make_judge
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.guidance.dr_po import dr_po
from policyopt.methods.guidance.ghpo import ghpo
from policyopt.methods.guidance.guide import Guided, Superseded, guide
from policyopt.methods.guidance.keye_vl import keye_vl
from policyopt.methods.guidance.prefix_rl import Prefixed, prefix_rl
from policyopt.methods.guidance.scaf_grpo import Scaffold, scaf_grpo, weakest
from policyopt.methods.ratio.gspo import gspo
from policyopt.objective import selected
from policyopt.parts import Correctness, LogProb, TokenMean
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.sources.draw import DatasetReset, Demonstrated, Group, Hinted, Redraw
from policyopt.sources.draw.hint import hint_length
from policyopt.sources.program import Response
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.rows import to_batch
from policyopt.training.run import run
from tests.asking import ask
from tests.batches import dlogp, random_batch
from tests.cases.words._scripted import Script, begun_mask, given_tokens, play, verdict
from tests.commands import lines, write_rows
from tests.tiny import load_tiny

RIGHT, WRONG = verdict(1.0), verdict(0.0)
SOLUTION = (11, 12, 13, 14, 15, 16, 17, 18)


class Recorder(Script):
    """A script that writes down what it was asked."""

    def __init__(self, rounds: Sequence[Sequence[Any]] = ()) -> None:
        super().__init__(rounds)
        self.requests: list[tuple[tuple[int, ...], dict[str, Any]]] = []

    async def generate(self, tokens: Sequence[int], **how: Any) -> list[Response]:
        self.requests.append((tuple(tokens), how))
        return await super().generate(tokens, **how)


def draw(rollout: Any, sampler: Any, key: tuple[int, ...] = (0, 0, 0), budget: int = 20, **how: Any) -> list[Response]:
    """What a program returns for a prompt of two tokens."""
    asked = ask(sampler, (1, 2), budget, key, sampler.judge, how.get("solution", (*SOLUTION, 2)), program=rollout)
    return asyncio.run(rollout.draw(*asked))


def same_gradient(mine: Recipe, parent: Recipe, batch: Batch) -> None:
    torch.testing.assert_close(dlogp(mine, batch), dlogp(parent, batch), rtol=0, atol=0)
    assert dlogp(parent, batch).abs().max() > 1e-3


# Limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_without_hints_the_methods_are_their_parents(seed: int) -> None:
    batch = random_batch(seed)
    plain = grpo(kl_coef=0.0).replace(aggregate=TokenMean())
    same_gradient(scaf_grpo(), plain, batch)
    same_gradient(guide(), plain, batch)
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


def test_prefixes_of_no_length_and_resets_of_no_probability_are_a_group() -> None:
    plain = Recorder()
    draw(Group(size=3), plain)
    for i in range(6):
        script = Recorder()
        drawn = draw(Prefixed(size=3, low=0.0, high=0.0), script, key=(0, 0, i))
        assert script.requests[0][0] == plain.requests[0][0]
        assert not any(r.own for r in drawn)
    script = Recorder()
    assert not any(r.own for r in draw(DatasetReset(size=3, share=0.0), script))
    assert {tokens for tokens, _ in script.requests} == {(1, 2)}


# Hints ----------------------------------------------------------------------------------------------------------------


def test_the_weakest_hint_that_works_rescues_one_response() -> None:
    script = Recorder([[WRONG] * 4, [WRONG], [RIGHT], [WRONG], [RIGHT]])
    drawn = draw(Scaffold(size=4, hints=(0.25, 0.5, 0.75, 1.0)), script)
    asked = [tokens for tokens, _ in script.requests]
    assert asked == [(1, 2), *((1, 2, *SOLUTION[:n]) for n in (2, 4, 6, 8))], "each level once, whatever the others did"
    assert [how["max_tokens"] for _, how in script.requests] == [20, 18, 16, 14, 12]
    assert len({how["key"] for _, how in script.requests}) == 5
    rescued = drawn[0]
    assert rescued.tokens == [*SOLUTION[:4], 5]
    assert rescued.own == [False] * 4 + [True]
    assert len(rescued.logp) == len(rescued.entropy) == 5
    assert [r.tokens for r in drawn[1:]] == [[1], [2], [3]], "the others stay"


def test_a_failed_group_stays_where_no_hint_helps_or_none_is_due() -> None:
    hopeless = Recorder([[WRONG] * 4])
    assert [r.tokens for r in draw(Scaffold(size=4), hopeless)] == [[0], [1], [2], [3]]
    assert hopeless.asked == 4
    for step, asked in ((0, 1), (2, 1), (3, 4)):
        early = Recorder([[WRONG] * 4, [RIGHT]])
        draw(Scaffold(size=4, warmup=3), early, key=(0, step, 0))
        assert early.asked == asked


def test_a_rescued_group_has_one_positive_advantage() -> None:
    drawn = play(scaf_grpo(group_size=8, warmup_steps=0).source, Script([[WRONG] * 8, [RIGHT]]), solution=18)
    batch = to_batch([()] * 8, drawn, [r.verdict for r in drawn if r.verdict], [0] * 8, 20, torch.float64)
    advantage = (scaf_grpo().advantage(batch) * batch.terminal()).sum(-1)
    assert advantage[0] == pytest.approx(7 / 8**0.5, rel=1e-5)
    assert advantage[1:].tolist() == pytest.approx([-1 / 8**0.5] * 7, rel=1e-5)


def test_a_failed_group_is_drawn_anew_up_the_ladder() -> None:
    script = Recorder([[WRONG] * 3, [WRONG] * 3, [WRONG, RIGHT, WRONG], [RIGHT] * 3])
    drawn = draw(Redraw(size=3), script)
    assert [given_tokens(r) for r in drawn] == [4, 4, 4], "all of the same stage"
    assert [tokens for tokens, _ in script.requests] == [(1, 2), (1, 2, *SOLUTION[:2]), (1, 2, *SOLUTION[:4])]
    assert [r.verdict for r in drawn] == [WRONG, RIGHT, WRONG]
    hopeless = draw(Redraw(size=3), Recorder())
    assert [given_tokens(r) for r in hopeless] == [6, 6, 6], "the strongest where none helps"


def test_a_hint_leaves_the_policy_something_to_write() -> None:
    ladder = Hinted(hints=(0.5, 1.0)).ladder(*ask(None, (1,), 5, (0, 0, 0), solution=(*SOLUTION, 2)))
    assert ladder == [SOLUTION[:4], SOLUTION[:4]], "one token of the budget"
    ladder = Hinted(hints=(0.5, 1.0)).ladder(*ask(None, (1,), 50, (0, 0, 0), solution=(*SOLUTION, 2)))
    assert ladder[-1] == SOLUTION, "the end token"
    assert [hint_length(10, share) for share in (0.25, 0.5, 0.75)] == [2, 5, 8], "half to even"
    assert weakest([False, True, True]) == 1
    assert weakest([False]) is None


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


def test_bad_hints_are_refused() -> None:
    for hints in ((), (0.5, 0.25), (0.0, 0.5), (0.5, 0.5)):
        with pytest.raises(ValidationError, match="the weakest first"):
            Hinted(hints=hints)
    with pytest.raises(ValidationError):
        Hinted(hints=(0.5, 1.5))
    with pytest.raises(ValidationError, match="below low"):
        Prefixed(low=0.6, high=0.5)


# Guide ----------------------------------------------------------------------------------------------------------------


def test_guided_rows_are_likelier_with_the_hint_than_without(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)
    prompt, solution = (40, 41, 42), (*range(50, 58), 2)

    async def judge(responses: Sequence[Response]) -> list[Any]:
        return [WRONG] * len(responses)

    program = Guided(size=3, hints=(0.5,), temperature=0.8)
    asked = ask(sampler, prompt, 16, (0, 0, 0), judge, solution, program=program)
    plain_and_guided = sampler.run([program.draw(*asked)])[0]
    assert [r.origin for r in plain_and_guided] == [0, 0, 0, 1, 1, 1]
    scores = [sampler.logprobs(prompt, tuple(r.tokens), temperature=0.8) for r in plain_and_guided]
    for response, scored in zip(plain_and_guided, sampler.run(scores), strict=True):
        hint = 4 * response.origin
        assert response.tokens[:hint] == list(solution[:hint])
        assert response.logp[:hint] == [0.0] * hint, "who has the hint copies it"
        assert response.logp[hint:] == pytest.approx(scored.logp[hint:], abs=1e-6), "and goes on as the policy does"
        assert not response.own, "all of it is trained on"
        assert all(x < 0 for x in scored.logp)


def test_guided_rows_take_the_place_of_plain_ones_or_join_them() -> None:
    batch = random_batch(groups=(4, 3, 2)).replace(origin=torch.tensor([0, 0, 1, 1, 0, 0, 0, 0, 0]))
    assert Superseded()(batch).tolist() == [False, False, *[True] * 7]
    assert selected(guide(), batch).tolist() == [False, False, *[True] * 7]
    assert selected(guide(mode="mix"), batch).all()
    guided = guide().advantage(batch.replace(reward=torch.tensor([0.0, 0, 1, 0, *[0.0] * 5]))).amax(-1)
    assert guided.tolist() == pytest.approx([0, 0, 0.5**0.5, 0, *[0.0] * 5], rel=1e-5), "guided rows among themselves"
    mixed = guide(mode="mix").advantage(batch.replace(reward=torch.tensor([0.0, 0, 1, 0, *[0.0] * 5]))).amin(-1)
    assert (mixed[[0, 1, 3]] < 0).all(), "failed rows have a negative advantage once one guided row is right"
    assert Superseded()(batch.replace(origin=None)).all()
    order = torch.tensor([8, 2, 0, 5, 1, 3, 4, 7, 6])
    assert torch.equal(Superseded()(batch[order]), Superseded()(batch)[order])


# Prefixes and resets --------------------------------------------------------------------------------------------------


def test_a_question_comes_with_a_few_prefixes_that_never_change() -> None:
    seen: Counter[int] = Counter()
    for i in range(80):
        group = draw(Prefixed(size=3), Recorder(), key=(i % 5, i, 0))
        [start] = {given_tokens(r) for r in group}
        assert all(r.tokens[:start] == list(SOLUTION[:start]) for r in group)
        seen[start] += 1
    assert 2 <= len(seen) <= 4, "at most three cuts, and none"
    assert 8 <= seen.pop(0) <= 34
    assert all(0.4 * 8 - 1 < start < 0.8 * 8 for start in seen)
    assert Prefixed(low=0.4, high=0.8).length(37, 0.03) == 15


def test_what_others_wrote_has_no_gradient_and_no_weight() -> None:
    """Rows that begin with a prefix train as the same rows do without it."""
    batch = random_batch(lengths=(5,) * 9)
    start = [2, 2, 2, 2, 0, 0, 0, 3, 3]
    mask = begun_mask([[1, 1, 1, 1, 1, 0]] * 9, start)
    assert mask.sum(-1).tolist() == [5 - h for h in start]
    noisy = batch.replace(mask=mask, logp=torch.where(mask > 0, batch.logp, torch.nan))
    found = dlogp(prefix_rl(), noisy)
    assert (found[mask == 0] == 0).all()
    shifted = torch.stack([row.roll(-h) for row, h in zip(batch.logp, start, strict=True)])
    rest = torch.stack([row.roll(-h) for row, h in zip(mask, start, strict=True)])
    short = dlogp(prefix_rl(), batch.replace(mask=rest, logp=shifted))
    back = torch.stack([row.roll(h) for row, h in zip(short, start, strict=True)])
    torch.testing.assert_close(found, back)


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


@pytest.mark.parametrize("recipe", [scaf_grpo(warmup_steps=0), guide(hints=(0.5,))], ids=lambda r: r.name)
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
