"""Methods that put words between two draws: questions in other words, and answers after a critique."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.items import Verdict
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
from policyopt.methods.guidance.critique_grpo import (
    FunctionCritique,
    PolicyShaping,
    Refined,
    SelfCritique,
    VerdictInWords,
    critique_grpo,
    pick,
)
from policyopt.objective import credit, kept
from policyopt.parts import (
    EntropyBonus,
    MixedOutcomes,
    PPOClip,
    RatioTimesAdvantage,
    SeqMeanTokenSumNorm,
    SumOverRows,
    TokenMean,
)
from policyopt.rows import make_batch, masked_mean
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response
from policyopt.training.rows import to_batch
from tests.asking import ask
from tests.batches import dlogp, gradients, random_batch, ready
from tests.commands import lines, write_rows
from tests.tiny import load_tiny


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def text_of(ids: Sequence[int]) -> str:
    return "".join(chr(i) for i in ids if i)


class Scribe:
    """A sampler that writes what a function of the context and of the place in the request says, a character a token;
    id 0 ends. It keeps what it was asked."""

    def __init__(self, write: Callable[[str, int], str]) -> None:
        self.write = write
        self.asked: list[tuple[str, int]] = []
        self.how: list[dict[str, Any]] = []

    async def generate(self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, **how: Any) -> list[Response]:
        context = text_of(tokens)
        self.asked.append((context, n))
        self.how.append({"max_tokens": max_tokens, **how})
        written = [[*ids_of(self.write(context, i)), 0][:max_tokens] for i in range(n)]
        return [Response(x, [-1.0] * len(x), [0.5] * len(x), "eos" if x[-1] == 0 else "length") for x in written]

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        return Response(list(written), [-2.0] * len(written), [0.7] * len(written), temperature=temperature)


def draw(
    rollout: Any, write: Callable[[str, int], str], question: str = "7-3+2", answer: str = "6", **how: Any
) -> tuple[list[Response], Scribe, Context]:
    """What a program draws for a question that is asked between brackets; right is what holds the answer."""

    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        right = [answer in text_of(r.tokens) for r in responses]
        return [Verdict(float(ok), ok, True, "") for ok in right]

    scribe = Scribe(write)
    asked = ask(
        scribe, ids_of(f"[{question}]"), 9, (0, 0, 0), judge, encode=ids_of, decode=text_of, text=question, answer=answer,
        frame=lambda text: ids_of(f"[{text}]"), room=how.get("room", 1 << 20), program=rollout,
    )  # fmt: skip

    async def whole() -> list[Response]:
        drawn: list[Response] = await rollout.draw(*asked)
        return drawn

    return asyncio.run(whole()), scribe, asked[1]


def batch_of(drawn: Sequence[Response]) -> Any:
    """Responses to one prompt that are judged where they were not, as a batch in float64."""
    verdicts = [
        r.verdict or Verdict(float("6" in text_of(r.tokens)), "6" in text_of(r.tokens), True, "") for r in drawn
    ]
    return to_batch([(1,)] * len(drawn), drawn, verdicts, [0] * len(drawn), 9, torch.float64)


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


def test_the_pass_rate_is_of_what_the_main_program_sampled() -> None:
    def row(right: bool, source: int = 0, use: Any = "train") -> Response:
        said = Verdict(float(right), right, True, "")
        return Response([5], [-1.0], [0.0], "eos", origin=source, use=use, verdict=said)

    rows = [row(True), row(False), row(True, source=1), row(True, use="baseline"), row(False, use="pool"), row(True)]
    said = [r.verdict for r in rows if r.verdict]
    batch = to_batch([(1,)] * 6, rows, said, [0, 0, 0, 0, 0, 3], 1, torch.float64)
    assert batch.pass_rate.tolist() == pytest.approx([1 / 3] * 5 + [1.0])
    beside = to_batch([(1,)], rows[2:3], said[2:3], [0], 1, torch.float64)
    assert beside.pass_rate.tolist() == [0.0]


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


# Critique-GRPO --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_without_refinements_critique_grpo_is_unclipped_grpo_over_a_constant(seed: int) -> None:
    batch = random_batch(seed)
    plain = grpo(kl_coef=0.0).replace(surrogate=RatioTimesAdvantage(), aggregate=SeqMeanTokenSumNorm(norm=40.0))
    mine = critique_grpo(loss_norm=40.0, entropy_coef=0.0)
    for given in (batch, batch.replace(origin=torch.zeros(9))):
        torch.testing.assert_close(dlogp(mine, given), dlogp(plain, given) * 9, rtol=1e-12, atol=0)
    assert dlogp(mine, batch).abs().max() > 1e-3
    torch.testing.assert_close(SumOverRows(inner=SeqMeanTokenSumNorm())(batch), batch.mask / batch.budget[:, None])


def refined_batch() -> Any:
    """The first row of each group was refined."""
    return random_batch().replace(origin=torch.tensor([1, 0, 0, 0, 1, 0, 0, 1, 0]))


def test_a_refinement_counts_by_its_probability_now_and_by_nothing_else() -> None:
    recipe, batch = critique_grpo(shape_gamma=0.1, loss_norm=7.0, entropy_coef=0.0), refined_batch()
    got, auxiliary = dlogp(recipe, batch), batch.origin > 0
    p = batch.logp.exp()
    advantage = ready(recipe, batch).advantage
    torch.testing.assert_close(got[auxiliary], (-advantage * 0.1 * p / (p + 0.1) ** 2 * batch.mask / 7)[auxiliary])
    torch.testing.assert_close(got[~auxiliary], (-advantage * (batch.logp - batch.old_logp).exp() / 7)[~auxiliary])
    moved = batch.replace(old_logp=batch.old_logp - 800 * auxiliary[:, None])
    torch.testing.assert_close(dlogp(recipe, moved), got, rtol=0, atol=0)
    assert (got[auxiliary] * advantage[auxiliary] <= 0).all(), "a bad refinement is pushed down, a good one up"
    assert {bool(x > 0) for x in advantage[auxiliary][:, 0]} == {False}, "the first rows are wrong in this batch"


def test_the_shaped_weight_is_bounded_and_has_its_limits() -> None:
    logp = torch.tensor([-0.0, -1e-6, -0.1, math.log(0.1), -5.0, -60.0, -1e4], dtype=torch.float64)
    p = logp.exp()
    torch.testing.assert_close(PolicyShaping(gamma=0.1).shaped(logp), p / (p + 0.1))
    assert (PolicyShaping(gamma=1e-300).shaped(logp[:5]) == 1).all()
    torch.testing.assert_close(PolicyShaping(gamma=1e9).shaped(logp) * 1e9, p)
    x = torch.linspace(-8, 0, 4001, dtype=torch.float64, requires_grad=True)
    for gamma in (0.02, 0.1, 0.5):
        slope = torch.autograd.grad(PolicyShaping(gamma=gamma).shaped(x).sum(), x)[0]
        assert float(x.detach()[slope.argmax()]) == pytest.approx(math.log(gamma), abs=2e-3)
    with pytest.raises(ValidationError):
        PolicyShaping(gamma=0.0)


def test_shaping_joins_any_surrogate() -> None:
    batch = refined_batch()
    clipped = grpo(kl_coef=0.0)
    mixed = clipped.replace(surrogate=PolicyShaping(inner=PPOClip(low=0.2, high=0.2)))
    own = batch.origin == 0
    torch.testing.assert_close(dlogp(mixed, batch)[own], dlogp(clipped, batch)[own], rtol=1e-12, atol=0)


def test_the_entropy_bonus_is_a_mean_over_tokens_however_losses_are_added_up() -> None:
    recipe, batch = critique_grpo(entropy_coef=0.3), random_batch(gaps=True)
    without = critique_grpo(entropy_coef=0.0)
    (loss, found), (other, _) = gradients(recipe, ready(recipe, batch)), gradients(without, ready(without, batch))
    torch.testing.assert_close(loss - other, -0.3 * masked_mean(batch.entropy, batch.mask))
    torch.testing.assert_close(found["entropy"], -0.3 * batch.mask / batch.mask.sum())
    summed = recipe.replace(regularizers=(EntropyBonus(coef=0.3),))
    assert recipe.unit == "batch"
    assert summed.unit == "token"


def said(*scores: float) -> list[Verdict]:
    return [Verdict(s, s == 1, True, "") for s in scores]


def test_the_first_right_refinement_is_picked_otherwise_the_first_of_the_best() -> None:
    assert [pick(said(*x)) for x in ((0, 0.3, 1, 1), (0.2, 0, 0.5, 0.5), (1, 0), (0,), (-1, -0.5))] == [2, 2, 0, 0, 1]
    assert pick([Verdict(3.0, False, True, ""), Verdict(0.5, True, True, "")]) == 1


def test_the_refinement_takes_the_first_place_behind_the_plain_question() -> None:
    def write(context: str, i: int) -> str:
        if context == "[7-3+2]":
            return "first" if i == 0 else f"{i} six 6"
        return "now 6" if "first" in context or "2 six" in context else "worse"

    drawn, scribe, prompt = draw(Refined(size=3), write)
    assert [n for _, n in scribe.asked] == [3, 1, 1, 1]
    assert len({how["key"] for how in scribe.how}) == 4
    contexts = [context for context, _ in scribe.asked[1:]]
    for i, (text, verdict) in enumerate((("first", "wrong"), ("1 six 6", "right"), ("2 six 6", "right"))):
        assert contexts[i].startswith(f"[7-3+2\n\n{text}\n\nThis is {verdict}. The answer is 6. Answer again")
    assert [text_of(r.tokens) for r in drawn] == ["now 6", "1 six 6", "2 six 6"]
    assert [r.origin for r in drawn] == [1, 0, 0]
    assert not any(r.context for r in drawn), "it answers the plain question"
    assert set(drawn[0].logp) == {-2.0}, "as the policy that is asked it would"
    assert drawn[0].finished
    assert [bool(r.verdict and r.verdict.correct) for r in drawn] == [True] * 3
    assert prompt.tally == {"refinements_asked": 3, "refinements_drawn": 3, "refinements_right": 2}


def test_a_group_whose_refinements_have_no_room_stays_as_it_is() -> None:
    drawn, scribe, prompt = draw(Refined(size=3), lambda *_: "5", room=20)
    assert len(scribe.asked) == 1
    assert [r.origin for r in drawn] == [0, 0, 0]
    assert prompt.tally == {"refinements_asked": 3, "refinements_drawn": 0, "refinements_right": 0}


def test_a_wrong_refinement_among_right_answers_is_pushed_down() -> None:
    drawn, _, _ = draw(Refined(size=4), lambda context, _: "6" if context == "[7-3+2]" else "5")
    recipe = critique_grpo(group_size=4)
    batch = credit(recipe, batch_of(drawn))
    assert batch.advantage[:, 0].tolist() == pytest.approx([-1.5, 0.5, 0.5, 0.5], rel=1e-5)


def critics(context: str, _: int) -> str:
    return "hm" if "Is this right?" in context else "5"


def test_critiques() -> None:
    def contexts(critique: Any, **how: Any) -> list[str]:
        _, scribe, _ = draw(Refined(size=1, critique=critique), critics, **how)
        return [context for context, _ in scribe.asked[1:]]

    assert "\n\nThis is wrong. Answer again" in contexts(VerdictInWords(show_answer=False))[0]
    asked, refined = contexts(SelfCritique())
    assert asked == "[7-3+2\n\n5\n\nIs this right? Say what is wrong with it.]"
    assert "\n\nhm Answer again" in refined
    assert contexts(SelfCritique(), room=50)[0].startswith("[7-3+2\n\n5\n\n Answer"), "it says nothing"


def test_a_function_may_criticise(tmp_path: Path) -> None:
    file = tmp_path / "critic.py"
    file.write_text(
        "def words(question, response, answer, verdict):\n"
        "    return f'{question}|{response}|{answer}|{verdict.correct}'\n"
        "def number(*_):\n    return 3\nnothing = None\n"
    )
    _, scribe, _ = draw(critique_grpo(critique=f"{file}:words", group_size=2).source, lambda *_: "5")
    assert "7-3+2|5|6|False Answer again" in scribe.asked[1][0]
    with pytest.raises(UserError, match="returned int, expected a text"):
        draw(Refined(size=1, critique=FunctionCritique(function=f"{file}:number")), lambda *_: "5")
    for name in (f"{file}:gone", f"{tmp_path}/gone.py:words", "no.module:words"):
        with pytest.raises(ValidationError, match="cannot be found"):
            critique_grpo(critique=name)
    with pytest.raises(ValidationError, match="is no function"):
        critique_grpo(critique=f"{file}:nothing")
    with pytest.raises(ValueError, match="one of simple, simple_gt, self, or a function"):
        critique_grpo(critique="simplest")


# Whole steps ----------------------------------------------------------------------------------------------------------


def test_a_refinement_has_the_log_probabilities_of_the_plain_question(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)

    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        return said(*(0.0 for _ in responses))

    def frame(text: str) -> tuple[int, ...]:
        return tuple(policy.tokenizer.encode(text, add_special_tokens=False))

    asked = ask(
        sampler, frame("1+1=?"), 8, (0, 0, 0), judge, encode=frame, decode=policy.text.decode,
        text="1+1=?", answer="2", frame=frame, room=200,
    )  # fmt: skip
    [drawn] = sampler.run([Refined(size=3, temperature=0.8).draw(*asked)])
    [scored] = sampler.run([sampler.logprobs(asked[0].tokens, tuple(drawn[0].tokens), temperature=0.8)])
    assert drawn[0].logp == pytest.approx(scored.logp, abs=1e-9)
    assert (drawn[0].origin, drawn[0].temperature) == (1, 0.8)
    assert drawn[1].logp != drawn[0].logp


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
