"""The page of clpo."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.methods.group.grpo import grpo
from policyopt.methods.guidance.clpo import (
    Kind,
    KLByDifficulty,
    PolicyRewriter,
    ReorderedSum,
    Restructured,
    Rewriter,
    clpo,
    fenced,
    stands,
)
from policyopt.objective import credit, kept
from policyopt.parts import MixedOutcomes, TokenMean
from policyopt.rows import make_batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response
from tests.batches import dlogp, random_batch
from tests.commands import lines, write_rows
from tests.methods.shared_words import Scribe, batch_of, draw, text_of

# CLPO -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_without_rewrites_and_with_one_strength_clpo_is_grpo_on_mixed_groups(seed: int) -> None:
    batch = random_batch(seed)
    plain = grpo(kl_coef=0.1).replace(aggregate=TokenMean(), filter=(MixedOutcomes(),))
    mine = clpo(rewrite="none", kl_coef=0.1, kl_scale_hard=1.0)
    torch.testing.assert_close(dlogp(mine, batch), dlogp(plain, batch), rtol=0, atol=0)
    assert dlogp(plain, batch).abs().max() > 1e-3
    assert kept(mine, batch).tolist() == kept(plain, batch).tolist()
    drawn, scribe, _ = draw(mine.source, lambda *_: "5")
    alone, once, _ = draw(Group(size=4), lambda *_: "5")
    assert (scribe.asked, scribe.how) == (once.asked, once.how)
    assert [r.tokens for r in drawn] == [r.tokens for r in alone]


def test_bounds_are_inclusive_above_and_the_filter_shuts_out_both_ends() -> None:
    rollout = Restructured()
    labels = {0.0: "hard", 0.3: "hard", 3 / 10: "hard", 0.31: "medium", 7 / 10: "medium", 0.71: "easy", 1.0: "easy"}
    assert {share: rollout.difficulty(share) for share in labels} == labels
    assert [rollout.kind(x) for x in ("hard", "medium", "easy")] == ["simplify", "diversify", None]
    assert [Restructured(rewrite="hard").kind(x) for x in ("hard", "medium", "easy")] == ["simplify", None, None]
    with pytest.raises(ValidationError, match="below hard"):
        Restructured(hard=0.6, medium=0.5)


def test_a_failed_question_trains_through_its_rewrite_alone() -> None:
    """All wrong as it was asked, mixed in other words: only the rewrite's rows stay, and they are hard."""

    def write(context: str, i: int) -> str:
        return "no" if context == "[7-3+2]" else ("6" if i % 2 else "5")

    drawn, scribe, prompt = draw(Restructured(size=4, rewriter=ReorderedSum()), write)
    assert scribe.asked == [("[7-3+2]", 4), ("[7+2-3]", 4)]
    assert scribe.how[0]["key"] != scribe.how[1]["key"]
    assert [r.origin for r in drawn] == [0] * 4 + [1] * 4
    assert [text_of(r.context) for r in drawn] == [""] * 4 + ["[7+2-3]"] * 4
    assert prompt.tally == {
        "hard_prompts": 1, "medium_prompts": 0, "easy_prompts": 0, "rewrites_asked": 1, "rewrites_used": 1,
        "rewrites_mixed": 1,
    }  # fmt: skip
    recipe, batch = clpo(), batch_of(drawn)
    assert text_of(batch.prompt[4].tolist()) == "[7+2-3]", "it is trained on behind the rewrite"
    assert batch.pass_rate.tolist() == [0.0] * 8, "of the question as it was asked"
    assert kept(recipe, batch).tolist() == [False] * 4 + [True] * 4
    rest = credit(recipe, batch[kept(recipe, batch)])
    assert rest.advantage[:, 0].tolist() == pytest.approx([-(0.75**0.5), 0.75**0.5] * 2, rel=1e-5)
    assert recipe.regularizers[0].picked(rest).tolist() == [0.5] * 4  # type: ignore[attr-defined]


def test_a_question_and_its_rewrite_are_never_compared() -> None:
    """A quarter right as it was asked, three quarters in other words: each row against its own group."""

    def write(context: str, i: int) -> str:
        return "6" if (i == 0) == (context == "[7-3+2]") else "5"

    drawn, _, _ = draw(Restructured(size=4, rewriter=ReorderedSum()), write)
    recipe, batch = clpo(), batch_of(drawn)
    assert kept(recipe, batch).all()
    advantage = credit(recipe, batch).advantage[:, 0].tolist()
    assert advantage == pytest.approx([1.5, -0.5, -0.5, -0.5, -1.5, 0.5, 0.5, 0.5], rel=1e-5)
    assert set(batch.pass_rate.tolist()) == {0.25}


