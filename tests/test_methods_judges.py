"""Methods with several judges, methods that cut thoughts short, and responses that are written over several steps."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.data import load_task
from policyopt.data.structured import judge_json, parse_json, share_present
from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict, user
from policyopt.judging.diversity import diversity, sentences
from policyopt.judging.functions import BadResult, read_result
from policyopt.judging.judges import make_judge
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.critic.t_ppo import t_ppo
from policyopt.methods.exit.brpo_anytime import BudgetRelative, brpo_anytime
from policyopt.methods.exit.mrt import ContinueOrStop, mrt, progress, regret
from policyopt.methods.exit.s_grpo import s_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.judge.cgpo import CalibratedAdvantage, cgpo, first_best
from policyopt.methods.judge.constrained_rlhf import ConstrainedAdvantage, DualDescent, constrained_rlhf
from policyopt.methods.judge.mpo_meta import Criterion, Refinement, merge, mpo_meta, within
from policyopt.methods.judge.multirole_r1 import multirole_r1
from policyopt.methods.judge.rl_struct import rl_struct
from policyopt.methods.judge.tulu3 import tulu3
from policyopt.methods.judge.urpo import PlayerAndReferee, kendall_tau, read_scores, urpo
from policyopt.objective import credit, shaped
from policyopt.parts import Logistic, Normalise, Pairs, RowScore
from policyopt.rows import Batch, join, make_batch
from policyopt.schema import member
from policyopt.sources.draw import EarlyExits, Windows
from policyopt.sources.program import Response
from policyopt.steering import States, control
from policyopt.training.rows import to_batch
from policyopt.training.services import Held
from tests.asking import Asked, ask
from tests.batches import dlogp, random_batch, ready


class Echo:
    """A sampler that writes given texts, one character a token; id 0 ends."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = list(texts), list[tuple[str, int]]()

    async def generate(
        self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, stop: Sequence[Sequence[int]] = (),
        resume: Response | None = None, **_: Any,
    ) -> list[Response]:  # fmt: skip
        self.asked.append((text_of(tokens), n))
        return [self._write(resume or Response([], [], []), max_tokens, stop) for _ in range(n)]

    def _write(self, response: Response, most: int, stop: Sequence[Sequence[int]]) -> Response:
        response.stop_reason = "length"
        for token in [*ids_of(self.texts.pop(0)), 0][:most]:
            response.tokens.append(token)
            response.logp.append(-1.0)
            response.entropy.append(0.5)
            response.versions.append(3)
            if token == 0:
                response.stop_reason = "eos"
            elif any(tuple(response.tokens[-len(s) :]) == tuple(s) for s in stop):
                response.stop_reason = "stop"
                break
        return response


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def text_of(ids: Sequence[int]) -> str:
    return "".join(chr(i) for i in ids if i)


def asked(budget: int = 40, earlier: tuple[Response, ...] = (), scores: Sequence[float] = ()) -> Asked:
    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(s, s > 0, True, "") for s, _ in zip(scores, responses, strict=True)]

    return ask(None, ids_of("q?"), budget, (0, 0, 0), judge, encode=ids_of, decode=text_of, earlier=earlier)


def run(program: Any, asked: Asked, sampler: Any) -> list[Response]:
    question, context = asked
    context = dataclasses.replace(context, sampler=sampler, program=program)
    found: list[Response] = asyncio.run(program.draw(question, context))
    return found


