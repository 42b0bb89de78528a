"""The page of critique-grpo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.methods.guidance.critique_grpo import (
    FunctionCritique,
    Refined,
    SelfCritique,
    VerdictInWords,
    critique_grpo,
    pick,
)
from policyopt.objective import credit
from policyopt.parts import EntropyBonus, PolicyShaping, PPOClip, RatioTimesAdvantage, SeqMeanTokenSumNorm, SumOverRows
from policyopt.rows import make_batch, masked_mean
from policyopt.sources.program import Response
from tests.asking import ask
from tests.batches import dlogp, gradients, random_batch, ready
from tests.methods.shared_words import batch_of, draw, said, text_of
from tests.tiny import load_tiny

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

    def shaped(gamma: float, logp: torch.Tensor) -> torch.Tensor:
        row = make_batch(mask=torch.ones(1, len(logp), dtype=torch.float64), logp=logp[None])
        return PolicyShaping(gamma=gamma).shaped(torch.zeros_like(row.mask), row)[0]

    torch.testing.assert_close(shaped(0.1, logp), p / (p + 0.1))
    assert (shaped(1e-300, logp[:5]) == 1).all()
    torch.testing.assert_close(shaped(1e9, logp) * 1e9, p)
    x = torch.linspace(-8, 0, 4001, dtype=torch.float64, requires_grad=True)
    for gamma in (0.02, 0.1, 0.5):
        slope = torch.autograd.grad(shaped(gamma, x).sum(), x)[0]
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