def test_a_solved_question_is_neither_rewritten_nor_trained_on() -> None:
    drawn, scribe, prompt = draw(Restructured(size=3), lambda *_: "6")
    assert scribe.asked == [("[7-3+2]", 3)]
    assert not kept(clpo(), batch_of(drawn)).any()
    assert (prompt.tally["easy_prompts"], prompt.tally["rewrites_asked"]) == (1, 0)


def test_the_kl_pulls_half_as_hard_on_rows_of_hard_questions() -> None:
    batch = random_batch().replace(advantage=torch.zeros(9, 6, dtype=torch.float64))
    part = KLByDifficulty(coef=0.2)
    plain = KLByDifficulty(coef=0.2, hard=1.0)
    rates = torch.tensor([0.0, 0.3, 0.31] * 3, dtype=torch.float64)

    def slope(part: KLByDifficulty) -> torch.Tensor:
        logp = batch.logp.clone().requires_grad_()
        found = part(batch.replace(logp=logp, pass_rate=rates))
        return torch.autograd.grad((found * batch.mask).sum(), logp)[0]

    scale = torch.tensor([0.5, 0.5, 1.0] * 3, dtype=torch.float64)[:, None]
    torch.testing.assert_close(slope(part), slope(plain) * scale, rtol=1e-12, atol=0)
    assert slope(plain).abs().max() > 0.01
    rates32 = torch.tensor([3 / 10, 0.3000001], dtype=torch.float32)
    small = make_batch(mask=torch.ones(2, 1), pass_rate=rates32)
    assert part.picked(small).tolist() == [0.5, 1.0], "the bound is inclusive in float32 too"


# Rewriters


def rewritten(rewriter: Rewriter, said: str, kind: Kind = "simplify", **how: Any) -> tuple[str | None, Scribe, Context]:
    """What a rewriter makes of what the policy says."""
    found: list[str | None] = []

    class Once(Group):
        async def draw(self, question: Question, context: Context) -> list[Response]:
            found.append(await rewriter(question, context, kind))
            return []

    _, scribe, prompt = draw(Once(), lambda *_: said, **how)
    return found[0], scribe, prompt


def test_the_policy_is_shown_question_and_answer_and_its_first_fence_is_the_rewrite() -> None:
    policy = PolicyRewriter()
    text, scribe, _ = rewritten(policy, "Sure:\n```text\n what is 7 less 3, plus 2? \n``` or ```2```", answer="6")
    assert text == "what is 7 less 3, plus 2?"
    [(context, n)] = scribe.asked
    assert n == 1
    assert policy.simplify in context
    assert "7-3+2" in context
    assert "must stay 6" in context
    assert (scribe.how[0]["temperature"], scribe.how[0]["max_tokens"]) == (0.7, 400)
    _, other, _ = rewritten(policy, "", "diversify")
    assert policy.diversify in other.asked[0][0]
    assert policy.simplify not in other.asked[0][0]


def test_what_counts_as_a_fence() -> None:
    assert fenced("no fence") == "no fence"
    assert fenced("```one two```") == "one two"
    assert fenced("a ```math\nx\n``` b ```\ny\n```") == "x"
    assert fenced("cut ```text\nshort") == "short"
    assert fenced("``````") == ""


def test_rewrites_of_no_use_are_dropped_and_those_that_tell_the_answer_are_counted() -> None:
    for said, rewriter in (("abc", PolicyRewriter()), ("", PolicyRewriter()), ("x" * 40, PolicyRewriter(longest=39))):
        assert rewritten(rewriter, said)[0] is None
    telling = "7-3=4\n#### 6"
    text, _, prompt = rewritten(PolicyRewriter(), telling)
    assert text is None
    assert prompt.tally == {"rewrites_telling": 1}
    assert rewritten(PolicyRewriter(hide=False), telling)[0] == telling
    assert rewritten(PolicyRewriter(), "take 3 from 7 of 16")[0] is not None, "a part of a number tells nothing"
    assert rewritten(PolicyRewriter(), "is 6 or 7 larger?", question="6 or 7?")[0] is not None, "the question had it"
    assert [stands("6", x) for x in ("is 6.", "6.5", "1.6", "66", "-6", "six")] == [
        True,
        False,
        False,
        False,
        True,
        False,
    ]