def same(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def with_components(batch: Batch, **found: list[float]) -> Batch:
    named = {member("component", k): torch.tensor(x, dtype=batch.reward.dtype) for k, x in found.items()}
    return batch.replace(**named)


# Verdicts with parts -------------------------------------------------------------------------------------------------


def test_parts_of_a_verdict_become_columns_and_survive_all_that_batches_go_through() -> None:
    said = [Verdict(1.0, True, True, "", parts={"kind": 0.25}), Verdict(0.0, False, False, "failed", failed=True)]
    rows = [Response([5, 0], [-1.0, -1.0], [0.0, 0.0], "eos") for _ in said]
    batch = to_batch([(1,), (1,)], rows, said, [0, 0], 4)
    assert batch.component("kind").tolist() == [0.25, 0.0]
    same(batch.component("correct"), batch.correct)
    assert batch[torch.tensor([1, 0])].component("kind").tolist() == [0.0, 0.25]
    plain = to_batch([(1,)], rows[:1], [Verdict(1.0, True, True, "")], [1], 4)
    assert join([batch, plain]).component("kind").tolist() == [0.25, 0.0, 0.0]
    assert join([plain, batch]).component("kind").tolist() == [0.0, 0.25, 0.0]
    with pytest.raises(UserError, match=r"nothing called 'taste'; it has correct, formatted, kind"):
        batch.component("taste")


@pytest.mark.parametrize("parts", [3, {"a": math.nan}, {"a": "1"}, {str(i): 1 for i in range(65)}])
def test_a_judges_parts_are_finite_numbers_by_name(parts: Any) -> None:
    with pytest.raises(BadResult):
        read_result({"score": 1, "parts": parts})
    assert read_result({"score": 1, "parts": {"a": True}}).parts == {"a": 1.0}


# Tulu 3 --------------------------------------------------------------------------------------------------------------


def test_tulu3_is_ppo_on_verified_answers_and_a_right_one_without_end_is_punished() -> None:
    batch = random_batch(lengths=(6, 6, 2, 3, 6, 4, 1, 6, 5))
    verified = batch.replace(
        reward=torch.where(batch.truncated > 0.5, -10.0, 10.0 * batch.correct).to(batch.reward)
    )  # fmt: skip
    same(dlogp(tulu3(group_size=4), batch), dlogp(ppo(group_size=4), verified))
    cut_but_right = (batch.truncated > 0.5) & (batch.correct > 0.5)
    assert cut_but_right.any()
    assert (shaped(tulu3(), batch).reward[cut_but_right] == -10).all()


def test_dpo_on_mean_rewards_is_dpo_with_beta_over_the_length() -> None:
    g = torch.Generator().manual_seed(0)
    good, bad, ref = torch.randn(3, 4, 5, generator=g, dtype=torch.float64)
    credit = torch.tensor([[1.0]] * 4 + [[-1.0]] * 4, dtype=torch.float64).expand(8, 5)
    batch = make_batch(
        mask=torch.ones_like(credit), logp=torch.cat([good, bad]), ref_logp=torch.cat([ref, ref]), advantage=credit,
        group=torch.arange(4).repeat(2),
    )  # fmt: skip
    mean = Pairs(score=RowScore(against="reference", reduce="mean"), link=Logistic(beta=5.0, anisotropy=1.0))
    total = Pairs(score=RowScore(against="reference"), link=Logistic(beta=1.0, anisotropy=1.0))
    same(mean.rows(batch), total.rows(batch))
    same(mean.rows(batch)[:4], -torch.nn.functional.logsigmoid((good - bad).sum(-1)))  # half a pair's loss, of two rows


# Constraints ---------------------------------------------------------------------------------------------------------


def test_without_multipliers_constrained_rlhf_only_stays_close() -> None:
    batch = ready(constrained_rlhf(group_size=2), random_batch())
    part = ConstrainedAdvantage(equality=True)
    same(part(batch), part(batch.replace(correct=1 - batch.correct, formatted=batch.formatted * 0)))
    moved = ConstrainedAdvantage(lagrange=(0.5, 0.0))
    assert not torch.allclose(moved(batch), part(batch))
    scaled = with_components(batch, correct=(batch.correct * 7 + 3).tolist())
    torch.testing.assert_close(moved(scaled), moved(batch), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("equality", [True, False])
def test_a_multiplier_moves_towards_the_threshold_and_stays_there(equality: bool) -> None:
    recipe = constrained_rlhf(equality=equality, threshold=(0.5, 0.5))
    low = control(recipe, {"accuracy": 0.1, "format": 0.5}, {})
    high = control(recipe, {"accuracy": 0.9, "format": 0.5}, {})
    assert low.get("advantage.lagrange")[0] > 0 > high.get("advantage.lagrange")[0]
    assert low.get("advantage.lagrange")[1] == high.get("advantage.lagrange")[1] == 0
    assert control(recipe, {}, {}) == recipe


def test_what_a_judge_forbids_earns_nothing_whatever_its_reward() -> None:
    batch = random_batch()
    part = CalibratedAdvantage(judges=("formatted",), kl_max=None)
    bad = batch.formatted < 0.5
    assert bad.any()
    assert (part.reward(batch.replace(reward=batch.reward + 100 * bad))[bad] == 0).all()
    shifted = batch.replace(reward=batch.reward + 3, baseline_reward=batch.baseline_reward + 3)
    same(part(shifted), part(batch))
    assert not part(batch.replace(formatted=batch.formatted * 0)).any()


def test_cgpo_without_constraints_is_reinforce_on_calibrated_rewards() -> None:
    batch = random_batch()
    free = cgpo(judges=(), kl_max=None, group_size=2)
    plain = batch.replace(reward=torch.sigmoid(batch.reward - batch.baseline_reward))
    same(dlogp(free, batch), dlogp(reinforce(baseline="batch-mean", group_size=2), plain))


def test_codpo_compares_the_best_allowed_response_with_the_worst_forbidden_one() -> None:
    reward = torch.tensor([1.0, 5.0, -2.0, 0.0, 3.0, 2.0, 9.0, 8.0])
    good = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    batch = random_batch(groups=(4, 2, 2)).replace(reward=reward.double(), formatted=good.double())
    recipe = cgpo(optimizer="codpo", judges=("formatted",), group_size=2)
    better, worse = recipe.surrogate.pairs(ready(recipe, batch))
    assert better.tolist() == [0, 4]
    assert worse.tolist() == [3, 5], "all of the second prompt are allowed, none of the third"
    assert first_best(reward, batch.group, good > 2).tolist() == []
    gradient = dlogp(recipe, batch)
    assert gradient.abs().sum(-1).nonzero()[:, 0].tolist() == [0, 3, 4, 5]


def test_crraft_raises_one_response_for_each_prompt() -> None:
    batch = random_batch()
    gradient = dlogp(cgpo(optimizer="crraft", judges=("formatted",), kl_max=None, group_size=2), batch)
    rows = gradient.abs().sum(-1) > 0
    assert all(rows[batch.group == g].sum() == 1 for g in range(3) if batch.formatted[batch.group == g].any())
    assert (gradient <= 0).all()


# Components ----------------------------------------------------------------------------------------------------------


def test_rl_struct_and_multirole_are_grpo_where_the_judge_gives_no_parts() -> None:
    batch = random_batch()
    for recipe in (rl_struct(group_size=2), multirole_r1(group_size=2)):
        same(dlogp(recipe, batch), dlogp(grpo(group_size=2), batch))


def test_diversity_ranks_a_group_whose_answers_are_all_right() -> None:
    batch = random_batch(groups=(3,))
    batch = with_components(batch.replace(reward=torch.ones(3).double()), accuracy=[1.0] * 3, diversity=[0.2, 0.9, 0.5])
    advantage = ready(multirole_r1(group_size=2), batch).advantage[:, 0]
    assert advantage.argsort().tolist() == [0, 2, 1]
    assert advantage.abs().max() > 0.5, "the deviation is divided by"
    assert not ready(multirole_r1(delta=1.0, group_size=2), batch).advantage.any()


def test_the_scale_of_all_weights_is_of_no_account() -> None:
    batch = with_components(
        random_batch(groups=(3,)), valid=[1, 0, 1], struct=[1, 0, 0.5], format=[1, 1, 0], correct=[0, 0, 1], length=[1, 1, 0]
    )  # fmt: skip
    one, ten = rl_struct(group_size=2, kl_coef=0), rl_struct(10, 10, 5, 5, 2.5, group_size=2, kl_coef=0)
    torch.testing.assert_close(dlogp(one, batch), dlogp(ten, batch), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "1" * 10_000, '{"a": 1} x', '"\x00"', "\ud800"]
)
def test_hostile_text_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)
    verdict = read_result(judge_json("", text, "7"))
    assert verdict.parts["valid"] == verdict.parts["struct"] == verdict.parts["correct"] == 0


def test_a_structured_answer_is_judged_by_its_five_aspects() -> None:
    required = {"work": {}, "answer": {}}
    good = judge_json("", '```json\n{"answer":"7","work":"3+4"}\n```', "7", required)
    assert good["parts"] == dict.fromkeys(("valid", "struct", "format", "correct", "length"), 1.0)
    more = judge_json("", '{"answer":"8","x":1,"y":2}', "7", required)
    assert (more["parts"]["struct"], more["parts"]["format"], more["parts"]["correct"]) == (0.5, 0.0, 0.0)
    assert share_present({"a": {"b": 1}}, {"a": {"b": {}, "c": {}}}) == pytest.approx(2 / 3)
    assert not judge_json("", "[[[]]]", "7", required)["correct"]


def test_the_task_json_is_solved_by_its_own_solutions() -> None:
    task = load_task("json", heldout=20)
    judge = make_judge(task.judge)
    for example in task.heldout[:5]:
        assert example.solution is not None
        assert example.hasty is not None
        assert judge(example, example.solution).score == 1
        assert judge(example, example.hasty).parts["valid"] == 0
    assert not {e.prompt[0]["content"] for e in task.heldout} & {e.prompt[0]["content"] for e in task.train}
    with pytest.raises(UserError, match="brings its own judge"):
        load_task("json", judge="exact")