def test_a_request_or_a_rewrite_that_does_not_fit_is_dropped_and_counted() -> None:
    text, scribe, _ = rewritten(PolicyRewriter(), "what is it", room=60)
    assert text is None
    assert not scribe.asked
    long = PolicyRewriter(simplify="s", diversify="d")
    _, scribe, _ = rewritten(long, "what is it", room=150)
    request = len(scribe.asked[0][0])
    assert scribe.how[0]["max_tokens"] == 150 - request + 9, "what the model's context leaves"

    class Wordy(Rewriter):
        async def __call__(self, question: Question, context: Context, kind: Kind) -> str:
            return "w" * 20

    drawn, scribe, prompt = draw(Restructured(size=2, rewriter=Wordy()), lambda *_: "5", room=21)
    assert len(drawn) == 2
    assert (prompt.tally["rewrites_asked"], prompt.tally["rewrites_used"]) == (1, 0)


def test_a_sum_in_another_order_is_the_same_sum() -> None:
    chance = random.Random(0)
    changed = 0
    for _ in range(200):
        terms = [str(chance.randint(1, 30))]
        terms += [chance.choice("+-") + str(chance.randint(1, 30)) for _ in range(chance.randint(1, 4))]
        question = "what is " + chance.choice(["", " "]).join(terms) + "=?"
        for kind in ("simplify", "diversify"):
            text, _, _ = rewritten(ReorderedSum(), "", kind, question=question)
            if text is None:
                continue
            changed += 1
            before, after = (x.removeprefix("what is ").removesuffix("=?") for x in (question, text))
            assert text != question
            assert eval(before) == eval(after)
            assert after[0].isdigit()
            if kind == "simplify":
                assert "+" not in after.partition("-")[2], "nothing is subtracted before all is added"
    assert changed > 200


@pytest.mark.parametrize("question", ["3*x + 5 = 26", "reverse ab-cd", "2*3+4", "(1-2+3)", "make 7 from 3 5 9", "5-5"])
def test_what_is_no_sum_by_itself_is_left_alone(question: str) -> None:
    for kind in ("simplify", "diversify"):
        assert rewritten(ReorderedSum(), "", kind, question=question)[0] is None


JUDGE = '''
def by_prompt(prompt, response, answer):
    """Right by chance for some questions; whoever reads a rewrite instead of the question raises."""
    assert prompt == f"{answer}+1-1=?", prompt
    return {"score": 1.0, "correct": True} if sum(map(ord, response)) % 2 else {"score": 0.0, "correct": False}
'''


@pytest.mark.parametrize("rewriter", ["policy", "reorder"])
def test_a_run_rewrites_and_says_so(tiny_model: Path, tmp_path: Path, rewriter: Any) -> None:
    from policyopt.training.config import Checkpoints, Evaluation, TrainConfig
    from policyopt.training.run import run

    (tmp_path / "judge.py").write_text(JUDGE)
    data = write_rows(tmp_path / "data.jsonl", ({"prompt": f"{i}+1-1=?", "answer": str(i)} for i in range(16)))
    config = TrainConfig(
        recipe=clpo(rewriter=rewriter), model=str(tiny_model), steps=2, batch=24, max_tokens=12, device="cpu",
        task=str(data), judge=f"{tmp_path / 'judge.py'}:by_prompt", out=tmp_path / "run", log_samples=100,
        eval=Evaluation(prompts=2, samples=0), checkpoints=Checkpoints(keep=1),
    )  # fmt: skip
    out = run(config, quiet=True).out
    metrics = lines(out / "metrics.jsonl")[1:]
    assert (
        sum(row["rollout/rewrites_asked"] for row in metrics)
        >= sum(row["rollout/rewrites_used"] for row in metrics)
        > 0
    )
    assert all(sum(row[f"rollout/{x}_prompts"] for x in ("hard", "medium", "easy")) == 6 for row in metrics)
    assert all(row["judge/failed"] == 0 for row in metrics), "judges see the question as the task has it"
    samples = [row for row in lines(out / "samples.jsonl") if row["phase"] == "train"]
    other = {row["prompt"] for row in samples} - {f"{i}+1-1=?" for i in range(16)}
    assert other, "the log shows what was asked"