def test_repeating_a_sentence_makes_a_text_less_varied() -> None:
    once = diversity(*sentences("the cat sat. a dog ran away? yes!"))
    again = diversity(*sentences("the cat sat. the cat sat. a dog ran away? yes!"))
    assert all(again[name] < once[name] for name in ("lex", "bi", "adj", "yule"))
    assert all(0 <= x <= 1 for name, x in once.items() if name != "len")
    assert set(diversity(*sentences("\n\n")).values()) == {0.0}
    judge = make_judge(JudgeSpec("diverse", {"judge": "exact"}))
    verdict = judge(Example("1", user("?"), "yes"), "yes")
    assert verdict.correct
    assert verdict.parts["accuracy"] == 1
    assert 0 < verdict.parts["diversity"] < 1
    assert load_task("diverse:chain_sum", heldout=4).judge.options["judge"] == "reasoning-gym"


# Rubrics -------------------------------------------------------------------------------------------------------------


def test_a_rubric_is_rewritten_from_what_was_seen_and_goes_on_after_a_restart() -> None:
    recipe = mpo_meta(interval=2, group_size=2)
    controller = recipe.controllers[0]
    assert isinstance(controller, Refinement)
    states: States = {}
    versions = []
    metrics: dict[str, float] = {}
    for _ in range(6):
        recipe = control(recipe, metrics, states := json.loads(json.dumps(states)))
        versions.append([c.scale for c in recipe.get("shape.Rubric.items")])
        metrics = {"accuracy": 0.1, "format": 1.0}
    assert versions == [[5, 5], [5, 5], [5, 5], [6, 4], [6, 4], [7, 3]]
    assert [controller.version(u) for u in range(6)] == [0, 0, 0, 1, 1, 2]


def test_proposals_are_merged_whole_and_without_duplicates() -> None:
    assert within([5, 5, 1], 10) == [0, 1]
    assert within([11], 10) == []
    a, b = Criterion(name="a", scale=2), Criterion(name="b", scale=4)
    assert merge((a,), [(a, b), (Criterion(name="a", scale=4),)]) == (Criterion(name="a", scale=3), b)
    assert merge((a,), []) == (a,)


# Referee -------------------------------------------------------------------------------------------------------------


def test_only_the_order_of_scores_counts() -> None:
    gold = [3.0, 1.0, 2.0]
    assert kendall_tau([30, -1, 7], gold) == 1 == -kendall_tau([1, 3, 2], gold)
    assert kendall_tau([5, 5], [1, 0]) == 0
    with pytest.raises(ValueError, match="1 scores for 2"):
        kendall_tau([1], gold[:2])
    assert read_scores("#### 3 -1 2.5", 3) == [3, -1, 2.5]
    assert read_scores("#### 3 1", 3) is None
    assert read_scores("3 1 2", 3) is None


def test_judgings_are_trained_on_in_their_own_context_and_compared_among_themselves() -> None:
    program = PlayerAndReferee(size=2, judgings=2)
    sampler = Echo("one", "two", "#### 9 1", "what?")
    rows = run(program, asked(scores=[1.0, 0.0]), sampler)
    assert sampler.asked[1] == ("q?\n(1) one\n(2) two\nscore each: ", 2)
    assert [r.origin for r in rows] == [0, 0, 1, 1]
    assert [r.verdict.score for r in rows if r.verdict] == [1.0, 0.0, 1.0, -1.0]
    assert text_of(rows[2].context) == sampler.asked[1][0]
    batch = to_batch([(1,)] * 4, rows, [r.verdict for r in rows if r.verdict], [0] * 4, 40)
    advantage = credit(urpo(group_size=2), batch).advantage[:, 0]
    assert advantage[0] == -advantage[1] > 0
    assert advantage[2] == -advantage[3] > 0


def test_where_prompts_are_open_the_referees_scores_are_the_reward() -> None:
    program = PlayerAndReferee(size=2, open_share=1.0)
    rows = run(program, asked(scores=[1.0, 0.0]), Echo("one", "two", "#### 2 8"))
    assert [r.verdict.score for r in rows if r.verdict] == [2.0, 8.0]
    assert [r.verdict.correct for r in rows if r.verdict] == [True, False], "the log keeps the judge's word"
    same_score = PlayerAndReferee(size=2)
    assert len(run(same_score, asked(scores=[1.0, 1.0]), Echo("one", "two"))) == 2, "no order to find"


# Early exits ---------------------------------------------------------------------------------------------------------


def test_an_answer_forced_from_a_thought_trains_on_what_the_policy_wrote_alone() -> None:
    program = EarlyExits(size=3, exits=2, opener=" so ", answer_tokens=4)
    sampler = Echo("abcdef####", " 7", "x", "y")
    whole, *ends = run(program, asked(), sampler)
    assert text_of(whole.tokens) == "abcdef#### 7"
    assert (whole.origin, whole.cut, whole.finished, all(whole.own)) == (0, -1, True, True)
    for i, (row, end) in enumerate(zip(ends, "xy", strict=True)):
        assert text_of(row.tokens) == "abcdef"[: row.cut] + " so " + end
        assert row.own == [True] * row.cut + [False] * 4 + [True] * 2
        assert len(row.tokens) == len(row.logp) == len(row.entropy) == len(row.versions) == len(row.own)
        assert row.origin == i + 1
    assert ends[0].cut < ends[1].cut, "in the order of their places, each another one"
    assert sampler.asked[1:] == [("q?", 1), *(("q?" + text_of(r.tokens)[:-1], 1) for r in ends)]


def test_thoughts_that_are_over_are_answered_from_their_end_and_trained_once() -> None:
    program = EarlyExits(
        size=5, exits=2, answers=2, fractions=(0.1, 1.0), once=True, opener=" so ", answer_tokens=6
    )  # fmt: skip
    whole, *ends = run(program, asked(budget=40), Echo("abcdef####", " 7", "x", "y", "z", "w"))
    assert [r.cut for r in ends] == [3, 3, 10, 10]
    assert text_of(ends[3].tokens) == "abcdef####w", "it has closed itself: nothing is inserted"
    assert whole.own == [True] * 10 + [False] * 3
    assert ends[0].own == [False] * 7 + [True] * 2
    with pytest.raises(UserError, match="leaves no room"):
        run(program, asked(budget=5), Echo("a"))


@pytest.mark.parametrize(
    "fields", [{"size": 8}, {"size": 9, "fractions": (0.5,)}, {"size": 3, "exits": 2, "fractions": (1.0, 0.5)}]
)
def test_exits_that_cannot_be_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"multiple|fractions"):
        EarlyExits(**fields)


def test_earlier_right_answers_earn_more_and_wrong_ones_do_not_count() -> None:
    batch = random_batch(groups=(4,)).replace(
        correct=torch.tensor([1.0, 0.0, 1.0, 1.0]).double(), origin=torch.tensor([0, 1, 3, 2])
    )
    assert shaped(s_grpo(), batch).reward.tolist() == [0.25, 0.0, 0.5, 1.0]
    serial = s_grpo().replace(source=grpo().source)
    one = batch.replace(correct=torch.tensor([0.0, 0.0, 1.0, 0.0]).double())
    same(dlogp(serial, one), dlogp(grpo(kl_coef=0.0), one.replace(reward=one.correct)))


def exits_batch() -> Batch:
    """One thought with two cuts of two answers, and another."""
    cut, reward = [-1, 2, 2, 4, 4], [[0.0, 1, 0, 1, 1], [0.0, 0, 0, 0, 1]]
    batch = random_batch(groups=(10,), lengths=(6,) * 10)
    return batch.replace(
        reward=torch.tensor(reward).double().flatten(), cut=torch.tensor(cut * 2), origin=torch.tensor([0, 1, 1, 2, 2] * 2),
        thought=torch.repeat_interleave(torch.arange(2), 5),
    )  # fmt: skip


def test_each_part_of_a_thought_is_credited_with_the_budgets_that_it_serves() -> None:
    part = BudgetRelative(budgets=(1.0, 2.0), prior="uniform")
    batch = exits_batch()
    advantage = part(batch)
    score = torch.tensor([[0.5, 1.0], [0.0, 0.5]]).double()
    expected = part.returns(score) - part.baselines(score, torch.zeros(2))
    for row, k in ((0, 0), (5, 1)):
        same(advantage[row], torch.cat([expected[k, 0].expand(2), expected[k, 1].expand(4)]))
    assert advantage[[1, 2, 3, 4, 9], 0].tolist() == [0.5, -0.5, 0.0, 0.0, 0.5]
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    same(part(batch[order]), advantage[order])


def test_without_cuts_brpo_is_reward_minus_group_mean() -> None:
    batch = random_batch()
    for prior in ("uniform", "linear", "base"):
        same(BudgetRelative(prior=prior)(batch), Normalise(scale="none")(batch))
    base = BudgetRelative(budgets=(1.0, 2.0), prior="base", baseline="v2only")(exits_batch())
    same(base[0], torch.full((6,), 0.25).double())
    assert brpo_anytime(thoughts=2, exits=2, answers=1).source.size == 6


def test_going_on_is_worth_what_it_adds_to_stopping() -> None:
    program = ContinueOrStop(size=2, stops=2, opener=" so ", answer_tokens=4)
    sampler = Echo("one\ntwo####", "x", "y", "more", "less")
    rows = run(program, asked(), sampler)
    assert [r.use for r in rows] == ["train", "train", "baseline", "baseline"]
    cut = rows[0].cut
    assert cut in (0, 4), "behind a line, or at the prompt"
    assert all(r.own[:cut] == [False] * cut and r.own[-1] for r in rows)
    thought = program.boundaries(asked()[1], Response(list(ids_of("a\nb\n")), [], []))
    assert thought == [0, 2], "not behind the last token"
    batch = random_batch()
    same(ready(mrt(), batch.replace(baseline_reward=batch.reward)).advantage, 0 * batch.mask)


def test_progress_telescopes_and_regret_falls_with_success() -> None:
    success = [0.1, 0.4, 0.2, 0.9]
    assert sum(progress(success)) == pytest.approx(0.8)
    assert regret([1e-9, 1], [1.0, 1.0], 10) == pytest.approx(0, abs=1e-8)
    assert regret([10, 20], [0.2, 0.9], 15) > regret([10, 20], [0.3, 0.9], 15)


# Windows -------------------------------------------------------------------------------------------------------------


def test_responses_grow_by_a_window_each_step_and_every_token_is_new_once() -> None:
    program = Windows(size=2, windows=2)
    first = run(program, asked(budget=8), Echo("ab", "cdef"))
    assert [(len(r.tokens), r.later, r.use, r.new_from) for r in first] == [
        (3, False, "train", 0),
        (4, True, "train", 0),
    ]
    second = run(program, asked(budget=8, earlier=tuple(r for r in first if r.later)), Echo("ghijkl"))
    assert [(text_of(r.tokens), r.later, r.new_from) for r in second] == [("cdefghij", False, 4)]


def test_a_whole_group_waits_for_its_longest_response() -> None:
    program = Windows(size=2, windows=2, whole=True)
    first = run(program, asked(budget=8), Echo("ab", "cdefgh"))
    assert [(r.later, r.use) for r in first] == [(True, "wait")] * 2
    second = run(program, asked(budget=8, earlier=tuple(first)), Echo("g"))
    assert [(text_of(r.tokens), r.later, r.use) for r in second] == [("ab", False, "train"), ("cdefg", False, "train")]


def test_what_is_held_comes_back_from_a_checkpoint_as_it_was() -> None:
    response = Response([5, 6], [-1.5, -0.1], [0.2, 0.3], versions=[1, 2], top=[([1], [-0.5])], later=True)
    held = Held(Example("a-1", user("?"), "7", meta={"x": 1}), (1, 2), (0, 3, 4), [response], 3)
    assert Held.from_dict(json.loads(json.dumps(dataclasses.asdict(held)))) == held


def test_one_window_is_a_group() -> None:
    assert t_ppo(windows=1).source == Windows(size=8)
    rows = run(Windows(size=2), asked(budget=8), Echo("ab", "cdefghijkl"))
    assert [(r.later, r.use, r.finished) for r in rows] == [(False, "train", True), (False, "train", False)]


# Bad fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConstrainedAdvantage(components=("correct",)),
        lambda: DualDescent(threshold=(1.0,)),
        lambda: constrained_rlhf(components=("correct",)),
        lambda: cgpo(kl_max=0.0),
        lambda: Refinement(interval=0),
    ],
)
def test_bad_fields_are_refused(make: Any) -> None:
    with pytest.raises(ValidationError):
        make()
